"""The API tokens in the admin: the list, creation with the token shown once, revocation."""

import re
from base64 import b32encode
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from django_otp import DEVICE_ID_SESSION_KEY
from django_otp.plugins.otp_totp.models import TOTPDevice
from knox.models import AuthToken

from tests.roles import give_permissions, role
from tests.voicecare.accounts.authenticator import code_of
from voicecare.accounts import tokens, two_factor
from voicecare.accounts.models import ApiToken
from voicecare.audit.models import AuditEntry

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.filterwarnings("ignore:No directory at:UserWarning"),  # whitenoise in a fresh checkout
]

LIST = "/admin/accounts/apitoken/"


@pytest.fixture
def service() -> User:
    user = User.objects.create_user("service")
    user.groups.add(role("Auditor"))
    return user


def log_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def create(client: Client, owner: User, name: str = "Ward screens", **fields: str) -> Any:
    values = {"name": name, "owner": owner.pk, "expires_at_0": "", "expires_at_1": "", **fields}
    return client.post(f"{LIST}add/", values)


def shown_token(page: Any) -> str:
    [token] = re.findall('<code id="token"[^>]*>([0-9a-f]{64})</code>', page.content.decode())
    return str(token)


def rest_status(token: str) -> int:
    return Client().get("/api/v1/patients/", headers={"Authorization": f"Bearer {token}"}).status_code


def statuses(client: Client, **filters: str) -> list[tuple[str, str]]:
    page = client.get(LIST, filters).content.decode()
    return re.findall(r'class="field-title">.*?>([^<]+)</a></th><td class="field-status"><span [^>]*>([^<]+)<', page)


def test_a_new_token_is_shown_once_and_works(admin_client: Client, service: User):
    page = create(admin_client, service)
    token = shown_token(page)
    assert "no-store" in page.headers["Cache-Control"]
    assert rest_status(token) == 200
    row = ApiToken.objects.get()
    assert (row.owner, row.created_by.username, row.name) == (service, "admin", "Ward screens")
    for path in (LIST, f"{LIST}{row.pk}/change/", f"{LIST}{row.pk}/history/", "/admin/"):
        response = admin_client.get(path, follow=True)
        assert response.status_code == 200
        assert token not in response.content.decode()
        assert row.knox_token.digest not in response.content.decode()


def test_the_form_offers_an_expiry_in_a_year_and_refuses_the_past(admin_client: Client, service: User):
    page = admin_client.get(f"{LIST}add/").content.decode()
    [offered] = re.findall('name="expires_at_0" value="([^"]+)"', page)
    assert offered == f"{timezone.now() + timedelta(days=365):%Y-%m-%d}"
    refused = create(admin_client, service, expires_at_0="2020-01-01", expires_at_1="00:00:00")
    assert "This is in the past." in refused.content.decode()
    shown_token(create(admin_client, service, expires_at_0=offered, expires_at_1="00:00:00"))
    token = ApiToken.objects.get()
    assert token.expires_at == token.knox_token.expiry
    assert f"{token.expires_at:%Y-%m-%d}" == offered


def test_a_name_is_used_once_until_its_token_is_revoked(admin_client: Client, service: User):
    create(admin_client, service)
    assert "has a token with this name" in create(admin_client, service).content.decode()
    assert "This field is required." in create(admin_client, service, "").content.decode()
    tokens.revoke(ApiToken.objects.all())
    shown_token(create(admin_client, service))


def test_a_user_who_needs_two_factors_owns_no_token(admin_client: Client, service: User, settings):
    boss = User.objects.get(username="admin")
    settings.REQUIRE_TWO_FACTOR = "administrators"
    key = two_factor.new_key()
    two_factor.set_up(boss, key, code_of(b32encode(bytes.fromhex(key)).decode()))
    session = admin_client.session
    session[DEVICE_ID_SESSION_KEY] = TOTPDevice.objects.get().persistent_id
    session.save()
    assert "must log in with two factors" in create(admin_client, boss).content.decode()
    shown_token(create(admin_client, service))


