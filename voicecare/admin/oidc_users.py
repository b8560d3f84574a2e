"""The users here of people whom an OpenID Connect provider has logged in."""

from django.conf import settings
from django.contrib.auth.models import Group, User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpRequest

from voicecare.accounts.oidc import Identity, LogInRefused
from voicecare.audit.models import Action
from voicecare.audit.recording import record
from voicecare.patients.access import ADMINISTRATOR


def find_user(request: HttpRequest, identity: Identity) -> User:
    """Returns the user who may log in, with the groups that the provider decides. Raises LogInRefused.

    A user who is refused because of the groups has lost the others.
    """
    with transaction.atomic():
        user = User.objects.filter(username=identity.username).first()
        if user is None:
            if not settings.OIDC_CREATE_USERS or identity.groups == []:
                raise LogInRefused("unknown_user", f"There is no user {identity.username} here. Ask an administrator.")
            user = _create_user(request, identity.username)
        if identity.groups is not None:
            _set_groups(request, user, identity.groups)
    if identity.groups == [] and not user.is_superuser:
        raise LogInRefused("no_group", "You are in no group that may log in here. Ask an administrator.")
    if not user.is_active or not user.is_staff:
        raise LogInRefused("not_allowed", "You may not log in to this site. Ask an administrator.")
    return user


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
