"""What one user may give to others. Nobody gives more than they have, and superusers may give everything.

Who can log in as a user can do what that user may do. So a user with more permissions than one's own cannot be
managed, either: nobody changes that user's password, second factor or tokens.
"""

from django.contrib.auth.models import Group, Permission, User
from django.db.models import Exists, OuterRef, Q, QuerySet


def held_permissions(user: User) -> QuerySet[Permission]:
    """The permissions that the user has directly or by a group, also while the user is inactive."""
    held = Permission.objects.filter(Q(user=user) | Q(group__user=user)).order_by().values("pk")
    return Permission.objects.filter(pk__in=held)


def grantable_permissions(giver: User) -> QuerySet[Permission]:
    return Permission.objects.all() if giver.is_superuser else held_permissions(giver)


def grantable_groups(giver: User) -> QuerySet[Group]:
    """The groups whose permissions the giver has."""
    if giver.is_superuser:
        return Group.objects.all()
    beyond = Group.permissions.through.objects.filter(group=OuterRef("pk")).exclude(
        permission__in=held_permissions(giver)
    )
    return Group.objects.filter(~Exists(beyond))


def manageable_users(manager: User) -> QuerySet[User]:
    """The users who have no permission that the manager lacks."""
    if manager.is_superuser:
        return User.objects.all()
    lacking = Permission.objects.exclude(pk__in=held_permissions(manager))
    own = User.user_permissions.through.objects.filter(user=OuterRef("pk"), permission__in=lacking)
    by_group = User.groups.through.objects.filter(user=OuterRef("pk"), group__permissions__in=lacking)
    return User.objects.filter(~Exists(own), ~Exists(by_group), is_superuser=False)


def may_manage(manager: User, user: User) -> bool:
    return manageable_users(manager).filter(pk=user.pk).exists()
