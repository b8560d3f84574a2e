"""Log-in to the admin with OpenID Connect, against a real provider on a local port."""

import re
import time
from base64 import b32encode
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
import requests
from django.contrib.auth.models import Group, User
from django.contrib.sessions.models import Session
from django.test import Client
from joserfc.jwk import RSAKey

from tests.roles import role
from tests.voicecare.accounts.authenticator import code_of
from tests.voicecare.accounts.oidc_provider import CLIENT_ID, CLIENT_SECRET, OidcProvider
from voicecare.accounts import two_factor
from voicecare.accounts.models import ProviderIdentity
from voicecare.audit.models import AuditEntry
from voicecare.checks import check_oidc

pytestmark = pytest.mark.django_db
START = "/admin/oidc/"
FAILED = "The login did not work."


@pytest.fixture
def provider(settings) -> Iterator[OidcProvider]:
    with OidcProvider() as provider:
        settings.OIDC_ISSUER = provider.issuer
        settings.OIDC_CLIENT_ID, settings.OIDC_CLIENT_SECRET = CLIENT_ID, CLIENT_SECRET
        settings.OIDC_NAME = "Clinic account"
        settings.PUBLIC_URL = "http://testserver"
        yield provider


@pytest.fixture
def nora(db: None) -> User:
    return User.objects.create_user("nora", is_staff=True)


def callback_of(client: Client, query: str = "") -> str:
    """Start the login, log in at the provider, and return the path to which it sends the browser back."""
    location = client.get(START + query).headers["Location"]
    back = urlsplit(requests.get(location, allow_redirects=False, timeout=10).headers["Location"])
    return f"{back.path}?{back.query}"


def log_in(query: str = "", client: Client | None = None) -> tuple[Client, Any]:
    """Log in, and return the client and the response to the last redirect."""
    client = client or Client()
    return client, client.get(callback_of(client, query))


def refusal(response: Any, client: Client) -> str:
    """Return the message on the login page to which a refused user is sent."""
    assert response.headers["Location"] == "/admin/login/"
    page = client.get("/admin/login/").content.decode()
    assert client.get("/admin/").status_code == 302
    [message] = re.findall(r'<li class="error">([^<]+)</li>', page)
    return str(message)


def refused() -> str:
    client, response = log_in()
    return refusal(response, client)


def test_the_log_in_page_leads_to_the_provider_and_back(provider: OidcProvider, nora: User):
    page = Client().get("/admin/login/?next=/admin/auth/").content.decode()
    [link] = re.findall('href="([^"]+)">Log in with Clinic account<', page)
    assert link == "/admin/oidc/?next=/admin/auth/"
    client, response = log_in("?next=/admin/live/")
    assert response.headers["Location"] == "/admin/live/"
    assert client.get("/admin/live/").status_code == 200
    assert client.session.get_expiry_age() > 86400
    assert provider.errors == []


def test_a_secret_in_a_file_works(provider: OidcProvider, nora: User, settings, tmp_path):
    file = tmp_path / "secret"
    file.write_text(f"{CLIENT_SECRET}\n")
    settings.OIDC_CLIENT_SECRET, settings.OIDC_CLIENT_SECRET_FILE = "", str(file)
    client, _ = log_in()
    assert client.get("/admin/").status_code == 200


@pytest.mark.parametrize("next_url", ["https://evil.example/", "//evil.example/", "javascript:alert(1)", ""])
def test_the_next_page_is_one_of_this_site(provider: OidcProvider, nora: User, next_url: str):
    _, response = log_in(f"?{urlencode({'next': next_url})}")
    assert response.headers["Location"] == "/admin/"


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"iss": "https://evil.example/realm"},
        {"iss": None},
        {"aud": "another client"},
        {"aud": None},
        {"aud": [CLIENT_ID, "another client"], "azp": "another client"},
        {"exp": 1_700_000_000},  # in the year 2023
        {"exp": None},
        {"iat": None},
        {"sub": None},
        {"at_hash": "wrong"},
    ],
    ids=str,
)
def test_an_id_token_with_a_wrong_claim_is_refused(provider: OidcProvider, nora: User, changes: dict[str, Any]):
    provider.id_token_changes = changes
    assert FAILED in refused()
    assert provider.errors == []  # it has given the token


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
def test_an_id_token_that_the_provider_did_not_sign_is_refused(provider: OidcProvider, nora: User, algorithm: str):
    provider.algorithm = algorithm
    assert FAILED in refused()
    assert provider.errors == []


