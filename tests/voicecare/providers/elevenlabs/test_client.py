"""The client over a real socket. Each test scripts the behaviour of the server."""

import asyncio
import json
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from voicecare.providers import errors as e
from voicecare.providers.elevenlabs.client import SpeechClient, SpeechResponse
from voicecare.providers.elevenlabs.error_mapping import MAX_BODY_BYTES
from voicecare.providers.elevenlabs.requests import ResponseMetadata, SpeechRequest

TEXT = "Take your two blue tablets now, Margaret."
KEY = "sk_very_secret"
REQUEST = SpeechRequest("JBFqnCBsd6RMkjVDRZzb", TEXT, "eleven_flash_v2_5", "mp3_44100_128")
SOUND = [bytes([255, 251, n]) + bytes([n]) * (700 + n) for n in range(12)]
END = b"0\r\n\r\n"
UNREACHED_S = 20.0  # a limit that is never reached
REACHED_S = 0.1  # a limit that the test reaches
REACHED_LATE_S = 0.4  # a limit that the test reaches after another step, with room for a busy machine


CHUNKED = "transfer-encoding: chunked"


def head(status: int = 200, kind: str = "audio/mpeg", framing: str = CHUNKED, more: str = "") -> bytes:
    ids = "request-id: req1\r\nx-trace-id: tr1\r\n"
    return f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\n{ids}{more}{framing}\r\n\r\n".encode()


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def whole(status: int, body: bytes, kind: str = "application/json", more: str = "") -> bytes:
    return head(status, kind, f"content-length: {len(body)}", more) + body


@dataclass
class Exchange:
    """One request that the server has read, with methods to respond."""

    head: str
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def write(self, *data: bytes) -> None:
        for piece in data:
            self.writer.write(piece)
            await self.writer.drain()

    async def wait_for_close(self) -> None:
        """Send nothing and wait until the client closes the connection."""
        assert await self.reader.read() == b""

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Exchange], Awaitable[None]]


@dataclass
class Provider:
    """A server that runs `script` for each POST. HEAD gets a 404 without a body, as from a real edge server."""

    script: Script
    url: str = ""
    connections: int = 0
    open: int = 0
    requests: list[Exchange] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            while not writer.is_closing():
                await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            self.closed.set()
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        lengths = [line[15:] for line in text.lower().split("\r\n") if line.startswith("content-length:")]
        exchange = Exchange(text, await reader.readexactly(int(lengths[0]) if lengths else 0), reader, writer)
        self.requests.append(exchange)
        if text.startswith("HEAD"):
            await exchange.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 99\r\n\r\n")
        else:
            await self.script(exchange)


@asynccontextmanager
async def running_provider(script: Script) -> AsyncIterator[Provider]:
    provider = Provider(script)
    server = await asyncio.start_server(provider.serve, "127.0.0.1")
    provider.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield provider
    finally:
        server.close()
        for exchange in provider.requests:
            exchange.writer.transport.abort()


