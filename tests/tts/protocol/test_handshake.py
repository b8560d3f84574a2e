"""The device token is read from the scope of a handshake. Invalid handshakes are refused with a reason."""

from typing import Any

import pytest

from tts.protocol import refusals
from tts.protocol.handshake import SUBPROTOCOL, TOKEN_PREFIX, extract_token, is_browser, subprotocol_for_refusal
from tts.protocol.messages import CLOSE_REASONS
from tts.protocol.refusals import HandshakeError, Refusal

HOSTS = ["voice.example.org", ".clinic.example", "[::1]", "127.0.0.1"]
V1 = "voicecare.v1"
BEARER = (b"authorization", b"Bearer abc.def")


def scope(*headers: tuple[bytes, bytes], offered: list[str] | None = None, **rest: object) -> dict[str, Any]:
    subprotocols = [V1] if offered is None else offered
    return {"type": "websocket", "path": "/ws/device/", "headers": list(headers), "subprotocols": subprotocols, **rest}


def token_of(scope: dict[str, Any], hosts: list[str] = HOSTS, origins: tuple[str, ...] = ()) -> str | Refusal:
    """Return the token, or why the handshake is refused."""
    try:
        return extract_token(scope, hosts, origins)
    except HandshakeError as error:
        return error.refusal


def origin(value: str) -> tuple[bytes, bytes]:
    return (b"origin", value.encode())


@pytest.mark.parametrize(
    ("value", "token"),
    [
        (b"Bearer abc.def", "abc.def"),
        (b"bearer abc.def", "abc.def"),
        (b"BEARER abc.def", "abc.def"),
        (b"Bearer  abc.def ", "abc.def"),
        (b"Bearer abc def", "abc def"),
        (b"Bearer \xff\xfe", "\xff\xfe"),
        (b"Basic abc.def", refusals.MISSING_TOKEN),
        (b"Token abc.def", refusals.MISSING_TOKEN),
        (b"abc.def", refusals.MISSING_TOKEN),
        (b"", refusals.MISSING_TOKEN),
    ],
)
def test_a_device_sends_its_token_as_a_bearer(value: bytes, token: str | Refusal):
    assert token_of(scope((b"authorization", value))) == token


@pytest.mark.parametrize("value", [b"Bearer", b"Bearer ", b"Bearer \t"])
def test_a_bearer_header_without_a_token_is_refused(value: bytes):
    assert token_of(scope((b"authorization", value))) == refusals.MISSING_TOKEN


@pytest.mark.parametrize(
    ("offered", "token"),
    [
        ([V1, "token.abc.def"], "abc.def"),
        (["token.abc.def", V1], "abc.def"),
        (["chat", V1, "token.abc.def"], "abc.def"),
        ([V1], refusals.MISSING_TOKEN),
        ([V1, "token."], refusals.MISSING_TOKEN),
        ([V1, "abc.def"], refusals.MISSING_TOKEN),
        ([V1, "Token.abc.def"], refusals.MISSING_TOKEN),
        (["token.abc.def"], refusals.WRONG_SUBPROTOCOL),
        ([], refusals.WRONG_SUBPROTOCOL),
    ],
)
def test_a_browser_sends_its_token_as_a_second_subprotocol(offered: list[str], token: str | Refusal):
    assert token_of(scope(offered=offered)) == token


def test_the_header_takes_precedence_over_a_subprotocol():
    assert token_of(scope(BEARER, offered=[V1, "token.other"])) == "abc.def"


def test_the_subprotocol_is_used_if_the_header_has_another_scheme():
    """A reverse proxy may add its own Basic credentials."""
    assert token_of(scope((b"authorization", b"Basic eDp5"), offered=[V1, "token.abc"])) == "abc"


@pytest.mark.parametrize("offered", [[], ["voicecare.v2"], ["VOICECARE.V1"], ["voicecare.v1 "], ["voicecare"]])
def test_a_handshake_without_the_protocol_is_refused(offered: list[str]):
    assert token_of(scope(BEARER, offered=offered)) == refusals.WRONG_SUBPROTOCOL


def test_a_scope_without_subprotocols_is_refused():
    bare = scope(BEARER)
    del bare["subprotocols"]
    assert token_of(bare) == refusals.WRONG_SUBPROTOCOL


@pytest.mark.parametrize("query", [b"token=abc.def", b"token.abc.def", b"authorization=Bearer+abc.def"])
def test_a_token_in_the_query_string_is_ignored(query: bytes):
    assert token_of(scope(query_string=query)) == refusals.MISSING_TOKEN


