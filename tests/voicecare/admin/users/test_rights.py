"""Nobody gives permissions, groups or the rights of a superuser that they do not have."""

import pytest
from django.contrib.auth.models import Group, Permission, User
from django_otp.plugins.otp_totp.models import TOTPDevice

from tests.roles import role
from tests.voicecare.admin.users.forms import browser, edit, page_of, shown_values, staff
from voicecare.accounts.models import ApiToken, ProviderIdentity

pytestmark = pytest.mark.django_db

NOT_GRANTABLE = "You can only give permissions and groups with permissions that you have yourself."


@pytest.fixture
def reception(db: None) -> User:
    """A staff user who manages accounts and sees no patient."""
    return staff("reception", "auth.view_user", "auth.change_user", "auth.add_user", "auth.delete_user",
                 "auth.view_group", "auth.change_group", "auth.delete_group")  # fmt: skip


def permission(name: str) -> Permission:
    label, codename = name.split(".")
    return Permission.objects.get(content_type__app_label=label, codename=codename)


def test_an_administrator_makes_nobody_a_superuser():
    """The box is not in the form, and a forged field is ignored."""
    boss, carol = staff("boss", in_role="Administrator"), staff("carol", in_role="Clinician")
    staff("second", in_role="Administrator")
    for user in (boss, carol):
        assert "is_superuser" not in shown_values(browser(boss), user)
        assert edit(browser(boss), user, {"is_superuser": "on", "first_name": "New"}) == []
        user.refresh_from_db()
        assert (user.is_superuser, user.first_name) == (False, "New")


def test_a_superuser_makes_somebody_a_superuser():
    root, carol = User.objects.create_superuser("root"), staff("carol")
    assert edit(browser(root), carol, {"is_superuser": "on"}) == []
    carol.refresh_from_db()
    assert carol.is_superuser


@pytest.mark.parametrize("is_own", [True, False])
def test_permissions_and_groups_that_one_lacks_cannot_be_given(reception: User, is_own: bool):
    user = reception if is_own else User.objects.create_user("carol")
    before = [*user.user_permissions.all()]
    forged = {"user_permissions": [permission("patients.view_patient").pk], "groups": [role("Clinician").pk]}
    assert edit(browser(reception), user, forged) == [NOT_GRANTABLE, NOT_GRANTABLE]
    assert ([*user.user_permissions.all()], [*user.groups.all()]) == (before, [])


def test_permissions_and_groups_that_one_has_can_be_given(reception: User):
    carol, group = User.objects.create_user("carol"), Group.objects.create(name="Reception")
    group.permissions.add(permission("auth.view_user"))
    given = {"user_permissions": [permission("auth.change_user").pk], "groups": [group.pk]}
    assert edit(browser(reception), carol, given) == []
    assert carol.has_perm("auth.change_user")
    assert carol.has_perm("auth.view_user")


def test_an_administrator_gives_every_role():
    boss, carol = staff("boss", in_role="Administrator"), staff("carol")
    groups = [role(name).pk for name in ("Administrator", "Clinician", "Auditor")]
    assert edit(browser(boss), carol, {"groups": groups}) == []
    assert carol.has_perm("patients.erase_patient")


def test_a_group_gets_no_permission_that_its_editor_lacks(reception: User):
    group = Group.objects.create(name="Reception")
    forged = {"permissions": [permission("patients.view_patient").pk]}
    assert edit(browser(reception), group, forged) == [NOT_GRANTABLE]
    assert edit(browser(reception), group, {"permissions": [permission("auth.view_user").pk]}) == []
    assert [*group.permissions.all()] == [permission("auth.view_user")]


def test_a_group_with_more_permissions_than_ones_own_is_read_only(reception: User):
    client, clinicians = browser(reception), role("Clinician")
    assert client.get(page_of(clinicians)).status_code == 200
    assert client.post(page_of(clinicians), {"name": "Mine", "permissions": []}).status_code == 403
    assert client.post(page_of(clinicians, "delete"), {"post": "yes"}).status_code == 403
    assert Group.objects.get(pk=clinicians.pk).permissions.exists()


@pytest.mark.parametrize("kind", ["superuser", "clinician", "member of a group", "inactive superuser"])
def test_a_user_with_more_permissions_cannot_be_managed(reception: User, kind: str):
    """Who sets the password of such a user could log in as them."""
    target = User.objects.create_user("target", is_superuser="superuser" in kind, is_active="inactive" not in kind)
    if kind == "clinician":
        target.user_permissions.add(permission("patients.view_patient"))
    if kind == "member of a group":
        target.groups.add(role("Clinician"))
    client = browser(reception)
    assert client.get(page_of(target)).status_code == 200
    password = {"password1": "correct horse battery", "password2": "correct horse battery", "usable_password": "true"}
    answers = [
        client.get(page_of(target, "password")),
        client.post(page_of(target, "password"), password),
        client.post(page_of(target), {"username": "target", "email": "reception@example.org"}),
        client.post(page_of(target, "delete"), {"post": "yes"}),
        client.post("/admin/auth/user/", {"action": "delete_selected", "_selected_action": [target.pk], "post": "yes"}),
    ]
    assert [answer.status_code for answer in answers] == [403] * 5
    assert not User.objects.get(username="target").has_usable_password()


def test_neither_a_second_factor_nor_a_token_helps_to_become_another_user():
    boss, root = staff("boss", in_role="Administrator"), User.objects.create_superuser("root")
    client, carol = browser(boss), staff("carol", in_role="Clinician")
    factors = {user: TOTPDevice.objects.create(user=user, name="app", confirmed=True) for user in (root, carol)}
    for user, status in ((root, 403), (carol, 302)):
        account = ProviderIdentity.objects.create(user=user, issuer="https://login.example.org", subject=user.username)
        for page in (f"secondfactor/{factors[user].pk}", f"provideridentity/{account.pk}"):
            assert client.post(f"/admin/accounts/{page}/delete/", {"post": "yes"}).status_code == status
    for user in (root, carol):
        client.post("/admin/accounts/apitoken/add/", {"name": "Ward", "owner": user.pk})
    assert [token.owner for token in ApiToken.objects.all()] == [carol]