@asynccontextmanager
async def running_server(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    async with await asyncio.start_server(serve, "127.0.0.1") as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def open_client(url: str) -> AsyncIterator[SpeechClient]:
    client = SpeechClient(url, KEY)
    await client.open()
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def provider_and_client(script: Script) -> AsyncIterator[tuple[Provider, SpeechClient]]:
    async with running_provider(script) as provider, open_client(provider.url) as client:
        yield provider, client


def reply_with(*data: bytes) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.write(*data)

    return script


ALL = reply_with(head(), *map(chunk, SOUND), END)


async def speak_all(client: SpeechClient, *, first_byte_s: float = UNREACHED_S, stall_s: float = UNREACHED_S) -> bytes:
    async with client.speak(REQUEST, first_byte_s=first_byte_s, stall_s=stall_s) as reply:
        return b"".join([chunk async for chunk in reply])


@dataclass
class FailedSpeech:
    error: e.ProviderError
    got: bytes


async def speak_and_fail(
    client: SpeechClient, *, first_byte_s: float = UNREACHED_S, stall_s: float = UNREACHED_S
) -> FailedSpeech:
    """Request speech that must fail. Returns the error and the bytes received before it."""
    got: list[bytes] = []
    with pytest.raises(e.ProviderError) as caught:
        await _read_into(got, client.speak(REQUEST, first_byte_s=first_byte_s, stall_s=stall_s))
    shown = f"{caught.value} {caught.value!r} {caught.value.as_body()}"
    assert "Margaret" not in shown
    assert KEY not in shown
    return FailedSpeech(caught.value, b"".join(got))


async def _read_into(got: list[bytes], speech_response: SpeechResponse) -> None:
    async with speech_response as reply:
        async for data in reply:
            got.append(data)


# Requests


async def test_the_request_has_the_key_and_the_text_and_requests_no_compression() -> None:
    async with provider_and_client(ALL) as (provider, client):
        await speak_all(client)
    (request,) = provider.requests
    assert request.head.startswith(f"POST {REQUEST.path()} HTTP/1.1\r\n")
    lines = request.head.lower().split("\r\n")
    assert f"xi-api-key: {KEY}" in lines
    assert "accept-encoding: identity" in lines
    assert "content-type: application/json" in lines
    assert json.loads(request.body) == {"text": TEXT, "model_id": "eleven_flash_v2_5"}


async def test_each_header_is_sent_once_with_the_length_of_the_body() -> None:
    request = SpeechRequest("voice", "Å" * 4000, "eleven_flash_v2_5", "mp3_44100_128")
    async with (
        provider_and_client(ALL) as (provider, client),
        client.speak(request, first_byte_s=UNREACHED_S, stall_s=UNREACHED_S),
    ):
        pass
    (exchange,) = provider.requests
    fields = dict(line.lower().split(": ", 1) for line in exchange.head.split("\r\n")[1:-2])
    assert len(fields) == exchange.head.count("\r\n") - 2
    assert fields["host"] == provider.url.removeprefix("http://")
    assert fields["content-length"] == str(len(request.body()))
    assert exchange.body == request.body()


@pytest.mark.parametrize("prefix", ["/", "/proxy", "/proxy/"])
async def test_the_base_url_may_have_a_path(prefix: str) -> None:
    async with running_provider(ALL) as provider, open_client(provider.url + prefix) as client:
        await client.preconnect()
        await speak_all(client)
    before = prefix.rstrip("/")
    assert [request.head.split(" ")[1] for request in provider.requests] == [f"{before}/", before + REQUEST.path()]


async def test_interim_responses_are_skipped() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    async with provider_and_client(reply_with(hints, hints, head(), *map(chunk, SOUND), END)) as (provider, client):
        assert await speak_all(client) == b"".join(SOUND)
        assert await speak_all(client) == b"".join(SOUND)
    assert provider.connections == 1


@pytest.mark.parametrize("voice", ["a/b", "..", "../../v1/user", "a?b=c", "ä%2F#", "\r\nX-Evil: 1"])
async def test_no_voice_id_changes_the_endpoint(voice: str) -> None:
    request = SpeechRequest(voice, TEXT, "eleven_flash_v2_5", "mp3_44100_128")
    async with (
        provider_and_client(ALL) as (provider, client),
        client.speak(request, first_byte_s=UNREACHED_S, stall_s=UNREACHED_S),
    ):
        pass
    target = provider.requests[0].head.split(" ")[1]
    assert target == request.path()
    assert target.count("/") == 4


async def test_a_redirect_is_not_followed_and_the_key_is_not_sent() -> None:
    async with running_provider(ALL) as other:
        redirect = reply_with(whole(307, b"", more=f"location: {other.url}/\r\n"))
        async with provider_and_client(redirect) as (_, client):
            failed = await speak_and_fail(client)
    assert (type(failed.error), failed.error.code, failed.error.status) == (e.BadRequest, "redirect", 307)
    assert other.requests == []


async def test_cookies_are_not_kept() -> None:
    answer = reply_with(head(more="set-cookie: a=b; path=/\r\n"), chunk(SOUND[0]), END)
    async with (
        running_provider(answer) as provider,
        open_client(provider.url.replace("127.0.0.1", "localhost")) as client,
    ):
        await speak_all(client)  # a host name, because cookie jars ignore cookies of IP addresses
        await speak_all(client)
    assert len(provider.requests) == 2
    assert "cookie" not in provider.requests[1].head.lower()


# Responses


async def test_each_network_read_is_yielded_immediately_and_unchanged() -> None:
    has_read = asyncio.Semaphore(0)

    async def script(exchange: Exchange) -> None:
        await exchange.write(head())
        for sound in SOUND:
            await exchange.write(chunk(sound))
            await has_read.acquire()  # send the next chunk only after this one was read
        await exchange.write(END)

    got = []
    async with (
        provider_and_client(script) as (_, client),
        client.speak(REQUEST, first_byte_s=UNREACHED_S, stall_s=UNREACHED_S) as reply,
    ):
        async for data in reply:
            got.append(data)
            has_read.release()
    assert got == SOUND


async def test_a_body_with_a_length_is_read() -> None:
    sound = b"".join(SOUND)
    async with provider_and_client(reply_with(whole(200, sound, "audio/mpeg"))) as (_, client):
        assert await speak_all(client) == sound


async def test_the_metadata_is_available_before_the_first_byte() -> None:
    first = asyncio.Event()
    costs = "character-cost: 21\r\ncurrent-concurrent-requests: 3\r\nmaximum-concurrent-requests: 10\r\n"

    async def script(exchange: Exchange) -> None:
        await exchange.write(head(more=costs))
        await first.wait()
        await exchange.write(chunk(SOUND[0]), END)

    async with (
        provider_and_client(script) as (_, client),
        client.speak(REQUEST, first_byte_s=UNREACHED_S, stall_s=UNREACHED_S) as reply,
    ):
        assert reply.metadata == ResponseMetadata("req1", "tr1", 21, 3, 10)
        first.set()
        assert [data async for data in reply] == [SOUND[0]]


async def test_two_hundred_streams_share_one_client() -> None:
    async def script(exchange: Exchange) -> None:
        sound = exchange.body[-40:]
        await exchange.write(head(), chunk(b"\xff\xfb" + sound))
        await asyncio.sleep(0.05)
        await exchange.write(chunk(sound), END)

    async def one(client: SpeechClient, n: int) -> bool:
        request = SpeechRequest("v", f"number {n:036d}", "m", "mp3_44100_128")
        async with client.speak(request, first_byte_s=UNREACHED_S, stall_s=UNREACHED_S) as reply:
            return b"".join([data async for data in reply]) == b"\xff\xfb" + 2 * request.body()[-40:]

    async with provider_and_client(script) as (provider, client):
        assert all(await asyncio.gather(*(one(client, n) for n in range(200))))
        assert provider.connections == 200


# Requests that are not sent


async def test_a_closed_port_is_unreachable() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        async with open_client(f"http://127.0.0.1:{bound.getsockname()[1]}") as client:
            failed = await speak_and_fail(client)
            await client.preconnect()
    assert (type(failed.error), failed.error.status) == (e.Unreachable, None)
    assert isinstance(failed.error.__cause__, OSError)


@pytest.mark.parametrize("host", ["provider.invalid", f"{'a' * 64}.invalid"], ids=["unknown", "no name at all"])
async def test_a_name_that_does_not_resolve_is_unreachable(host: str) -> None:
    async with open_client(f"http://{host}") as client:
        assert type((await speak_and_fail(client, first_byte_s=1.0)).error) is e.Unreachable


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""], ids=["no TLS", "silence"])
async def test_a_failed_tls_handshake_is_unreachable(answer: bytes) -> None:
    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(other, "127.0.0.1")
    async with server, open_client(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
        failed = await speak_and_fail(client, first_byte_s=REACHED_S if not answer else UNREACHED_S)
    assert type(failed.error) is e.Unreachable


async def test_a_client_that_is_not_open_is_unreachable() -> None:
    async with provider_and_client(ALL) as (_, client):
        await client.open()  # a second call does nothing
        assert await speak_all(client)
        await client.close()
        failed = await speak_and_fail(client)
        await client.preconnect()
        await client.close()
    assert (type(failed.error), failed.error.code) == (e.Unreachable, "client_closed")


# Timeouts


async def test_no_headers_within_the_limit_is_no_first_byte() -> None:
    async with provider_and_client(Exchange.wait_for_close) as (_, client):
        failed = await speak_and_fail(client, first_byte_s=REACHED_S)
    assert (type(failed.error), failed.error.status, failed.error.request_id) == (e.NoFirstByte, None, None)


async def test_headers_alone_are_no_first_byte() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.write(head())
        await exchange.wait_for_close()

    async with provider_and_client(script) as (_, client):
        failed = await speak_and_fail(client, first_byte_s=REACHED_LATE_S)
    assert (type(failed.error), failed.error.status, failed.error.request_id) == (e.NoFirstByte, 200, "req1")


async def test_slow_headers_do_not_extend_the_limit() -> None:
    async def script(exchange: Exchange) -> None:
        for byte in head():
            await exchange.write(bytes([byte]))
            await asyncio.sleep(REACHED_S / 10)

    async with provider_and_client(script) as (_, client):
        assert type((await speak_and_fail(client, first_byte_s=REACHED_S)).error) is e.NoFirstByte


async def test_a_pause_in_the_middle_is_a_stall() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.write(head())
        await asyncio.sleep(REACHED_S)  # the client waits by then
        await exchange.write(chunk(SOUND[0]), chunk(SOUND[1]))
        await exchange.wait_for_close()

    async with provider_and_client(script) as (provider, client):
        failed = await speak_and_fail(client, stall_s=REACHED_S)
        await provider.closed.wait()
    assert (type(failed.error), failed.error.status, failed.error.request_id) == (e.Stalled, 200, "req1")
    assert failed.got == SOUND[0] + SOUND[1]


async def test_short_pauses_are_not_a_stall() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.write(head())
        for sound in SOUND:
            await exchange.write(chunk(sound))
            await asyncio.sleep(REACHED_S)
        await exchange.write(END)

    async with provider_and_client(script) as (_, client):
        assert await speak_all(client, stall_s=REACHED_LATE_S) == b"".join(SOUND)


async def test_a_pause_of_the_reader_is_not_a_stall() -> None:
    has_read = asyncio.Semaphore(0)

    async def script(exchange: Exchange) -> None:
        await exchange.write(head())
        for sound in SOUND[:2]:
            await exchange.write(chunk(sound))
            await has_read.acquire()  # send nothing while the reader pauses
        await exchange.write(END)

    got = b""
    async with (
        provider_and_client(script) as (_, client),
        client.speak(REQUEST, first_byte_s=UNREACHED_S, stall_s=REACHED_LATE_S) as reply,
    ):
        async for data in reply:
            got += data
            await asyncio.sleep(1.5 * REACHED_LATE_S)
            has_read.release()
    assert got == b"".join(SOUND[:2])


async def test_a_blocked_event_loop_is_not_a_stall() -> None:
    def send_and_block(exchange: Exchange) -> None:
        exchange.writer.write(chunk(SOUND[1]))
        time.sleep(1.5 * REACHED_LATE_S)  # afterwards the loop finds the bytes and the passed deadline in the same turn

    async def script(exchange: Exchange) -> None:
        await exchange.write(head(), chunk(SOUND[0]))
        await asyncio.sleep(REACHED_S)  # the reader waits by then
        send_and_block(exchange)
        await asyncio.sleep(REACHED_S)
        await exchange.write(END)

    async with provider_and_client(script) as (_, client):
        assert await speak_all(client, stall_s=REACHED_LATE_S) == SOUND[0] + SOUND[1]


async def test_a_stall_after_a_pause_of_the_reader_is_detected() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.write(head(), chunk(SOUND[0]))
        await exchange.wait_for_close()

    async with (
        provider_and_client(script) as (_, client),
        client.speak(REQUEST, first_byte_s=UNREACHED_S, stall_s=REACHED_S) as reply,
    ):
        await anext(reply)
        await asyncio.sleep(2.5 * REACHED_S)
        with pytest.raises(e.Stalled):
            await anext(reply)


async def test_audio_that_arrived_in_time_may_be_read_late() -> None:
    async with (
        provider_and_client(ALL) as (_, client),
        client.speak(REQUEST, first_byte_s=REACHED_LATE_S, stall_s=REACHED_LATE_S) as reply,
    ):
        await asyncio.sleep(1.5 * REACHED_LATE_S)
        assert b"".join([data async for data in reply]) == b"".join(SOUND)


async def test_a_late_reader_still_has_a_first_byte_limit() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.write(head())
        await exchange.wait_for_close()

    async with (
        provider_and_client(script) as (_, client),
        client.speak(REQUEST, first_byte_s=REACHED_LATE_S, stall_s=UNREACHED_S) as reply,
    ):
        await asyncio.sleep(1.5 * REACHED_LATE_S)
        with pytest.raises(e.NoFirstByte):
            await anext(reply)


# Breaks


async def test_a_break_before_the_headers() -> None:
    async def script(exchange: Exchange) -> None:
        exchange.close()

    async with provider_and_client(script) as (provider, client):
        failed = await speak_and_fail(client)
    assert (type(failed.error), failed.error.status) == (e.ConnectionBroken, None)
    assert len(provider.requests) == 1  # aiohttp does not repeat the POST


async def test_a_response_that_is_not_http() -> None:
    async with provider_and_client(reply_with(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")) as (_, client):
        assert type((await speak_and_fail(client)).error) is e.ConnectionBroken


@pytest.mark.parametrize("end", [Exchange.close, Exchange.reset], ids=["FIN", "RST"])
@pytest.mark.parametrize("framing", [CHUNKED, "content-length: 99999"])
async def test_a_break_in_the_body(framing: str, end: Callable[[Exchange], None]) -> None:
    chunked = framing == CHUNKED
    has_read = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.write(head(framing=framing), chunk(SOUND[0]) if chunked else SOUND[0])
        await has_read.wait()
        end(exchange)

    async with (
        provider_and_client(script) as (_, client),
        client.speak(REQUEST, first_byte_s=UNREACHED_S, stall_s=UNREACHED_S) as reply,
    ):
        assert await anext(reply) == SOUND[0]
        has_read.set()
        with pytest.raises(e.ConnectionBroken) as caught:
            await anext(reply)
    assert (caught.value.status, caught.value.request_id, caught.value.trace_id) == (200, "req1", "tr1")


async def test_the_received_part_of_a_cut_chunk_is_yielded() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.write(head(), chunk(SOUND[0]), chunk(SOUND[1])[:300])
        exchange.close()

    async with provider_and_client(script) as (_, client):
        failed = await speak_and_fail(client)
    assert type(failed.error) is e.ConnectionBroken
    assert failed.got == SOUND[0] + chunk(SOUND[1])[5:300]


async def test_a_break_during_a_pause_of_the_reader_raises_at_each_later_read() -> None:
    has_read, cut = asyncio.Event(), asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.write(head(), chunk(SOUND[0]))
        await has_read.wait()
        await exchange.write(*map(chunk, SOUND[1:4]))
        exchange.close()
        cut.set()

    async with (
        provider_and_client(script) as (_, client),
        client.speak(REQUEST, first_byte_s=UNREACHED_S, stall_s=UNREACHED_S) as reply,
    ):
        await anext(reply)
        has_read.set()
        await cut.wait()
        await asyncio.sleep(REACHED_S)  # the client knows of the break before the next read
        for _ in range(2):
            with pytest.raises(e.ConnectionBroken):
                await anext(reply)


async def test_a_body_without_a_length_ends_with_the_connection() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.write(head(framing="connection: close"), SOUND[0])
        exchange.close()

    async with provider_and_client(script) as (_, client):
        assert await speak_all(client) == SOUND[0]


# 2xx responses without audio


@pytest.mark.parametrize(
    "answer",
    [head() + END, whole(200, b"", "audio/mpeg"), b"HTTP/1.1 204 No Content\r\nrequest-id: req1\r\n\r\n"],
    ids=["chunked", "length 0", "204"],
)
async def test_an_empty_2xx_is_not_audio(answer: bytes) -> None:
    async with provider_and_client(reply_with(answer)) as (_, client):
        failed = await speak_and_fail(client)
    assert (type(failed.error), failed.error.code, failed.error.request_id) == (e.NotAudio, "empty_audio", "req1")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/html", b"<!doctype html><p>sign in</p>"),
        ("audio/mpeg", b"<!doctype html><p>sign in</p>"),
        ("application/json", b'{"detail": {"status": "quota_exceeded"}}'),
        ("audio/mpeg", b'{"detail": {"status": "quota_exceeded"}}'),
    ],
)
async def test_html_and_json_are_not_audio(kind: str, body: bytes) -> None:
    async with provider_and_client(reply_with(whole(200, body, kind))) as (_, client):
        failed = await speak_and_fail(client)
    assert (type(failed.error), failed.error.status, failed.got) == (e.NotAudio, 200, b"")


# Error responses

INVALID_TEXT = json.dumps({"detail": [{"loc": ["body", "text"], "msg": TEXT, "input": TEXT}]}).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (401, b'{"detail": {"status": "quota_exceeded", "message": "5 left"}}', e.QuotaExceeded, "quota_exceeded"),
        (401, b'{"detail": {"status":', e.AuthorizationError, "access_refused"),
        (402, b'{"detail": {"code": "paid_plan_required"}}', e.VoiceUnavailable, "paid_plan_required"),
        (404, b'{"detail": {"code": "voice_not_found", "status": "x"}}', e.VoiceUnavailable, "voice_not_found"),
        (422, INVALID_TEXT, e.TextRejected, "text_refused"),
        (429, b'{"detail": {"status": "system_busy", "message": "later"}}', e.RateLimited, "system_busy"),
        (500, b"<html>Margaret</html>", e.ServerError, "server_fault"),
        (405, b'{"detail": "Method Not Allowed"}', e.BadRequest, "request_refused"),
    ],
)
async def test_error_responses(status: int, body: bytes, kind: type[e.ProviderError], code: str) -> None:
    async with provider_and_client(reply_with(whole(status, body))) as (provider, client):
        failed = await speak_and_fail(client)
        assert (type(failed.error), failed.error.code, failed.error.status) == (kind, code, status)
        assert (failed.error.request_id, failed.error.trace_id) == ("req1", "tr1")
        await speak_and_fail(client)
    assert provider.connections == 1  # the connection is reused after an error response that was read to its end