@pytest.mark.parametrize(
    "value",
    [
        "https://voice.example.org",
        "http://voice.example.org:8443",
        "https://VOICE.example.org",
        "https://clinic.example",
        "https://ward.clinic.example",
        "http://127.0.0.1:8000",
        "http://[::1]:8000",
    ],
)
def test_a_page_of_an_allowed_host_may_connect(value: str):
    assert token_of(scope(BEARER, origin(value))) == "abc.def"


@pytest.mark.parametrize(
    "value",
    [
        "https://evil.example",
        "https://voice.example.org.evil.example",
        "https://evil-clinic.example",
        "https://voice.example.org@evil.example",
        "https://evil.example#voice.example.org",
        "https://evil.example/voice.example.org",
        "https://[::2]",
        "https://[::1",
        "http://localhost",
    ],
)
def test_a_page_of_any_other_host_is_refused(value: str):
    assert token_of(scope(BEARER, origin(value))) == refusals.FORBIDDEN_ORIGIN


@pytest.mark.parametrize("value", ["null", "file://", "file:///home/device/app", "", "voice.example.org", "*"])
def test_an_origin_that_names_no_site_needs_the_token_in_the_header(value: str):
    assert token_of(scope(BEARER, origin(value))) == "abc.def"
    basic = (b"authorization", b"Basic eDp5")
    for headers in ((origin(value),), (basic, origin(value))):
        assert token_of(scope(*headers, offered=[V1, "token.abc.def"])) == refusals.FORBIDDEN_ORIGIN


def test_a_device_that_sends_no_origin_passes():
    assert token_of(scope(BEARER)) == "abc.def"


@pytest.mark.parametrize(("hosts", "token"), [(["*"], "abc.def"), ([], refusals.FORBIDDEN_ORIGIN)])
def test_the_allowed_hosts_are_passed_in(hosts: list[str], token: str | Refusal):
    assert token_of(scope(BEARER, origin("https://any.example")), hosts) == token


@pytest.mark.parametrize(
    ("value", "is_allowed"),
    [
        ("https://tablet.example.org", True),
        ("https://TABLET.example.org", True),
        ("capacitor://localhost", True),
        ("http://tablet.example.org", False),
        ("https://tablet.example.org:8443", False),
        ("https://x.tablet.example.org", False),
        ("file://", False),
        ("null", False),
    ],
)
def test_further_origins_are_compared_as_a_whole(value: str, is_allowed: bool):
    device = scope(origin(value), offered=[V1, "token.abc.def"])
    origins = ("https://tablet.example.org", "capacitor://localhost")
    assert token_of(device, HOSTS, origins) == ("abc.def" if is_allowed else refusals.FORBIDDEN_ORIGIN)


@pytest.mark.parametrize("value", ["null", "file://"])
def test_pages_of_no_site_can_be_allowed(value: str):
    device = scope(origin(value), offered=[V1, "token.abc.def"])
    assert token_of(device, HOSTS, ("null", "file://")) == "abc.def"


def test_a_browser_sends_an_origin_and_no_token_in_a_header():
    page = origin("https://evil.example")
    assert is_browser(scope(page, offered=[V1, "token.abc.def"]))
    assert is_browser(scope(page, (b"authorization", b"Basic eDp5")))
    assert not is_browser(scope(page, BEARER))
    assert not is_browser(scope(offered=[V1, "token.abc.def"]))
    assert not is_browser(scope(BEARER))


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ([V1, "token.abc"], V1),
        (["chat", V1], V1),
        (["token.abc", "voicecare.v2"], "voicecare.v2"),
        (["token.abc"], None),
        ([], None),
    ],
)
def test_a_refused_browser_gets_a_subprotocol_that_it_has_offered_but_never_the_token(offered, chosen):
    assert subprotocol_for_refusal(scope(offered=offered)) == chosen


def test_every_refusal_has_a_code_of_its_own_and_a_close_code_with_a_reason():
    assert len({refusal.code for refusal in refusals.REFUSALS}) == len(refusals.REFUSALS) == 8
    assert {refusal.close_code for refusal in refusals.REFUSALS} <= CLOSE_REASONS.keys()
    assert all(len(reason.encode()) <= 123 for reason in CLOSE_REASONS.values())  # the limit of a close frame


def test_the_names_in_the_messages_are_those_of_the_protocol():
    assert SUBPROTOCOL in refusals.WRONG_SUBPROTOCOL.message
    assert TOKEN_PREFIX == "token."
