"""The users here of people whom an OpenID Connect provider has logged in.

A user is linked with one account of the provider, by issuer and `sub`. The name of an account can change and be given
to another person, so it only counts for the first login, and only where it cannot take over anybody's user:

- A user who has no password can log in by the provider alone. The first account with the user's name is linked.
- A user who has a password is linked when they log in with it within `LINK_S` seconds after the provider. So a person
  who takes the name of an administrator at the provider gains nothing.
- A user who is linked already is never linked with another account.
"""

import time

from django.conf import settings
from django.contrib.auth.models import Group, User
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.http import HttpRequest

from voicecare.accounts.models import ProviderIdentity
from voicecare.accounts.oidc import Identity, LogInRefused
from voicecare.audit.models import Action
from voicecare.audit.recording import record
from voicecare.patients.access import ADMINISTRATOR

LINK_S = 600  # seconds in which a password confirms the account
_PENDING_SESSION_KEY = "oidc_to_link"


def find_user(request: HttpRequest, identity: Identity) -> User:
    """Returns the user who may log in, with the groups that the provider decides. Raises LogInRefused.

    A user who is refused because of the groups has lost the others.
    """
    with transaction.atomic():
        known = ProviderIdentity.objects.filter(issuer=settings.OIDC_ISSUER, subject=identity.subject)
        linked = known.select_related("user").first()
        user = _link_by_name(request, identity) if linked is None else linked.user
        if identity.groups is not None:
            _set_groups(request, user, identity.groups)
    _require_access(user, identity)
    return user


def link_confirmed(request: HttpRequest, user: User) -> None:
    """Links the account that this browser came back with, now that its user has logged in with the password.

    Does nothing if there is none, if it has another name than the user, or if one of both is linked already.
    """
    pending = request.session.pop(_PENDING_SESSION_KEY, None)
    if pending is None or pending["until"] < time.time():
        return
    if (pending["issuer"], pending["username"]) == (settings.OIDC_ISSUER, user.get_username()):
        _link(request, user, pending["subject"])


def _link_by_name(request: HttpRequest, identity: Identity) -> User:
    """Returns the user with the name of the account, after linking both. Raises LogInRefused."""
    name = identity.username
    user = User.objects.filter(username=name).first()
    if user is None:
        if not settings.OIDC_CREATE_USERS or identity.groups == []:
            raise LogInRefused("unknown_user", f"There is no user {name} here. Ask an administrator.")
        user = _create_user(request, name)
    _require_access(user, identity)
    if user.has_usable_password():
        if not user.provider_identities.filter(issuer=settings.OIDC_ISSUER).exists():
            request.session[_PENDING_SESSION_KEY] = {
                "issuer": settings.OIDC_ISSUER,
                "subject": identity.subject,
                "username": name,
                "until": time.time() + LINK_S,
            }
            message = f"Log in with the password of {name} once. From then on, {settings.OIDC_NAME} logs you in."
            raise LogInRefused("not_linked", message)
    elif _link(request, user, identity.subject):
        return user
    raise LogInRefused("name_taken", f"The user {name} belongs to another account. Ask an administrator.")


def _link(request: HttpRequest, user: User, subject: str) -> bool:
    """Links the user with the account. Returns whether that was possible: neither of both was linked before."""
    try:
        with transaction.atomic():
            identity = ProviderIdentity.objects.create(user=user, issuer=settings.OIDC_ISSUER, subject=subject)
            record(request, Action.ADD, identity, user=user)
    except IntegrityError:
        return False
    return True


def _require_access(user: User, identity: Identity) -> None:
    if identity.groups == [] and not user.is_superuser:
        raise LogInRefused("no_group", "You are in no group that may log in here. Ask an administrator.")
    if not user.is_active or not user.is_staff:
        raise LogInRefused("not_allowed", "You may not log in to this site. Ask an administrator.")


def _create_user(request: HttpRequest, name: str) -> User:
    """Returns the new user, who has no password."""
    user = User(username=name, is_staff=True)
    user.set_unusable_password()
    try:
        user.clean_fields()
    except ValidationError as error:
        raise LogInRefused("bad_username", "Your name at the provider cannot be a user name here.") from error
    values = {"is_staff": True, "password": user.password}
    user, is_new = User.objects.get_or_create(username=name, defaults=values)
    if is_new:
        record(request, Action.ADD, user, user=user)
    return user


def _set_groups(request: HttpRequest, user: User, groups: list[Group]) -> None:
    """Makes these the groups of the user. The last administrator stays one."""
    # The package registers pages when it is imported, and the site, which must exist before, imports this module.
    from voicecare.admin.users.administrators import would_be_none_without

    old, new = (sorted(group.pk for group in some) for some in (user.groups.all(), groups))
    if old == new:
        return
    stays_administrator = user.is_superuser or any(group.name == ADMINISTRATOR for group in groups)
    if not stays_administrator and would_be_none_without([user]):
        raise LogInRefused(
            "last_administrator",
            "Your provider would take your role from you, and you are the last administrator. Log in with a password.",
        )
    user.groups.set(groups)
    record(request, Action.CHANGE, user, {"groups": [old, new]}, user=user)