async def test_the_status_decides_if_the_error_body_does_not_end() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.write(head(503, "text/html"), chunk(b"<html>"))
        await exchange.wait_for_close()

    async with provider_and_client(script) as (provider, client):
        assert type((await speak_and_fail(client)).error) is e.ServerError
        await provider.closed.wait()


async def test_the_received_part_of_a_cut_error_body_is_used() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.write(head(401, "application/json"), chunk(b'{"detail": {"status": "quota_exceeded"}}'))
        exchange.close()

    async with provider_and_client(script) as (_, client):
        assert type((await speak_and_fail(client)).error) is e.QuotaExceeded


async def test_a_huge_error_body_is_not_read_completely() -> None:
    body = b'{"detail": {"status": "quota_exceeded", "message": "' + b"x" * (100 * MAX_BODY_BYTES) + b'"}}'
    async with provider_and_client(reply_with(whole(401, body))) as (provider, client):
        for _ in range(2):
            assert type((await speak_and_fail(client)).error) is e.AuthorizationError
    assert provider.connections == 2  # a connection is only reused if the response was read to its end


# Connections


async def test_connections_are_reused() -> None:
    async with provider_and_client(ALL) as (provider, client):
        for _ in range(3):
            await speak_all(client)
    assert (provider.connections, len(provider.requests)) == (1, 3)


