"""Two-factor authentication: set-up in the admin, login to the admin and to REST, recovery codes, reset."""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django_otp.plugins.otp_static.models import StaticToken
from django_otp.plugins.otp_totp.models import TOTPDevice

from tests.voicecare.accounts.authenticator import code_of
from voicecare.accounts import throttling

pytestmark = pytest.mark.django_db
PASSWORD = "correct horse battery"
PAGE = "/admin/two-factor/"


@pytest.fixture
def boss(settings) -> User:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    return User.objects.create_superuser("boss", password=PASSWORD)


@dataclass
class App:
    secret: str
    recovery_codes: list[str]


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def shown(page: str) -> tuple[str, str]:
    """Return the signed key in the form and the secret that the page shows."""
    [key] = re.findall('name="key" value="([^"]+)"', page)
    [secret] = re.findall('class="secret">([A-Z2-7 ]+)<', page)
    return key, secret


def set_up(client: Client) -> App:
    key, secret = shown(client.get(PAGE).content.decode())
    page = client.post(PAGE, {"key": key, "otp": code_of(secret)})
    return App(secret, re.findall("<li><code>([^<]+)</code>", page.content.decode()))


def log_in(otp: str = "", username: str = "boss") -> Client | None:
    """Return the client that is logged in to the admin, or None if the login is refused."""
    client = Client()
    response = client.post("/admin/login/?next=/admin/", {"username": username, "password": PASSWORD, "otp": otp})
    return client if response.status_code == 302 else None


def rest_log_in(**fields: str) -> Any:
    body = {"username": "boss", "password": PASSWORD, **fields}
    return Client().post("/api/v1/auth/token/", body, "application/json")


def test_after_the_set_up_a_log_in_needs_a_code(boss: User):
    client = client_of(boss)
    app = set_up(client)
    assert client.get("/admin/").status_code == 200  # the session of the set-up goes on
    assert log_in() is None
    assert log_in("000000") is None
    TOTPDevice.objects.update(throttling_failure_count=0)  # no wait after the wrong code
    code = code_of(app.secret, 1)  # the code of the set-up is used
    logged_in = log_in(code)
    assert logged_in is not None
    assert logged_in.get("/admin/").status_code == 200
    assert log_in(code) is None  # used


def test_a_recovery_code_is_valid_once_and_stored_as_a_digest(boss: User):
    app = set_up(client_of(boss))
    assert len(set(app.recovery_codes)) == 10
    stored = set(StaticToken.objects.values_list("token", flat=True))
    assert stored.isdisjoint(code.replace("-", "")[:16] for code in app.recovery_codes)
    assert log_in(app.recovery_codes[3].upper()) is not None
    assert log_in(app.recovery_codes[3]) is None
    assert StaticToken.objects.count() == 9


@pytest.mark.django_db(transaction=True)
def test_of_concurrent_log_ins_with_one_code_one_succeeds(boss: User):
    code = code_of(set_up(client_of(boss)).secret, 1)

    def attempt(_: int) -> int:
        try:
            return rest_log_in(otp=code).status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        codes = list(pool.map(attempt, range(4)))
    assert sorted(codes) == [200, 401, 401, 401]


def test_sessions_that_are_older_than_the_second_factor_end(boss: User):
    other = client_of(boss)
    assert other.get("/admin/").status_code == 200
    set_up(client_of(boss))
    assert other.get("/admin/").status_code == 302
    assert other.get(PAGE).status_code == 302


def test_a_wrong_code_at_the_set_up_changes_nothing_and_keeps_the_key(boss: User):
    client = client_of(boss)
    key, secret = shown(client.get(PAGE).content.decode())
    for wrong in ("000000", "x", code_of(secret, 5), "²²²²²²"):
        page = client.post(PAGE, {"key": key, "otp": wrong}).content.decode()
        assert "The code is wrong" in page
        assert shown(page)[1] == secret
    assert not TOTPDevice.objects.exists()


def test_the_key_of_another_user_or_a_forged_key_is_not_accepted(boss: User):
    key, secret = shown(client_of(boss).get(PAGE).content.decode())
    other = client_of(User.objects.create_superuser("other"))
    for offered in (key, "forged", ""):
        assert shown(other.post(PAGE, {"key": offered, "otp": code_of(secret)}).content.decode())[1] != secret
    assert not TOTPDevice.objects.exists()