def test_an_id_token_with_another_key_is_refused(provider: OidcProvider, nora: User):
    provider.key = RSAKey.generate_key(2048, {"kid": "first"})
    assert FAILED in refused()
    provider.published_key = provider.key
    client, _ = log_in()
    assert client.get("/admin/").status_code == 200  # keys are read anew


def test_a_wrong_used_or_foreign_state_is_refused(provider: OidcProvider, nora: User):
    client = Client()
    path = callback_of(client)
    other = Client()
    assert FAILED in refusal(other.get(path), other)  # a session that did not ask
    state = re.sub("state=[^&]+", "state=wrong", path)
    assert FAILED in refusal(client.get(state), client)
    assert client.get(path).headers["Location"] == "/admin/"
    other, response = client, client.get(path)
    assert response.headers["Location"] == "/admin/login/"  # used


@pytest.mark.parametrize("query", ["", "?error=access_denied", "?code=x", "?state=x", "?code=x&state=x"])
def test_a_callback_without_a_log_in_is_refused(provider: OidcProvider, nora: User, query: str):
    client = Client()
    assert FAILED in refusal(client.get(f"{START}callback/{query}"), client)


def test_a_provider_that_is_down_or_answers_nonsense_is_refused(provider: OidcProvider, nora: User, settings):
    secret, settings.OIDC_CLIENT_SECRET, settings.OIDC_CLIENT_SECRET_FILE = settings.OIDC_CLIENT_SECRET, "", "/none"
    client = Client()
    assert FAILED in refusal(client.get(START), client)  # no secret
    settings.OIDC_CLIENT_SECRET, settings.OIDC_CLIENT_SECRET_FILE = secret, ""
    for issuer in ("http://127.0.0.1:9/realm", f"{provider.issuer}/nothing"):
        settings.OIDC_ISSUER = issuer
        client = Client()
        assert FAILED in refusal(client.get(START), client)
    settings.OIDC_ISSUER = provider.issuer
    provider.metadata_changes = {"jwks_uri": f"{provider.issuer}/nothing"}
    assert FAILED in refused()


def test_an_unknown_user_is_refused_and_not_created(provider: OidcProvider, caplog):
    assert "There is no user nora here." in refused()
    assert not User.objects.exists()
    output = caplog.text
    assert "unknown_user" in output
    assert "nora" not in output


@pytest.mark.parametrize("name", [None, "", 5, ["nora"]])
def test_a_claim_that_is_no_name_is_refused(provider: OidcProvider, nora: User, name: Any):
    provider.claims["preferred_username"] = name
    assert "did not say who you are" in refused()


# Which user it is


def has_access(client: Client) -> bool:
    return client.get("/admin/").status_code == 200


def test_a_renamed_account_logs_in_as_the_same_user(provider: OidcProvider, nora: User, settings):
    settings.OIDC_CREATE_USERS = True
    log_in()
    provider.claims["preferred_username"] = "nora.new"
    client, _ = log_in()
    assert has_access(client)
    assert client.session["_auth_user_id"] == str(nora.pk)
    assert list(User.objects.values_list("username", flat=True)) == ["nora"]
    [(issuer, subject)] = nora.provider_identities.values_list("issuer", "subject")
    assert (issuer, subject) == (provider.issuer, "1")
    added = AuditEntry.objects.get(action="add")
    assert (added.object_type, added.user_name) == ("accounts.provideridentity", "nora")