async def test_the_next_speech_uses_the_preconnected_connection() -> None:
    async with provider_and_client(ALL) as (provider, client):
        await client.preconnect()
        assert provider.connections == 1
        await speak_all(client)
    assert provider.connections == 1
    assert [request.head.split(" ")[0] for request in provider.requests] == ["HEAD", "POST"]


async def test_preconnect_skips_interim_responses() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")
        await asyncio.sleep(REACHED_S)
        writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 99\r\n\r\n")
        while await reader.read(4096):
            writer.write(head() + chunk(SOUND[0]) + END)

    async with running_server(serve) as url, open_client(url) as client:
        await client.preconnect()
        assert await speak_all(client) == SOUND[0]


@pytest.mark.parametrize("pause_s", [0, REACHED_S / 2], ids=["behind the end", "while idle"])
async def test_an_unrequested_response_is_never_played(pause_s: float) -> None:
    strange = head() + chunk(b"\xff\xfbSomebody else's") + END

    async def script(exchange: Exchange) -> None:
        await exchange.write(head(), chunk(SOUND[0]))
        await asyncio.sleep(REACHED_S)  # until the client has read the headers
        await exchange.write(END if pause_s else END + strange)
        if pause_s:
            await asyncio.sleep(pause_s)
            await exchange.write(strange)

    async with provider_and_client(script) as (provider, client):
        assert await speak_all(client) == SOUND[0]
        await asyncio.sleep(REACHED_S)
        failed = await speak_and_fail(client)
        assert (type(failed.error), failed.got) == (e.Unreachable, b"")
        assert await speak_all(client) == SOUND[0]
    assert provider.connections == len(provider.requests) == 2


