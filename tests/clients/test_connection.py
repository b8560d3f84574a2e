"""The device client, against a scripted server."""

import asyncio

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.clients.scripted_server import STARTED, ServerConnection, finish, serving, started
from tests.server import free_port
from voicecare_client import ConnectionClosed, DeviceClient, HandshakeRefused, RequestRefused, ServerUnreachable

NOTICE = {"type": "notice", "code": "backup_voice", "message": "Temporary voice issue, using backup voice"}


# Connecting


async def test_the_handshake_offers_the_protocol_and_has_the_token():
    async def script(connection: ServerConnection) -> None:
        assert connection.socket.ws_protocol == "voicecare.v1"

    async with serving(script) as url, DeviceClient(url, "secret") as device:
        assert await device.wait_closed() == 1000


async def test_a_refused_token_raises_handshake_refused():
    async def script(connection: ServerConnection) -> None:
        raise AssertionError("nobody may come in")

    async with serving(script) as url:
        with pytest.raises(HandshakeRefused) as refused:
            async with DeviceClient(url, "wrong"):
                pass
    assert (refused.value.status, refused.value.code) == (403, "unknown_token")
    assert str(refused.value) == (
        "The server refused the connection with HTTP 403, unknown_token: No device has this token."
    )


@pytest.mark.parametrize("body", ["", "<h1>Bad gateway</h1>", '["code"]', '{"detail": "Not found."}'])
async def test_a_refusal_of_a_proxy_has_no_code(body):
    async def refuse(request: web.Request) -> web.Response:
        return web.Response(status=502, text=body)

    app = web.Application()
    app.router.add_get("/", refuse)
    async with TestServer(app) as server:
        with pytest.raises(HandshakeRefused, match=r"HTTP 502\.$") as refused:
            async with DeviceClient(str(server.make_url("/")).replace("http:", "ws:"), "secret"):
                pass
    assert (refused.value.status, refused.value.code) == (502, "")


@pytest.mark.parametrize("url", ["ws://127.0.0.1:{port}/ws/device/", "nonsense", "ws://"])
async def test_an_address_without_a_server_raises_server_unreachable(url):
    with pytest.raises(ServerUnreachable):
        async with DeviceClient(url.format(port=free_port()), "secret"):
            pass


# Starting and ending


@pytest.mark.parametrize(
    ("format", "wishes", "sent"),
    [
        (None, {}, {}),
        ("pcm_16000", {"greeting": False}, {"format": "pcm_16000", "greeting": False}),
        (None, {"resume": "c0", "greeting": True}, {"resume": "c0", "greeting": True}),
    ],
)
async def test_start_sends_its_options_and_returns_the_reply(format, wishes, sent):
    received: list[dict] = []

    async def script(connection: ServerConnection) -> None:
        received.append(await connection.expect("conversation.start"))
        await connection.send(STARTED)
        await connection.end()

    async with serving(script) as url, DeviceClient(url, "secret", format=format) as device:
        assert await device.start(**wishes) == STARTED
        assert (await device.end())["characters"] == 7
    assert received == [{"type": "conversation.start", **sent}]


async def test_a_refused_start_raises_request_refused():
    error = {"type": "error", "code": "unknown_format", "message": "`format` must be one of ..."}

    async def script(connection: ServerConnection) -> None:
        await connection.expect("conversation.start")
        await connection.send(error)

    async with serving(script) as url, DeviceClient(url, "secret") as device:
        with pytest.raises(RequestRefused, match="unknown_format") as refused:
            await device.start()
    assert refused.value.frame == error


# Speaking


async def test_a_speech_result_has_all_frames_and_audio():
    async def script(connection: ServerConnection) -> None:
        await connection.start()
        assert await connection.expect("speak") == {"type": "speak", "id": "say-1", "text": "Grüß Gott"}
        await asyncio.sleep(0.05)
        await connection.speak("say-1", b"ab", b"cde")

    async with serving(script) as url, DeviceClient(url, "secret") as device:
        await device.start()
        spoken = await device.speak("Grüß Gott")
    assert spoken.frames == [started("say-1"), finish("say-1", 5)]
    assert (spoken.chunks, spoken.audio, spoken.terminal) == ([b"ab", b"cde"], b"abcde", finish("say-1", 5))
    assert 0.05 <= spoken.first_audio_s < 5


async def test_notices_belong_to_the_speech_during_which_they_arrive():
    async def script(connection: ServerConnection) -> None:
        await connection.start()
        await connection.send({**NOTICE, "code": "voice_changed"})
        await connection.expect("speak")
        await connection.send(started("say-1"), NOTICE, b"x", finish("say-1", 1, source="backup"))

    async with serving(script) as url, DeviceClient(url, "secret") as device:
        await device.start()
        spoken = await device.speak("Hello")
    assert spoken.frames_of("notice") == [NOTICE]
    assert [notice["code"] for notice in device.notices] == ["voice_changed", "backup_voice"]


@pytest.mark.parametrize(
    "terminal",
    [
        {"type": "speech.failed", "id": "say-1", "code": "no_voice", "message": "No voice."},
        {"type": "speech.interrupted", "id": "say-1", "bytes": 0, "characters": 0},
    ],
)
async def test_a_speech_may_end_without_audio(terminal):
    async def script(connection: ServerConnection) -> None:
        await connection.start()
        await connection.expect("speak")
        await connection.send(
            {"type": "speech.queued", "id": "say-1", "reason": "busy", "expires_at": "2026-01-01T00:00:00Z"}
        )
        await connection.send(terminal)

    async with serving(script) as url, DeviceClient(url, "secret") as device:
        await device.start()
        spoken = await device.speak("Hello")
    assert (spoken.terminal, spoken.audio, spoken.first_audio_s) == (terminal, b"", None)


