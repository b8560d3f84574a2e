"""Authentication by `Authorization: Bearer <token>`. `auth/token/` issues tokens; the database keeps their digests."""

import re
from typing import Any

from knox.auth import TokenAuthentication
from rest_framework.exceptions import AuthenticationFailed

_TOKEN = re.compile(rb"[0-9a-f]{64}")


class BearerAuthentication(TokenAuthentication):
    def authenticate_credentials(self, token: bytes) -> tuple[Any, Any]:
        """Reject everything that does not look like a token. knox would fail on bytes that are not UTF-8."""
        if not _TOKEN.fullmatch(token):
            raise AuthenticationFailed("Invalid token.")
        return super().authenticate_credentials(token)  # type: ignore[no-any-return]