def test_a_name_that_was_given_to_another_account_is_refused(provider: OidcProvider, nora: User):
    log_in()
    provider.claims = {"sub": "2", "preferred_username": "nora"}
    assert "The user nora belongs to another account" in refused()
    provider.claims = {"sub": "1", "preferred_username": "nora"}
    assert has_access(log_in()[0])


def test_the_same_id_at_another_issuer_is_another_account(provider: OidcProvider, nora: User, settings):
    log_in()
    with OidcProvider() as other:
        settings.OIDC_ISSUER = other.issuer
        other.claims["preferred_username"] = "otto"
        assert "There is no user otto" in refused()
    settings.OIDC_ISSUER = provider.issuer
    assert has_access(log_in()[0])


@pytest.mark.parametrize("subject", ["", "x" * 256, 5], ids=["empty", "long", "number"])
def test_an_id_that_cannot_be_stored_is_refused(provider: OidcProvider, nora: User, subject: Any):
    provider.claims["sub"] = subject
    assert "did not" in refused()
    assert not nora.provider_identities.exists()


def confirm(client: Client, name: str, password: str = "correct horse", otp: str = "") -> None:
    client.post("/admin/login/", {"username": name, "password": password, "otp": otp})


def test_an_account_takes_over_no_user_with_a_password(provider: OidcProvider, nora: User):
    User.objects.create_superuser("root", password="correct horse")
    provider.claims["preferred_username"] = "root"
    client, response = log_in()
    assert "Log in with the password of root once" in refusal(response, client)
    confirm(client, "root", "a guess")
    assert not has_access(client)
    assert "Log in with the password of root once" in refused()
    assert not ProviderIdentity.objects.exists()


def test_the_password_links_the_account_once(provider: OidcProvider, nora: User):
    nora.set_password("correct horse")
    nora.save()
    codes = set_up_second_factor(nora)
    client, response = log_in()
    assert "Log in with the password of nora once" in refusal(response, client)
    confirm(client, "nora")  # without the second factor
    assert not ProviderIdentity.objects.exists()
    confirm(client, "nora", otp=codes[0])
    assert has_access(client)
    assert client.session.get_expiry_age() > 86400
    assert nora.provider_identities.get().subject == "1"
    other, _ = log_in()
    other.post(f"{START}code/", {"otp": codes[1]})
    assert has_access(other)


def test_the_password_of_another_user_links_nothing(provider: OidcProvider, nora: User):
    User.objects.create_superuser("root", password="correct horse")
    provider.claims["preferred_username"] = "root"
    client, _ = log_in()
    User.objects.create_user("otto", password="correct horse", is_staff=True)
    confirm(client, "otto")
    assert has_access(client)
    client.logout()
    confirm(client, "root")
    assert not ProviderIdentity.objects.exists()


def test_the_password_links_nothing_after_ten_minutes(provider: OidcProvider, nora: User):
    nora.set_password("correct horse")
    nora.save()
    client, _ = log_in()
    session = client.session
    session["oidc_to_link"] = {**session["oidc_to_link"], "until": time.time() - 1}
    session.save()
    confirm(client, "nora")
    assert has_access(client)
    assert not ProviderIdentity.objects.exists()


def test_an_administrator_removes_the_link(provider: OidcProvider, nora: User):
    log_in()
    provider.claims = {"sub": "2", "preferred_username": "nora"}
    administrator = Client()
    administrator.force_login(User.objects.create_superuser("boss"))
    account = nora.provider_identities.get()
    assert "nora" in administrator.get("/admin/accounts/provideridentity/").content.decode()
    administrator.post(f"/admin/accounts/provideridentity/{account.pk}/delete/", {"post": "yes"})
    assert AuditEntry.objects.filter(action="delete", object_id=str(account.pk)).exists()
    assert has_access(log_in()[0])
    assert nora.provider_identities.get().subject == "2"


@pytest.mark.parametrize("fields", [{"is_active": False}, {"is_staff": False}])
def test_an_inactive_user_and_one_without_staff_status_are_refused(provider: OidcProvider, nora: User, fields):
    User.objects.update(**fields)
    assert "You may not log in" in refused()
    assert not ProviderIdentity.objects.exists()