def test_nobody_creates_a_token_with_more_rights_than_their_own(service: User):
    keeper = give_permissions(
        User.objects.create_user("keeper", is_staff=True), "accounts.add_apitoken", "accounts.view_apitoken"
    )
    boss, without_role = User.objects.create_superuser("boss"), User.objects.create_user("nora")
    client = log_in(keeper)
    for owner in (service, boss):
        assert "Select a valid choice." in create(client, owner).content.decode()
    assert not ApiToken.objects.exists()
    shown_token(create(client, without_role))
    shown_token(create(client, keeper))


def test_a_revoked_token_is_refused_at_once_and_its_row_stays(admin_client: Client, service: User):
    token = shown_token(create(admin_client, service))
    row = ApiToken.objects.get()
    page = admin_client.get(f"{LIST}{row.pk}/change/").content.decode()
    assert 'value="revoke"' in page
    data = {"action": "revoke", "_selected_action": [str(row.pk)]}
    assert "Yes, revoke" in admin_client.post(LIST, data).content.decode()
    assert rest_status(token) == 200
    data["confirmed"] = "yes"
    assert "1 token revoked." in admin_client.post(LIST, data, follow=True).content.decode()
    assert rest_status(token) == 401
    assert statuses(admin_client) == [("Ward screens", "Revoked")]
    assert 'value="revoke"' not in admin_client.get(f"{LIST}{row.pk}/change/").content.decode()
    entry = AuditEntry.objects.get(action="revoke", object_id=str(row.pk))
    assert entry.changes["revoked_at"][1] is not None
    assert not [entry for entry in AuditEntry.objects.all() if row.knox_token_id in str(entry.changes)]


def test_pages_and_actions_need_their_permissions(admin_client: Client, service: User):
    create(admin_client, service)
    row = ApiToken.objects.get()
    reader = log_in(give_permissions(User.objects.create_user("reader", is_staff=True), "accounts.view_apitoken"))
    assert statuses(reader) == [("Ward screens", "Valid")]
    assert 'value="revoke"' not in reader.get(f"{LIST}{row.pk}/change/").content.decode()
    reader.post(LIST, {"action": "revoke", "_selected_action": [str(row.pk)], "confirmed": "yes"})
    assert statuses(reader) == [("Ward screens", "Valid")]
    assert reader.get(f"{LIST}add/").status_code == 403
    stranger = log_in(User.objects.create_user("stranger", is_staff=True))
    assert [stranger.get(path).status_code for path in (LIST, f"{LIST}{row.pk}/change/")] == [403, 403]


def test_the_list_shows_log_ins_and_what_has_ended_them(admin_client: Client, service: User):
    tokens.issue(ApiToken(name="old", owner=service, expires_at=timezone.now() - timedelta(seconds=1)))
    tokens.issue(ApiToken(name="endless", owner=service))
    nora, otto = User.objects.create_user("nora"), User.objects.create_user("otto")
    for user in (nora, otto):
        tokens.issue_for_log_in(user, None)
    nora.set_password("another horse battery")
    nora.save()
    assert sorted(statuses(admin_client, kind="service")) == [("endless", "Valid"), ("old", "Expired")]
    assert sorted(statuses(admin_client, kind="login")) == [
        ("Login", "Ended by a new password or second factor"),
        ("Login", "Valid"),
    ]
    assert statuses(admin_client, status="expired") == [("old", "Expired")]
    User.objects.filter(pk=service.pk).update(is_active=False)
    assert ("endless", "Owner not active") in statuses(admin_client)


def test_pages_that_ask_before_a_deletion_show_no_digest(admin_client: Client, service: User):
    token = shown_token(create(admin_client, service))
    row = ApiToken.objects.get()
    for path in (f"{LIST}{row.pk}/delete/", f"/admin/auth/user/{service.pk}/delete/"):
        page = admin_client.get(path).content.decode()
        assert "Ward screens" in page
        assert row.knox_token.digest not in page
    assert admin_client.post(f"{LIST}{row.pk}/delete/", {"post": "yes"}).status_code == 302
    assert rest_status(token) == 401
    assert not AuthToken.objects.exists()
    create(admin_client, service)
    assert admin_client.post(f"/admin/auth/user/{service.pk}/delete/", {"post": "yes"}).status_code == 302
    assert not AuthToken.objects.exists()