def test_the_key_is_not_shown_after_the_set_up(boss: User):
    client = client_of(boss)
    app = set_up(client)
    device = TOTPDevice.objects.get()
    for path in (PAGE, "/admin/accounts/secondfactor/", f"/admin/accounts/secondfactor/{device.pk}/change/"):
        response = client.get(path)
        assert response.status_code == 200
        page = response.content.decode()
        assert not [secret for secret in (device.key, app.secret, *app.recovery_codes) if secret in page]
    assert client.get("/admin/otp_totp/totpdevice/").status_code == 404


def test_turning_off_and_new_recovery_codes_need_a_code(boss: User):
    client = client_of(boss)
    app = set_up(client)
    client.post(PAGE, {"otp": "000000", "turn_off": "1"})
    assert TOTPDevice.objects.exists()
    TOTPDevice.objects.update(throttling_failure_count=0)
    renewed = client.post(PAGE, {"otp": app.recovery_codes[0], "renew": "1"}).content.decode()
    new_codes = re.findall("<li><code>([^<]+)</code>", renewed)
    assert set(new_codes).isdisjoint(app.recovery_codes)
    assert log_in(app.recovery_codes[1]) is None
    StaticToken.objects.first().device.throttle_reset()
    assert client.post(PAGE, {"otp": new_codes[0], "turn_off": "1"}).status_code == 302
    assert log_in() is not None


def test_wrong_codes_are_throttled(boss: User):
    set_up(client_of(boss))
    codes = [rest_log_in(otp="000000").status_code for _ in range(throttling.MAX_FAILURES_PER_USERNAME + 1)]
    assert codes == [401] * throttling.MAX_FAILURES_PER_USERNAME + [429]


def test_rest_needs_the_code(boss: User):
    assert rest_log_in().status_code == 200
    app = set_up(client_of(boss))
    assert [rest_log_in().status_code, rest_log_in().json()["code"]] == [401, "otp_required"]
    assert rest_log_in(otp=app.recovery_codes[0]).status_code == 200
    assert rest_log_in(otp="000000").json()["code"] == "otp_invalid"
    assert rest_log_in(otp="000000", password="wrong").json()["code"] == "authentication_failed"


@pytest.mark.parametrize(
    ("required", "is_staff", "may_change_users", "is_sent_to_the_set_up"),
    [
        ("off", True, True, False),
        ("administrators", True, True, True),
        ("administrators", True, False, False),
        ("staff", True, False, True),
    ],
)
def test_the_setting_sends_users_to_the_set_up(
    settings, required: str, is_staff: bool, may_change_users: bool, is_sent_to_the_set_up: bool
):
    settings.REQUIRE_TWO_FACTOR = required
    user = User.objects.create_user("someone", is_staff=is_staff)
    if may_change_users:
        user.user_permissions.add(Permission.objects.get(codename="change_user"))
    client = client_of(user)
    for path in ("/admin/", "/admin/password_change/", "/admin/live/"):
        response = client.get(path)
        assert (response.headers.get("Location") == PAGE) is is_sent_to_the_set_up, path
    assert client.get(PAGE).status_code == 200
    set_up(client)
    assert client.get("/admin/").status_code == 200


def test_the_setting_holds_for_rest_and_leaves_the_log_out(boss: User, settings):
    settings.REQUIRE_TWO_FACTOR = "administrators"
    assert [rest_log_in().status_code, rest_log_in().json()["code"]] == [401, "otp_setup_required"]
    client = client_of(boss)
    assert client.post("/admin/logout/").status_code == 200
    app = set_up(client_of(boss))
    assert rest_log_in(otp=code_of(app.secret, 1)).status_code == 200


def test_an_administrator_and_the_command_reset_a_second_factor(boss: User):
    set_up(client_of(boss))
    other = client_of(User.objects.create_superuser("other"))
    path = f"/admin/accounts/secondfactor/{TOTPDevice.objects.get().pk}/delete/"
    assert client_of(User.objects.create_user("nurse", is_staff=True)).post(path, {"post": "yes"}).status_code == 403
    assert other.post(path, {"post": "yes"}).status_code == 302
    assert not StaticToken.objects.exists()
    assert log_in() is not None
    set_up(client_of(boss))
    call_command("reset_two_factor", "boss")
    assert log_in() is not None
    for name in ("boss", "nobody"):
        with pytest.raises(CommandError):
            call_command("reset_two_factor", name)
