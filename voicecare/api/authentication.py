"""Authentication of users by the header `Authorization: Bearer <token>`.

The REST path `auth/token/` and the admin issue the tokens. The database stores only their digests.
"""

import re
from typing import Any

from knox.auth import TokenAuthentication
from rest_framework.exceptions import AuthenticationFailed

from voicecare.accounts import tokens

_TOKEN = re.compile(rb"[0-9a-f]{64}")


class BearerAuthentication(TokenAuthentication):
    def authenticate_credentials(self, token: bytes) -> tuple[Any, Any]:
        """Returns the user and the token row of a valid token. Raises AuthenticationFailed (401) for any other value.

        A value that does not have the form of a token is rejected here, because knox would fail on bytes that are not
        UTF-8.
        """
        if not _TOKEN.fullmatch(token):
            raise AuthenticationFailed("Invalid token.")
        user, knox_token = super().authenticate_credentials(token)
        tokens.check(knox_token)
        return user, knox_token
