"""The sync client: its requests against `responses`, its failures over a real socket."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import responses

from voicecare.providers import errors as e
from voicecare.providers.elevenlabs.account import AccountClient
from voicecare.providers.elevenlabs.error_mapping import MAX_BODY_BYTES
from voicecare.providers.elevenlabs.responses import AddedVoice

BASE = "https://provider.test"
KEY = "sk_very_secret"
QUOTA = {"character_count": 10, "character_limit": 100}


@pytest.fixture
def provider() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock() as mock:
        yield mock


@pytest.fixture
def account() -> Iterator[AccountClient]:
    client = AccountClient(f"{BASE}/", KEY)
    yield client
    client.close()


def query(call: responses.Call) -> dict[str, list[str]]:
    return parse_qs(urlsplit(call.request.url or "").query)


def test_the_quota_request_has_the_key(provider: responses.RequestsMock, account: AccountClient) -> None:
    provider.get(f"{BASE}/v1/user/subscription", json=QUOTA)
    assert account.subscription().remaining == 90
    headers = provider.calls[0].request.headers
    assert (headers["xi-api-key"], headers["Accept-Encoding"]) == (KEY, "identity")


def test_models_are_listed(provider: responses.RequestsMock, account: AccountClient) -> None:
    provider.get(f"{BASE}/v1/models", json=[{"model_id": "a"}, {"model_id": "b"}])
    assert [model.model_id for model in account.models()] == ["a", "b"]


def test_a_voice_is_read(provider: responses.RequestsMock, account: AccountClient) -> None:
    provider.get(f"{BASE}/v1/voices/v1", json={"voice_id": "v1", "name": "Ann"})
    assert account.voice("v1").name == "Ann"


def voice_page(*names: str, token: str | None = None) -> dict[str, Any]:
    return {"voices": [{"voice_id": n} for n in names], "has_more": token is not None, "next_page_token": token}


def test_all_pages_of_voices_are_read(provider: responses.RequestsMock, account: AccountClient) -> None:
    for page in (voice_page("a", "b", token="t/1"), voice_page(token="t2"), voice_page("c")):
        provider.get(f"{BASE}/v2/voices", json=page)
    assert [voice.voice_id for voice in account.voices()] == ["a", "b", "c"]
    assert [query(call).get("next_page_token") for call in provider.calls] == [None, ["t/1"], ["t2"]]
    assert query(provider.calls[0])["page_size"] == ["100"]


def test_pages_are_requested_only_when_needed(provider: responses.RequestsMock, account: AccountClient) -> None:
    provider.get(f"{BASE}/v2/voices", json=voice_page("a", token="t"))
    voices = account.voices()
    assert next(voices).voice_id == "a"
    assert len(provider.calls) == 1


@pytest.mark.parametrize("tokens", [["t", "t"], ["t", "u", "t"]])
def test_a_repeated_page_token_is_an_error(
    provider: responses.RequestsMock, account: AccountClient, tokens: list[str]
) -> None:
    for token in tokens:
        provider.get(f"{BASE}/v2/voices", json=voice_page("a", token=token))
    with pytest.raises(e.ServerError) as caught:
        list(account.voices())
    assert caught.value.code == "bad_reply"
    assert len(provider.calls) == len(tokens)


def test_endless_pages_are_an_error(provider: responses.RequestsMock, account: AccountClient) -> None:
    def endless(request: object) -> tuple[int, dict[str, str], str]:
        return 200, {}, json.dumps(voice_page("a", token=f"t{len(provider.calls)}"))

    provider.add_callback(responses.GET, f"{BASE}/v2/voices", endless)
    with pytest.raises(e.ServerError):
        list(account.voices())


@pytest.mark.parametrize("content", [b"ID3 sound", BytesIO(b"ID3 sound")])
def test_a_voice_is_added(provider: responses.RequestsMock, account: AccountClient, content: Any) -> None:
    provider.post(f"{BASE}/v1/voices/add", json={"voice_id": "new", "requires_verification": False})
    added = account.add_voice(
        "vc-7",
        [("sample.mp3", content, "audio/mpeg"), ("second.wav", b"RIFF sound", "audio/wav")],
        remove_background_noise=True,
        description="clone",
        labels={"language": "en"},
    )
    assert added == AddedVoice("new", False)
    request = provider.calls[0].request
    assert request.headers["Content-Type"].startswith("multipart/form-data; boundary=")
    body = request.body
    assert isinstance(body, bytes)
    for part in (
        b'name="name"\r\n\r\nvc-7\r\n',
        b'name="remove_background_noise"\r\n\r\ntrue\r\n',
        b'name="description"\r\n\r\nclone\r\n',
        b'name="labels"\r\n\r\n{"language": "en"}\r\n',
        b'name="files"; filename="sample.mp3"\r\nContent-Type: audio/mpeg\r\n\r\nID3 sound\r\n',
        b'name="files"; filename="second.wav"\r\nContent-Type: audio/wav\r\n\r\nRIFF sound\r\n',
    ):
        assert part in body


def test_absent_fields_of_a_voice_are_not_sent(provider: responses.RequestsMock, account: AccountClient) -> None:
    provider.post(f"{BASE}/v1/voices/add", json={"voice_id": "new"})
    account.add_voice("vc-7", [("s.mp3", b"x", "audio/mpeg")])
    body = provider.calls[0].request.body
    assert isinstance(body, bytes)
    assert b'name="remove_background_noise"\r\n\r\nfalse\r\n' in body
    assert b"labels" not in body
    assert b"description" not in body


@pytest.mark.parametrize("status", [429, 500, 503, 409])
def test_adding_a_voice_is_never_retried(provider: responses.RequestsMock, account: AccountClient, status: int) -> None:
    provider.post(f"{BASE}/v1/voices/add", status=status)
    with pytest.raises(e.ProviderError):
        account.add_voice("vc-7", [("s.mp3", b"x", "audio/mpeg")])
    assert len(provider.calls) == 1


def test_a_voice_is_deleted(provider: responses.RequestsMock, account: AccountClient) -> None:
    provider.delete(f"{BASE}/v1/voices/v1", json={"status": "ok"})
    account.delete_voice("v1")
    provider.delete(f"{BASE}/v1/voices/v1", status=404, json={"detail": {"status": "voice_not_found"}})
    with pytest.raises(e.VoiceUnavailable) as caught:
        account.delete_voice("v1")
    assert (caught.value.status, caught.value.code) == (404, "voice_not_found")


def test_statistics_are_requested_in_milliseconds(provider: responses.RequestsMock, account: AccountClient) -> None:
    provider.get(f"{BASE}/v1/usage/character-stats", json={"time": [1000], "usage": {"All": [7]}})
    found = account.character_stats(1000, 2000, metric="tts_characters")
    assert found.usage == {"All": (7.0,)}
    asked = query(provider.calls[0])
    assert (asked["start_unix"], asked["end_unix"]) == (["1000"], ["2000"])
    assert (asked["metric"], asked["aggregation_interval"]) == (["tts_characters"], ["hour"])


def test_all_pages_of_the_history_are_read(provider: responses.RequestsMock, account: AccountClient) -> None:
    items = [{"history_item_id": name} for name in "ab"]
    provider.get(f"{BASE}/v1/history", json={"history": items[:1], "has_more": True, "last_history_item_id": "a"})
    provider.get(f"{BASE}/v1/history", json={"history": items[1:], "has_more": False})
    assert [item.item_id for item in account.history(100, 200)] == ["a", "b"]
    first, second = map(query, provider.calls)
    assert (first["date_after_unix"], first["date_before_unix"]) == (["100"], ["200"])
    assert "start_after_history_item_id" not in first
    assert second["start_after_history_item_id"] == ["a"]


def test_the_history_of_a_voice_is_requested(provider: responses.RequestsMock, account: AccountClient) -> None:
    item = {"history_item_id": "a", "voice_id": "v", "state": "deleted"}
    provider.get(f"{BASE}/v1/history", json={"history": [item], "has_more": False})
    assert [(one.item_id, one.voice_id, one.is_deleted) for one in account.history(voice_id="v")] == [("a", "v", True)]
    assert query(provider.calls[0])["voice_id"] == ["v"]


def test_an_item_of_the_history_is_deleted(provider: responses.RequestsMock, account: AccountClient) -> None:
    provider.delete(f"{BASE}/v1/history/a%2Fb", json={"status": "ok"})
    account.delete_history_item("a/b")
    body = {"detail": {"status": "history_item_not_found", "message": "There is none."}}
    provider.delete(f"{BASE}/v1/history/c", json=body, status=404)
    with pytest.raises(e.ProviderError) as caught:
        account.delete_history_item("c")
    assert (caught.value.code, caught.value.retryable) == ("history_item_not_found", False)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"character_count": "many"}'])
def test_an_invalid_response_is_an_error(provider: responses.RequestsMock, account: AccountClient, body: bytes) -> None:
    provider.get(f"{BASE}/v1/user/subscription", body=body)
    with pytest.raises(e.ServerError) as caught:
        account.subscription()
    assert (caught.value.code, caught.value.retryable) == ("bad_reply", True)


def test_a_response_that_is_too_long_is_an_error(provider: responses.RequestsMock, account: AccountClient) -> None:
    provider.get(f"{BASE}/v1/user/subscription", body=b" " * (17 * 1024 * 1024))
    with pytest.raises(e.ServerError, match="too long"):
        account.subscription()


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (401, b'{"detail": {"status": "quota_exceeded"}}', e.QuotaExceeded, "quota_exceeded"),
        (401, b'{"detail": {"status": "missing_permissions"}}', e.AuthorizationError, "missing_permissions"),
        (400, b'{"detail": {"status": "voice_limit_reached"}}', e.BadRequest, "voice_limit_reached"),
        (422, b'{"detail": [{"loc": ["body", "files"], "type": "missing"}]}', e.BadRequest, "request_refused"),
        (429, b'{"detail": {"code": "rate_limit_exceeded"}}', e.RateLimited, "rate_limit_exceeded"),
        (500, b"<html>", e.ServerError, "server_fault"),
        (
            401,
            b'{"detail": {"status": "quota_exceeded",' + b" " * MAX_BODY_BYTES + b"}}",
            e.AuthorizationError,
            "access_refused",
        ),
    ],
)
def test_error_responses(
    provider: responses.RequestsMock,
    account: AccountClient,
    status: int,
    body: bytes,
    kind: type[e.ProviderError],
    code: str,
) -> None:
    provider.get(f"{BASE}/v1/models", status=status, body=body, headers={"x-trace-id": "tr"})
    with pytest.raises(e.ProviderError) as caught:
        account.models()
    assert (type(caught.value), caught.value.code, caught.value.status) == (kind, code, status)
    assert caught.value.trace_id == "tr"


def test_cookies_are_not_kept(provider: responses.RequestsMock, account: AccountClient) -> None:
    for _ in range(2):
        provider.get(f"{BASE}/v1/models", json=[], headers={"Set-Cookie": "a=b; Path=/"})
        account.models()
    assert "Cookie" not in provider.calls[1].request.headers


def test_a_key_that_is_invalid_in_a_header_is_rejected() -> None:
    with pytest.raises(ValueError, match="cannot be sent in a header"):
        AccountClient(BASE, "sk_1\n")


# Over a real socket

Answer = Callable[[socket.socket], None]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


@contextmanager
def running_server(answer: Answer) -> Iterator[tuple[str, list[bytes]]]:
    """A server for one connection. It reads one request, calls `answer` with the socket, and closes it."""
    heads: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                heads.append(connection.recv(65536))
                answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}", heads
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def send(data: bytes, *, then_wait: bool = False) -> Answer:
    def answer(connection: socket.socket) -> None:
        connection.sendall(data)
        if then_wait:
            connection.recv(1)  # until the client closes the connection

    return answer


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (send(b"", then_wait=True), e.NoFirstByte),
        (send(HEAD + b"content-length: 50\r\n\r\n{", then_wait=True), e.Stalled),
        (send(HEAD + b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n", then_wait=True), e.Stalled),
        (send(HEAD + b"content-length: 50\r\n\r\n{"), e.ConnectionBroken),
        (send(HEAD + b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n"), e.ConnectionBroken),
        (send(HEAD + b"transfer-encoding: chunked\r\n\r\n9\r\n{"), e.ConnectionBroken),
        (send(b""), e.ConnectionBroken),
        (reset, e.ConnectionBroken),
        (send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), e.ConnectionBroken),
    ],
    ids=["silence", "stall", "stall chunked", "short", "cut", "cut in a chunk", "FIN", "RST", "no HTTP"],
)
def test_connection_failures(answer: Answer, kind: type[e.ProviderError]) -> None:
    with running_server(answer) as (url, heads):
        account = AccountClient(url, KEY, timeout=(5, 0.2))
        with pytest.raises(e.ProviderError) as caught:
            account.subscription()
        account.close()
    assert type(caught.value) is kind
    assert KEY not in str(caught.value)
    assert len(heads) == 1


def test_a_failed_tls_handshake_is_unreachable() -> None:
    with running_server(send(b"no TLS here")) as (url, _):
        account = AccountClient(url.replace("http:", "https:"), KEY)
        with pytest.raises(e.Unreachable):
            account.subscription()
        account.close()


def test_a_closed_port_and_an_unknown_host_are_unreachable() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        for url in (f"http://127.0.0.1:{bound.getsockname()[1]}", "http://provider.invalid", "nonsense"):
            account = AccountClient(url, KEY)
            with pytest.raises(e.Unreachable):
                account.subscription()
            account.close()


def test_a_redirect_is_not_followed() -> None:
    moved = b"HTTP/1.1 307 Moved\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n"
    with running_server(send(moved)) as (url, _):
        account = AccountClient(url, KEY)
        with pytest.raises(e.BadRequest) as caught:
            account.subscription()
        account.close()
    assert (caught.value.code, caught.value.status) == ("redirect", 307)


def test_the_received_part_of_a_cut_error_body_is_used() -> None:
    body = b'{"detail": {"status": "quota_exceeded"}}'
    cut = b"HTTP/1.1 401 No\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(body), body)
    with running_server(send(cut)) as (url, _):
        account = AccountClient(url, KEY)
        with pytest.raises(e.QuotaExceeded):
            account.subscription()
        account.close()


@pytest.mark.parametrize("voice", ["..", "a/b", "../../user", "a?b#c", "ä"])
def test_no_voice_id_changes_the_endpoint(voice: str) -> None:
    gone = b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n"
    with running_server(send(gone)) as (url, heads):
        account = AccountClient(url, KEY)
        with pytest.raises(e.BadRequest):
            account.delete_voice(voice)
        account.close()
    method, target, _ = heads[0].split(b" ", 2)
    assert (method, target.count(b"/"), target.count(b"?")) == (b"DELETE", 3, 0)
    assert target.split(b"/")[3] not in {b"", b".", b".."}