def test_users_are_created_by_a_setting_without_a_password(provider: OidcProvider, settings):
    settings.OIDC_CREATE_USERS = True
    client, _ = log_in()
    user = User.objects.get()
    assert set(AuditEntry.objects.values_list("action", "user_name")) == {("add", "nora"), ("log_in", "nora")}
    assert AuditEntry.objects.filter(action="add").count() == 2  # the user and the account
    assert (user.username, user.is_staff, user.is_superuser, user.has_usable_password()) == ("nora", True, False, False)
    assert client.get("/admin/").status_code == 200
    provider.claims = {"sub": "2", "preferred_username": "nora|1"}
    assert "cannot be a user name" in refused()


def test_the_provider_can_decide_the_groups(provider: OidcProvider, nora: User, settings):
    nora.groups.add(role("Administrator"))
    User.objects.create_superuser("other")
    role("Auditor")
    settings.OIDC_GROUPS_CLAIM, settings.OIDC_CREATE_USERS = "groups", True
    provider.claims["groups"] = ["Auditor", "unknown here", 5]
    client, _ = log_in()
    assert list(nora.groups.all()) == [Group.objects.get(name="Auditor")]
    assert client.get("/admin/accounts/apitoken/").status_code == 403
    assert list(AuditEntry.objects.order_by("pk").values_list("action", "user_name")) == [
        ("add", "nora"),
        ("change", "nora"),
        ("log_in", "nora"),
    ]
    for groups in (["unknown here"], [], None, {"Auditor": 1}):
        provider.claims["groups"] = groups
        assert "You are in no group" in refused()
    assert not nora.groups.exists()
    provider.claims = {"sub": "2", "preferred_username": "otto", "groups": []}
    assert "There is no user otto" in refused()


def test_refused_log_ins_are_recorded_once_a_minute(provider: OidcProvider, nora: User):
    for _ in range(2):
        Client().get(f"{START}callback/?code=x&state=x")
    provider.claims["preferred_username"] = "otto"
    refused()
    assert list(AuditEntry.objects.values_list("action", "user_id", "user_name")) == [("log_in_failed", None, "")]
    provider.claims["preferred_username"] = "nora"
    User.objects.update(is_active=False)
    for _ in range(2):
        refused()
    assert list(AuditEntry.objects.order_by("-pk").values_list("action", "user_name")) == [
        ("log_in_failed", "nora"),
        ("log_in_failed", ""),
    ]


def test_the_provider_cannot_remove_the_last_administrator(provider: OidcProvider, nora: User, settings):
    nora.groups.add(role("Administrator"))
    settings.OIDC_GROUPS_CLAIM = "groups"
    provider.claims["groups"] = ["Administrator"]
    assert has_access(log_in()[0])
    provider.claims["groups"] = []
    assert "you are the last administrator" in refused()
    assert list(nora.groups.values_list("name", flat=True)) == ["Administrator"]


def test_without_the_setting_groups_stay(provider: OidcProvider, nora: User):
    nora.groups.add(role("Auditor"))
    provider.claims["groups"] = ["Administrator"]
    log_in()
    assert list(nora.groups.values_list("name", flat=True)) == ["Auditor"]


def test_an_address_is_a_name_only_if_the_provider_has_verified_it(provider: OidcProvider, settings):
    User.objects.create_user("nora@clinic.example", is_staff=True)
    settings.OIDC_USERNAME_CLAIM = "email"
    provider.claims = {"sub": "1", "email": "nora@clinic.example"}
    for verified in (None, False, "true"):
        provider.claims["email_verified"] = verified
        assert "has not verified your address" in refused()
    provider.claims["email_verified"] = True
    client, _ = log_in()
    assert client.get("/admin/").status_code == 200


