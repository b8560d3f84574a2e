"""There is always an administrator, because nobody else could make somebody one."""

from collections.abc import Collection

from django.contrib.auth.models import User
from django.db.models import Q, QuerySet

from voicecare.admin.guarded_deletion import DeletionRefused
from voicecare.patients.access import ADMINISTRATOR

LAST_ADMINISTRATOR = (
    "This would leave no administrator. Make another active staff user a superuser or a member of the group "
    f"{ADMINISTRATOR} first."
)


class LastAdministrator(DeletionRefused):
    """A change would leave nobody who may administrate. The message says what to do."""

    def __init__(self) -> None:
        super().__init__(LAST_ADMINISTRATOR)


def administrators() -> QuerySet[User]:
    """The active users who can log in to the admin and are superusers or in the group Administrator."""
    is_administrator = Q(is_superuser=True) | Q(groups__name=ADMINISTRATOR)
    return User.objects.filter(is_administrator, is_active=True, is_staff=True).distinct()


def would_be_none_without(users: Collection[User]) -> bool:
    """Whether these users are all administrators that there are. Call it in the transaction that removes them.

    Locks the administrators until the end of the transaction, so that no two transactions remove each other's.
    """
    found = set(_locked_administrators())
    return bool(found) and found <= set(users)


def would_be_none_without_group() -> bool:
    """Whether all administrators are so by the group. Call it in the transaction that takes something from the group.

    Locks like `would_be_none_without`.
    """
    found = _locked_administrators()
    return bool(found) and not any(user.is_superuser for user in found)


def _locked_administrators() -> list[User]:
    found = administrators().order_by().values("pk")
    list(User.objects.select_for_update(no_key=True).filter(pk__in=found).order_by("pk"))
    return list(administrators())  # again, because another transaction may have ended while this one waited