async def test_a_connection_with_an_unfinished_request_is_not_reused() -> None:
    """The server responded before it read the whole request. It may never read the rest."""
    connections = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head() + chunk(SOUND[0]) + END)

    request = SpeechRequest("voice", "A" * 20_000_000, "eleven_flash_v2_5", "mp3_44100_128")
    async with running_server(serve) as url, open_client(url) as client:
        async with client.speak(request, first_byte_s=UNREACHED_S, stall_s=UNREACHED_S) as reply:
            assert [data async for data in reply] == [SOUND[0]]
        assert await speak_all(client) == SOUND[0]
        for connection in connections:
            connection.transport.abort()
    assert len(connections) == 2


async def test_a_connection_that_the_server_closed_is_not_reused() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.write(whole(200, SOUND[0], "audio/mpeg"))
        exchange.close()

    async with provider_and_client(script) as (provider, client):
        await speak_all(client)
        await provider.closed.wait()
        await asyncio.sleep(REACHED_S)
        assert await speak_all(client) == SOUND[0]
    assert provider.connections == 2


async def test_leaving_early_closes_the_connection() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.write(head(), chunk(SOUND[0]))
        await exchange.wait_for_close()

    async with provider_and_client(script) as (provider, client):
        async with client.speak(REQUEST, first_byte_s=UNREACHED_S, stall_s=UNREACHED_S) as reply:
            await anext(reply)
        await provider.closed.wait()
        assert provider.open == 0
        with pytest.raises(e.ConnectionBroken):
            await anext(reply)


