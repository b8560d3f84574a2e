"""The mail with the link to set a new password.

The worker sends it, so that the answer to a request takes the same time for an address that no user has.
"""

from smtplib import SMTPException

import structlog
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.auth.tokens import default_token_generator
from django.core.mail import send_mail
from django.urls import reverse
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode

SUBJECT = "voicecare: set a new password"
BODY = """Somebody, probably you, has asked for a new password for your voicecare user "{username}".

Open this page to choose it. The link works once, within {minutes} minutes:

{url}

If you did not ask for this, ignore this mail. Your password stays as it is.
"""

log = structlog.get_logger(__name__)


def send_link(user_id: int) -> None:
    """Mails the link to the user, if the user is active and has a password and an address.

    The link begins with the public address of this server, never with the header `Host` of a request. Its token is in
    the query, because logs have paths. A failure of the mail server is logged, and nothing else happens: the user asks
    again.
    """
    user = User.objects.filter(pk=user_id, is_active=True).exclude(email="").first()
    if user is None or not user.has_usable_password():
        return
    path = reverse("admin:password-reset-confirm", args=[urlsafe_base64_encode(force_bytes(user.pk))])
    url = f"{settings.PUBLIC_URL.rstrip('/')}{path}?token={default_token_generator.make_token(user)}"
    minutes = settings.PASSWORD_RESET_TIMEOUT // 60
    body = BODY.format(username=user.get_username(), minutes=minutes, url=url)
    try:
        send_mail(SUBJECT, body, None, [user.email])
    except (OSError, SMTPException) as error:  # the message of the error can have the address
        log.warning("password_reset.not_sent", user=user.pk, error=type(error).__name__)
