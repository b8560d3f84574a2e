"""The last administrator stays one, whichever page or action would change it, and however many people act at once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection, transaction
from django.test import Client

from tests.locks import blocked_transactions
from tests.roles import role
from tests.voicecare.admin.users.forms import browser, edit, page_of, staff
from tests.waiting import until
from voicecare.admin.users.administrators import LAST_ADMINISTRATOR, administrators

Removal = Callable[[Client, User], object]


def errors_after(client: Client, page: str, posted: dict[str, object]) -> list[str]:
    """Post, and return the messages of the next page that are errors."""
    response = client.post(page, posted, follow=True)
    return [str(message) for message in response.context["messages"] if message.level_tag == "error"]


def delete_selected(client: Client, *rows: User | Group) -> list[str]:
    posted = {"action": "delete_selected", "_selected_action": [row.pk for row in rows], "post": "yes"}
    return errors_after(client, f"/admin/auth/{rows[0]._meta.model_name}/", posted)


REMOVALS: dict[str, Removal] = {
    "deactivate": lambda client, user: edit(client, user, {"is_active": None}),
    "no staff": lambda client, user: edit(client, user, {"is_staff": None}),
    "no group": lambda client, user: edit(client, user, {"groups": []}),
    "delete": lambda client, user: errors_after(client, page_of(user, "delete"), {"post": "yes"}),
    "delete selected": delete_selected,
}


@pytest.fixture
def boss(db: None) -> User:
    return staff("boss", in_role="Administrator")


@pytest.mark.parametrize("removal", REMOVALS.values(), ids=REMOVALS)
@pytest.mark.django_db
def test_the_last_administrator_is_kept_with_an_error(boss: User, removal: Removal):
    """Neither an inactive user nor one without staff status counts as another administrator."""
    for name, rights in (("gone", {"is_active": False, "is_staff": True}), ("no-staff", {})):
        User.objects.create_user(name, **rights).groups.add(role("Administrator"))
    User.objects.create_user("gone-root", is_active=False, is_staff=True, is_superuser=True)
    client = browser(boss)
    assert removal(client, boss) == [LAST_ADMINISTRATOR]
    assert [*administrators()] == [boss]
    assert client.get("/admin/").status_code == 200
    assert not boss.logentry_set.exists()


@pytest.mark.parametrize("removal", REMOVALS.values(), ids=REMOVALS)
@pytest.mark.parametrize("is_superuser", [True, False])
@pytest.mark.django_db
def test_an_administrator_can_be_removed_if_there_is_another(boss: User, removal: Removal, is_superuser: bool):
    other = staff("other", in_role="" if is_superuser else "Administrator")
    User.objects.filter(pk=other.pk).update(is_superuser=is_superuser)
    assert removal(browser(User.objects.get(pk=other.pk)), boss) == []
    assert [*administrators()] == [other]


@pytest.mark.django_db
def test_the_last_superuser_is_kept():
    root = User.objects.create_superuser("root")
    assert edit(browser(root), root, {"is_superuser": None}) == [LAST_ADMINISTRATOR]
    assert edit(browser(root), root, {"is_superuser": None, "groups": [role("Administrator").pk]}) == []


@pytest.mark.django_db
def test_all_administrators_cannot_be_deleted_at_once(boss: User):
    other, carol = staff("other", in_role="Administrator"), staff("carol")
    assert delete_selected(browser(boss), boss, other, carol) == [LAST_ADMINISTRATOR]
    assert User.objects.count() == 3
    assert delete_selected(browser(boss), other, carol) == []


@pytest.mark.django_db
def test_the_group_of_the_last_administrators_is_kept(boss: User):
    client, group = browser(boss), role("Administrator")
    assert errors_after(client, page_of(group, "delete"), {"post": "yes"}) == [LAST_ADMINISTRATOR]
    assert delete_selected(client, group, role("Auditor")) == [LAST_ADMINISTRATOR]
    assert edit(client, group, {"name": "Chiefs"}) == [LAST_ADMINISTRATOR]
    assert edit(client, group, {"permissions": []}) == [LAST_ADMINISTRATOR]
    assert {"Administrator", "Auditor"} <= set(Group.objects.values_list("name", flat=True))
    assert boss.has_perm("auth.change_user")

    fewer = group.permissions.exclude(codename="change_user").first()
    others = [key for key in group.permissions.values_list("pk", flat=True) if key != fewer.pk]
    assert edit(client, group, {"permissions": others}) == []
    assert delete_selected(client, role("Auditor")) == []


@pytest.mark.django_db
def test_a_superuser_may_delete_the_group(boss: User):
    group = role("Administrator")
    assert delete_selected(browser(User.objects.create_superuser("root")), group) == []
    assert not Group.objects.filter(name="Administrator").exists()


@pytest.mark.parametrize("removal", REMOVALS.values(), ids=REMOVALS)
@pytest.mark.django_db(transaction=True)
def test_two_administrators_cannot_remove_each_other_at_the_same_time(removal: Removal):
    """Both requests wait for this test's locks, so both have begun when the first one ends."""
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has one writer at a time")
    users = [staff(name, in_role="Administrator") for name in ("ada", "bob")]
    clients = [browser(user) for user in users]

    def remove(client: Client, user: User) -> object:
        try:
            return removal(client, user)
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        with transaction.atomic():
            list(User.objects.select_for_update().order_by("pk"))
            running = [pool.submit(remove, *pair) for pair in zip(clients, reversed(users), strict=True)]
            until(blocked_transactions, 60, wanted=lambda number: number == 2)
        for future in running:  # what they return is of no use: test clients of several threads mix their contexts
            future.result(60)
    assert administrators().count() == 1