@pytest.mark.parametrize("answer", [[], [head()], [head(), chunk(SOUND[0])]], ids=["asked", "headers", "speaking"])
async def test_cancellation_closes_the_connection(answer: list[bytes]) -> None:
    reached = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.write(*answer)
        reached.set()
        await exchange.wait_for_close()

    async with provider_and_client(script) as (provider, client):
        task = asyncio.create_task(speak_all(client))
        await reached.wait()
        await asyncio.sleep(REACHED_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await provider.closed.wait()
        assert provider.open == 0


async def test_an_exception_of_the_reader_closes_the_connection() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.write(head(), chunk(SOUND[0]))
        await exchange.wait_for_close()

    async def reader(client: SpeechClient) -> None:
        async with client.speak(REQUEST, first_byte_s=UNREACHED_S, stall_s=UNREACHED_S) as reply:
            async for _ in reply:
                raise LookupError

    async with provider_and_client(script) as (provider, client):
        with pytest.raises(LookupError):
            await reader(client)
        await provider.closed.wait()


async def test_closing_the_client_ends_responses_with_a_provider_error() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.write(head(), chunk(SOUND[0]))
        await exchange.wait_for_close()

    async with (
        provider_and_client(script) as (_, client),
        client.speak(REQUEST, first_byte_s=UNREACHED_S, stall_s=REACHED_S) as reply,
    ):
        await anext(reply)
        await client.close()
        with pytest.raises((e.ConnectionBroken, e.Stalled)):
            await anext(reply)