def test_claims_come_from_the_user_info_if_the_id_token_lacks_them(provider: OidcProvider, nora: User):
    provider.claims = {"sub": "1"}
    provider.user_info = {"sub": "2", "preferred_username": "nora"}
    assert FAILED in refused()
    provider.user_info["sub"] = "1"
    client, _ = log_in()
    assert client.get("/admin/").status_code == 200


def set_up_second_factor(user: User) -> list[str]:
    key = two_factor.new_key()
    result = two_factor.set_up(user, key, code_of(b32encode(bytes.fromhex(key)).decode()))
    assert result is not None
    return result[1]


def test_the_second_factor_of_this_site_is_asked_for(provider: OidcProvider, nora: User):
    codes = set_up_second_factor(nora)
    client, response = log_in("?next=/admin/live/")
    assert response.headers["Location"] == f"{START}code/"
    assert client.get("/admin/").status_code == 302
    assert "The code is wrong" in client.post(f"{START}code/", {"otp": "000000"}).content.decode()
    assert client.get("/admin/").status_code == 302
    assert client.post(f"{START}code/", {"otp": codes[0]}).headers["Location"] == "/admin/live/"
    assert client.get("/admin/").status_code == 200
    assert Client().get(f"{START}code/").headers["Location"].startswith("/admin/login/")


def test_a_user_without_a_second_factor_must_set_one_up_if_it_is_required(provider: OidcProvider, nora: User, settings):
    settings.REQUIRE_TWO_FACTOR = "staff"
    client, _ = log_in()
    assert client.get("/admin/").headers["Location"] == "/admin/two-factor/"


def test_the_second_factor_of_the_provider_counts_by_a_setting(provider: OidcProvider, nora: User, settings):
    settings.OIDC_COUNTS_AS_TWO_FACTOR, settings.REQUIRE_TWO_FACTOR = True, "staff"
    client, response = log_in()
    assert response.headers["Location"] == "/admin/"
    assert client.get("/admin/").status_code == 200
    set_up_second_factor(nora)
    client, response = log_in()
    assert client.get("/admin/").status_code == 200
    settings.OIDC_COUNTS_AS_TWO_FACTOR = False
    assert client.get("/admin/").status_code == 302
    other = Client()
    other.force_login(nora)
    settings.OIDC_COUNTS_AS_TWO_FACTOR = True
    assert other.get("/admin/").status_code == 302  # not by the provider


def test_a_session_for_the_way_to_the_provider_is_short(provider: OidcProvider):
    client = Client()
    client.get(START)
    assert client.session.get_expiry_age() <= 600
    assert Session.objects.count() == 1


def test_without_the_settings_there_is_no_link_and_no_page(settings):
    assert "Log in with" not in Client().get("/admin/login/").content.decode()
    assert [Client().get(f"{START}{page}").status_code for page in ("", "callback/")] == [404, 404]
    assert check_oidc(None) == []


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"OIDC_ISSUER": ""}, "set OIDC_ISSUER, too"),
        ({"OIDC_CLIENT_SECRET": ""}, "set OIDC_CLIENT_SECRET (or OIDC_CLIENT_SECRET_FILE), too"),
        ({"OIDC_CLIENT_ID": "", "OIDC_CLIENT_SECRET": ""}, "set OIDC_CLIENT_ID and OIDC_CLIENT_SECRET (or"),
        ({"OIDC_CLIENT_SECRET_FILE": "/run/secret"}, "not both"),
        ({"OIDC_ISSUER": "http://login.example/realm"}, "begins with https://"),
        ({"OIDC_ISSUER": "login.example"}, "begins with https://"),
        ({"OIDC_ISSUER": "https://[half"}, "begins with https://"),
    ],
)
def test_half_a_configuration_is_one_line_of_check_and_off(provider, settings, values: dict[str, str], problem: str):
    assert check_oidc(None) == []
    for name, value in values.items():
        setattr(settings, name, value)
    [found] = check_oidc(None)
    assert problem in found.msg
    assert "\n" not in found.msg
    assert "Log in with" not in Client().get("/admin/login/").content.decode()
    assert Client().get(START).status_code == 404