async def test_a_refused_speech_raises_and_the_next_one_is_spoken():
    async def script(connection: ServerConnection) -> None:
        await connection.start()
        await connection.expect("speak")
        await connection.send({"type": "error", "id": "say-1", "code": "too_long", "message": "Too long."})
        await connection.expect("speak")
        await connection.speak("say-2", b"x")

    async with serving(script) as url, DeviceClient(url, "secret") as device:
        await device.start()
        with pytest.raises(RequestRefused, match="too_long: Too long"):
            await device.speak("a" * 5001)
        assert (await device.speak("Short")).audio == b"x"


async def test_an_id_that_is_used_again_has_a_new_result():
    async def script(connection: ServerConnection) -> None:
        await connection.start()
        await connection.expect("speak")
        await connection.speak("a", b"x")
        await connection.expect("speak")
        await connection.send({"type": "error", "id": "a", "code": "duplicate_id", "message": "Used."})

    async with serving(script) as url, DeviceClient(url, "secret") as device:
        await device.start()
        await device.speak("Once", id="a")
        with pytest.raises(RequestRefused, match="duplicate_id"):
            await device.speak("Twice", id="a")


async def test_a_greeting_can_be_awaited_after_it_has_arrived():
    async def script(connection: ServerConnection) -> None:
        await connection.start()
        await connection.expect("speak")
        await connection.speak("greeting", b"hello")
        await connection.speak("say-1", b"x")

    async with serving(script) as url, DeviceClient(url, "secret") as device:
        await device.start()
        assert (await device.speak("Hello")).audio == b"x"
        greeting = await device.wait_for("greeting")
    assert (greeting.audio, greeting.first_audio_s) == (b"hello", None)


async def test_several_speeches_in_advance_have_separate_results():
    async def script(connection: ServerConnection) -> None:
        await connection.start()
        for _ in "abc":
            await connection.expect("speak")
        await connection.send(started("a"), b"1")
        await connection.send(
            {"type": "speech.interrupted", "id": "c", "bytes": 0, "characters": 0}
        )  # a waiting speech
        await connection.send(b"2", finish("a", 2))
        await connection.speak("b", b"3")

    async with serving(script) as url, DeviceClient(url, "secret") as device:
        await device.start()
        for id in "abc":
            await device.send({"type": "speak", "id": id, "text": "Hello"})
        assert (await device.wait_for("b")).audio == b"3"
        assert (await device.wait_for("a")).audio == b"12"
        assert (await device.wait_for("c")).terminal["type"] == "speech.interrupted"


async def test_receive_returns_frames_in_the_order_of_their_arrival():
    frames = [{"type": "pong", "t": 1}, b"audio of nobody", {"type": "pong"}]

    async def script(connection: ServerConnection) -> None:
        await connection.expect("ping")
        await connection.send(*frames)

    async with serving(script) as url, DeviceClient(url, "secret") as device:
        await device.send({"type": "ping", "t": 1})
        assert [await device.receive() for _ in range(3)] == [
            {"type": "pong", "t": 1},
            b"audio of nobody",
            {"type": "pong"},
        ]


async def test_a_speech_can_be_interrupted_while_it_is_awaited():
    playing = asyncio.Event()

    async def script(connection: ServerConnection) -> None:
        await connection.start()
        await connection.expect("speak")
        await connection.send(started("say-1"), b"x")
        playing.set()
        assert await connection.expect("interrupt") == {"type": "interrupt", "id": "say-1"}
        await connection.send({"type": "speech.interrupted", "id": "say-1", "bytes": 1, "characters": 5})

    async with serving(script) as url, DeviceClient(url, "secret") as device:
        await device.start()
        speaking = asyncio.create_task(device.speak("Hello"))
        await playing.wait()
        await device.interrupt("say-1")
        assert (await speaking).terminal["type"] == "speech.interrupted"


async def test_a_cancelled_wait_loses_no_frame():
    go_on = asyncio.Event()

    async def script(connection: ServerConnection) -> None:
        await connection.start()
        await connection.expect("speak")
        await connection.send(started("say-1"), b"1")
        await go_on.wait()
        await connection.send(b"2", finish("say-1", 2))

    async with serving(script) as url, DeviceClient(url, "secret") as device:
        await device.start()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await device.speak("Hello")
        assert device.close_code is None
        go_on.set()
        assert (await device.wait_for("say-1")).audio == b"12"


# The end of a connection


@pytest.mark.parametrize("code", [1000, 4001, 4012])
async def test_the_close_code_of_the_server_is_reported(code):
    async def script(connection: ServerConnection) -> None:
        await connection.start()
        await connection.socket.close(code=code)

    async with serving(script) as url, DeviceClient(url, "secret") as device:
        await device.start()
        assert device.close_code is None
        with pytest.raises(ConnectionClosed) as closed:
            await device.speak("Hello")
        assert (closed.value.code, device.close_code) == (code, code)
        with pytest.raises(ConnectionClosed):
            await device.send({"type": "ping"})


async def test_a_cut_connection_is_an_abnormal_close():
    async def script(connection: ServerConnection) -> None:
        await connection.start()
        connection.socket._req.transport.abort()

    async with serving(script) as url, DeviceClient(url, "secret") as device:
        await device.start()
        assert await device.wait_closed() == 1006


async def test_waiting_for_a_silent_server_times_out():
    async def script(connection: ServerConnection) -> None:
        await connection.start()
        await connection.expect("speak")
        await asyncio.sleep(5)

    async with serving(script) as url, DeviceClient(url, "secret", timeout_s=0.2) as device:
        await device.start()
        with pytest.raises(TimeoutError):
            await device.speak("Hello")
