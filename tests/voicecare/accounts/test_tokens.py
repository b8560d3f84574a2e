"""Tokens of the REST API: what ends them, and when their use is recorded."""

from base64 import b32encode
from datetime import timedelta
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from knox.models import AuthToken

from tests.roles import role
from tests.voicecare.accounts.authenticator import code_of
from voicecare.accounts import tokens, two_factor
from voicecare.accounts.models import ApiToken

pytestmark = pytest.mark.django_db
PASSWORD = "correct horse battery"


@pytest.fixture
def carol(settings) -> User:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    return User.objects.create_user("carol", password=PASSWORD)


def log_in(**fields: str) -> str:
    body = {"username": "carol", "password": PASSWORD, **fields}
    token: str = Client().post("/api/v1/auth/token/", body, "application/json").json()["token"]
    return token


def named(owner: User, name: str = "Ward screens", **fields: Any) -> str:
    return tokens.issue(ApiToken(name=name, owner=owner, **fields))


def call(token: str, path: str = "patients/", method: str = "get") -> Any:
    return getattr(Client(), method)(f"/api/v1/{path}", headers={"Authorization": f"Bearer {token}"})


def set_up_second_factor(user: User) -> list[str]:
    key = two_factor.new_key()
    result = two_factor.set_up(user, key, code_of(b32encode(bytes.fromhex(key)).decode()))
    assert result is not None
    return result[1]


def test_a_new_password_ends_log_ins_and_no_named_token(carol: User):
    log_in_token, service_token = log_in(), named(carol)
    carol.set_password("another horse battery")
    carol.save()
    assert [call(log_in_token).status_code, call(service_token).status_code] == [401, 200]


def test_a_second_factor_ends_the_log_ins_before_it(carol: User):
    before, service_token = log_in(), named(carol)
    codes = set_up_second_factor(carol)
    after = log_in(otp=codes[0])
    assert [call(token).status_code for token in (before, after, service_token)] == [401, 200, 200]
    two_factor.turn_off(carol)
    assert call(after).status_code == 200
    set_up_second_factor(carol)
    assert call(after).status_code == 401


def test_tokens_are_refused_when_a_second_factor_becomes_required(carol: User, settings):
    carol.groups.add(role("Administrator"))
    log_in_token, service_token = log_in(), named(carol)
    settings.REQUIRE_TWO_FACTOR = "administrators"
    assert call(log_in_token).json()["code"] == "otp_setup_required"
    assert call(service_token).status_code == 401
    codes = set_up_second_factor(carol)
    assert [call(log_in(otp=codes[0])).status_code, call(service_token).status_code] == [200, 401]


def test_a_revoked_expired_or_unrecorded_token_is_refused(carol: User):
    revoked = named(carol, "revoked")
    assert call(revoked).status_code == 200
    assert [str(token) for token in tokens.revoke(ApiToken.objects.filter(name="revoked"))] == ["revoked"]
    assert tokens.revoke(ApiToken.objects.all()) == []
    expired = named(carol, "expired", expires_at=timezone.now() - timedelta(seconds=1))
    unrecorded = AuthToken.objects.create(carol)[1]
    assert [call(token).status_code for token in (revoked, expired, unrecorded)] == [401] * 3
    assert ApiToken.objects.count() == 2  # the rows stay


def test_a_token_of_an_inactive_owner_is_refused(carol: User):
    token = named(carol)
    User.objects.update(is_active=False)
    assert call(token).status_code == 401


def test_the_use_of_a_token_is_recorded_once_a_minute(carol: User):
    for token in (log_in(), named(carol)):
        with CaptureQueriesContext(connection) as first:
            assert call(token).status_code == 200
        with CaptureQueriesContext(connection) as second:
            assert call(token).status_code == 200
        written = [
            [query["sql"] for query in queries if query["sql"].startswith("UPDATE")] for queries in (first, second)
        ]
        assert [len(updates) for updates in written] == [1, 0]
    used = list(ApiToken.objects.values_list("last_used_at", flat=True))
    assert None not in used
    earlier = timezone.now() - timedelta(minutes=2)
    ApiToken.objects.update(last_used_at=earlier)
    call(token)
    assert ApiToken.objects.get(name="Ward screens").last_used_at > earlier


def _updates(queries: CaptureQueriesContext) -> int:
    return sum(query["sql"].startswith("UPDATE") for query in queries)


def test_a_log_out_deletes_a_log_in_and_revokes_a_named_token(carol: User):
    log_in_token, service_token = log_in(), named(carol)
    for token in (log_in_token, service_token):
        assert call(token, "auth/logout/", "post").status_code == 204
        assert call(token).status_code == 401
    assert [(token.name, token.revoked_at is not None) for token in ApiToken.objects.all()] == [("Ward screens", True)]


def test_a_service_may_do_what_its_role_allows(carol: User):
    service = User.objects.create_user("service")
    service.groups.add(role("Auditor"))
    token = named(service)
    assert call(token).status_code == 200
    assert call(token, method="post").status_code == 403


def test_the_migration_keeps_tokens_of_the_admin_and_permissions(carol: User):
    AuthToken.objects.create(carol)  # of a login
    endless, text = AuthToken.objects.create(carol, expiry=None)
    long, _ = AuthToken.objects.create(carol, expiry=timedelta(days=30))
    content_type = ContentType.objects.get_for_model(AuthToken)
    group = Group.objects.create(name="Token keepers")
    for codename in ("view_authtoken", "add_authtoken", "change_authtoken", "delete_authtoken"):
        group.permissions.add(Permission.objects.get_or_create(codename=codename, content_type=content_type)[0])
    migration = import_module("voicecare.accounts.migrations.0005_keep_tokens_and_permissions")
    editor = SimpleNamespace(connection=connection)
    migration.name_tokens(apps, editor)
    migration.keep_permissions(apps, editor)
    assert {token.knox_token_id for token in ApiToken.objects.all()} == {endless.pk, long.pk}
    assert {token.name for token in ApiToken.objects.all()} == {"Token 1", "Token 2"}
    assert call(text).status_code == 200
    assert sorted(group.permissions.values_list("codename", flat=True)) == [
        "add_apitoken",
        "change_apitoken",
        "delete_apitoken",
        "view_apitoken",
    ]
    assert not Permission.objects.filter(content_type=content_type).exists()
