"""The device token is read from the scope of a handshake. Invalid handshakes have none."""

from typing import Any

import pytest

from tts.protocol.handshake import extract_token

HOSTS = ["voice.example.org", ".clinic.example", "[::1]", "127.0.0.1"]
V1 = "voicecare.v1"
BEARER = (b"authorization", b"Bearer abc.def")


def scope(*headers: tuple[bytes, bytes], offered: list[str] | None = None, **rest: object) -> dict[str, Any]:
    subprotocols = [V1] if offered is None else offered
    return {"type": "websocket", "path": "/ws/device/", "headers": list(headers), "subprotocols": subprotocols, **rest}


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
        (b"Basic abc.def", None),
        (b"Token abc.def", None),
        (b"abc.def", None),
        (b"", None),
    ],
)
def test_a_device_sends_its_token_as_a_bearer(value: bytes, token: str | None):
    assert extract_token(scope((b"authorization", value)), HOSTS) == token


@pytest.mark.parametrize("value", [b"Bearer", b"Bearer ", b"Bearer \t"])
def test_a_bearer_header_without_a_token_is_refused(value: bytes):
    assert not extract_token(scope((b"authorization", value)), HOSTS)


@pytest.mark.parametrize(
    ("offered", "token"),
    [
        ([V1, "token.abc.def"], "abc.def"),
        (["token.abc.def", V1], "abc.def"),
        (["chat", V1, "token.abc.def"], "abc.def"),
        ([V1], None),
        ([V1, "abc.def"], None),
        ([V1, "Token.abc.def"], None),
        (["token.abc.def"], None),
        ([], None),
    ],
)
def test_a_browser_sends_its_token_as_a_second_subprotocol(offered: list[str], token: str | None):
    assert extract_token(scope(offered=offered), HOSTS) == token


def test_the_header_takes_precedence_over_a_subprotocol():
    assert extract_token(scope(BEARER, offered=[V1, "token.other"]), HOSTS) == "abc.def"


def test_the_subprotocol_is_used_if_the_header_has_another_scheme():
    """A reverse proxy may add its own Basic credentials."""
    assert extract_token(scope((b"authorization", b"Basic eDp5"), offered=[V1, "token.abc"]), HOSTS) == "abc"


@pytest.mark.parametrize("offered", [[], ["voicecare.v2"], ["VOICECARE.V1"], ["voicecare.v1 "], ["voicecare"]])
def test_a_handshake_without_the_protocol_is_refused(offered: list[str]):
    assert extract_token(scope(BEARER, offered=offered), HOSTS) is None


def test_a_scope_without_subprotocols_is_refused():
    bare = scope(BEARER)
    del bare["subprotocols"]
    assert extract_token(bare, HOSTS) is None


@pytest.mark.parametrize("query", [b"token=abc.def", b"token.abc.def", b"authorization=Bearer+abc.def"])
def test_a_token_in_the_query_string_is_ignored(query: bytes):
    assert extract_token(scope(query_string=query), HOSTS) is None


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
    assert extract_token(scope(BEARER, origin(value)), HOSTS) == "abc.def"


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
    assert extract_token(scope(BEARER, origin(value)), HOSTS) is None


@pytest.mark.parametrize("value", ["null", "file://", "file:///home/device/app", "", "voice.example.org", "*"])
def test_an_origin_that_names_no_site_needs_the_token_in_the_header(value: str):
    assert extract_token(scope(BEARER, origin(value)), HOSTS) == "abc.def"
    assert extract_token(scope(origin(value), offered=[V1, "token.abc.def"]), HOSTS) is None
    basic = (b"authorization", b"Basic eDp5")
    assert extract_token(scope(basic, origin(value), offered=[V1, "token.abc.def"]), HOSTS) is None


def test_a_device_that_sends_no_origin_passes():
    assert extract_token(scope(BEARER), HOSTS) == "abc.def"


@pytest.mark.parametrize(("hosts", "token"), [(["*"], "abc.def"), ([], None)])
def test_the_allowed_hosts_are_passed_in(hosts: list[str], token: str | None):
    assert extract_token(scope(BEARER, origin("https://any.example")), hosts) == token
