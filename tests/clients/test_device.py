"""The device that reconnects, against a scripted server. Each script serves one connection, in order."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.clients.players import RecordingPlayer
from tests.clients.scripted_server import STARTED, Script, ServerConnection, finish, serving, started
from tests.waiting import eventually
from voicecare_client import (
    ConnectionClosed,
    Device,
    HandshakeRefused,
    PlayerFailed,
    RequestRefused,
    SpeechFailed,
)
from voicecare_client import device as device_module

DELIVERY = "srv-1"
AUDIO = b"\1\2" * 4000
TIMEOUT_S = 30


@pytest.fixture(autouse=True)
def _without_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting is not what these tests are about. test_reconnect.py tests the delays."""
    monkeypatch.setattr(device_module, "backoff", lambda: iter(lambda: 0.0, 1.0))


@asynccontextmanager
async def device_of(*scripts: Script, player: RecordingPlayer | None = None, **options) -> AsyncIterator[Device]:
    """Yield a device. The server has one script for each of its connections, and closes further ones."""
    waiting = list(scripts)

    async def serve(connection: ServerConnection) -> None:
        if waiting:
            await waiting.pop(0)(connection)

    player = player or RecordingPlayer()
    async with asyncio.timeout(TIMEOUT_S), serving(serve) as url, Device(url, "secret", player, **options) as device:
        yield device
    assert not waiting, "a connection was expected"


async def speech(connection: ServerConnection, *chunks: bytes) -> str:
    """Speak what the device requests next. Return the id."""
    id = (await connection.expect("speak"))["id"]
    await connection.speak(id, *chunks)
    return id


async def until_closed(connection: ServerConnection) -> None:
    """Serve until the device goes: it ends its conversation first."""
    await connection.end()


# Speaking


async def test_a_speech_is_heard_when_the_player_has_played_it():
    player = RecordingPlayer()
    player.go_on.clear()

    async def script(connection: ServerConnection) -> None:
        assert await connection.expect("conversation.start") == {"type": "conversation.start", "format": "pcm_16000"}
        await connection.send(STARTED)
        await speech(connection, AUDIO, AUDIO)
        await until_closed(connection)

    async with device_of(script, player=player, format="pcm_16000") as device:
        speaking = asyncio.create_task(device.speak("Good morning"))
        await eventually(lambda: player.speeches)
        assert not speaking.done()
        player.go_on.set()
        assert await speaking is True
    assert player.heard == [AUDIO + AUDIO]


async def test_a_text_without_a_letter_is_heard_without_audio():
    async def script(connection: ServerConnection) -> None:
        await connection.start()
        await connection.send(finish((await connection.expect("speak"))["id"]))
        await until_closed(connection)

    async with device_of(script) as device:
        assert await device.speak("...") is True


async def test_refused_and_failed_speeches_raise_what_the_server_says():
    async def script(connection: ServerConnection) -> None:
        await connection.start()
        id = (await connection.expect("speak"))["id"]
        await connection.send({"type": "error", "id": id, "code": "too_long", "message": "Too long."})
        id = (await connection.expect("speak"))["id"]
        await connection.send({"type": "speech.failed", "id": id, "code": "over_budget", "message": "No budget."})
        id = (await connection.expect("speak"))["id"]
        failed = {"type": "speech.failed", "id": id, "code": "no_voice", "message": "No voice."}
        await connection.send(started(id), AUDIO, failed)
        await until_closed(connection)

    player = RecordingPlayer()
    async with device_of(script, player=player) as device:
        with pytest.raises(RequestRefused, match="too_long: Too long"):
            await device.speak("a" * 5001)
        with pytest.raises(SpeechFailed, match="over_budget: No budget"):
            await device.speak("Good morning")
        with pytest.raises(SpeechFailed, match="no_voice: No voice"):
            await device.speak("Good night")
    assert player.heard == [AUDIO]  # what was received of a failed speech is played


async def test_an_interrupt_is_silence_before_the_server_answers():
    player = RecordingPlayer()
    player.go_on.clear()
    interrupted = asyncio.Event()

    async def script(connection: ServerConnection) -> None:
        await connection.start()
        id = (await connection.expect("speak"))["id"]
        await connection.expect("speak")
        await connection.send(started(id), AUDIO)
        await connection.expect("interrupt")
        await interrupted.wait()
        await connection.send(AUDIO, {"type": "speech.interrupted", "id": id, "bytes": 1, "characters": 5})
        await speech(connection, b"next")
        await until_closed(connection)

    async with device_of(script, player=player) as device:
        speaking = [asyncio.create_task(device.speak(text)) for text in ("Good morning", "I see.")]
        await eventually(lambda: player.speeches)
        await device.interrupt()
        assert await asyncio.gather(*speaking) == [False, False]
        assert player.speeches[0].is_stopped
        player.go_on.set()
        interrupted.set()
        assert await device.speak("Next") is True
    assert player.heard == [b"next"]


async def test_a_player_that_is_missing_is_an_error_and_acknowledges_nothing():
    async def script(connection: ServerConnection) -> None:
        await connection.start()
        await connection.speak(DELIVERY, AUDIO)
        await speech(connection, AUDIO)
        await until_closed(connection)  # so no `ack` has come

    async with device_of(script, player=RecordingPlayer(failure="aplay cannot be started.")) as device:
        with pytest.raises(PlayerFailed, match="aplay"):
            await device.speak("Good morning")


async def test_the_device_reads_no_further_while_its_buffer_is_full():
    player = RecordingPlayer()
    player.go_on.clear()
    sent = 0

    async def script(connection: ServerConnection) -> None:
        nonlocal sent
        await connection.start()
        id = (await connection.expect("speak"))["id"]
        await connection.send(started(id))
        for _ in range(400):
            await connection.send(bytes(100_000))
            sent += 100_000
        await connection.send(finish(id))
        await until_closed(connection)

    async with device_of(script, player=player, buffer_bytes=100_000) as device:
        speaking = asyncio.create_task(device.speak("A long story"))
        await eventually(lambda: player.speeches)
        await asyncio.sleep(1)
        assert sent < 20_000_000  # 40 MB in all; the rest is in the buffers of the operating system
        player.go_on.set()
        assert await speaking is True
    assert len(player.heard[0]) == 40_000_000


# Deliveries


async def test_a_delivery_is_acknowledged_after_its_playback_and_again_after_a_loss():
    player = RecordingPlayer()
    player.go_on.clear()
    quiet = asyncio.Event()

    async def first(connection: ServerConnection) -> None:
        await connection.start()
        await connection.speak(DELIVERY, AUDIO)
        await quiet.wait()
        player.go_on.set()
        await connection.expect("ack")  # the server loses it with this connection

    async def second(connection: ServerConnection) -> None:
        assert (await connection.expect("conversation.start"))["resume"] == "c0"
        await connection.send(STARTED)
        assert await connection.expect("ack") == {"type": "ack", "id": DELIVERY}
        await connection.speak(DELIVERY, AUDIO)  # it was delivered again before the acknowledgement came
        assert await connection.expect("ack") == {"type": "ack", "id": DELIVERY}
        await until_closed(connection)

    connections: list[object] = []
    async with device_of(first, second, player=player, on_connection=connections.append) as device:
        await eventually(lambda: player.speeches)
        assert not player.heard
        quiet.set()
        await eventually(lambda: len(connections) == 3)
        await eventually(lambda: device.is_connected)
        await asyncio.sleep(0.3)
    assert player.heard == [AUDIO]
    assert connections[0] is connections[2] is None


async def test_a_delivery_that_comes_again_while_it_plays_is_heard_once():
    player = RecordingPlayer()
    player.go_on.clear()
    repeated = asyncio.Event()

    async def first(connection: ServerConnection) -> None:
        await connection.start()
        await connection.speak(DELIVERY, AUDIO)
        await eventually(lambda: player.speeches)

    async def second(connection: ServerConnection) -> None:
        await connection.start()
        await connection.speak(DELIVERY, AUDIO)
        await speech(connection, b"own")
        repeated.set()
        assert await connection.expect("ack") == {"type": "ack", "id": DELIVERY}
        await until_closed(connection)  # so no other `ack` has come

    connections: list[object] = []
    async with device_of(first, second, player=player, on_connection=connections.append) as device:
        await eventually(lambda: len(connections) == 3)
        speaking = asyncio.create_task(device.speak("Good morning"))
        await repeated.wait()
        player.go_on.set()
        assert await speaking is True
    assert player.heard == [AUDIO, b"own"]


@pytest.mark.parametrize("ending", ["speech.interrupted", "speech.failed"])
async def test_a_delivery_that_was_not_played_to_its_end_is_not_acknowledged(ending):
    async def script(connection: ServerConnection) -> None:
        await connection.start()
        end = {"type": ending, "id": DELIVERY, "code": "no_voice", "message": "", "bytes": 1, "characters": 1}
        await connection.send(started(DELIVERY), AUDIO, end)
        await speech(connection, b"x")
        await until_closed(connection)

    async with device_of(script) as device:
        assert await device.speak("Good morning") is True


# Losses


async def test_a_speech_that_a_loss_has_cut_off_is_spoken_again_from_its_beginning():
    player = RecordingPlayer()

    async def first(connection: ServerConnection) -> None:
        await connection.start()
        id = (await connection.expect("speak"))["id"]
        await connection.send(started(id), AUDIO)
        await eventually(lambda: player.speeches)

    async def second(connection: ServerConnection) -> None:
        assert (await connection.expect("conversation.start"))["resume"] == "c0"
        await connection.send(STARTED)
        await speech(connection, b"whole")
        await until_closed(connection)

    async with device_of(first, second, player=player) as device:
        assert await device.speak("Good morning") is True
    assert player.heard == [b"whole"]
    assert player.speeches[0].is_stopped


async def test_a_speech_that_was_received_plays_on_and_one_that_is_queued_is_not_requested_again():
    player = RecordingPlayer()
    player.go_on.clear()
    queued = ""

    async def first(connection: ServerConnection) -> None:
        nonlocal queued
        await connection.start()
        await speech(connection, AUDIO)
        queued = (await connection.expect("speak"))["id"]
        await connection.send({"type": "speech.queued", "id": queued, "reason": "quota", "expires_at": "2026"})

    async def second(connection: ServerConnection) -> None:
        assert (await connection.expect("conversation.start"))["resume"] == "c0"
        refusal = {"type": "error", "code": "unknown_id", "message": "It has ended."}
        await connection.send(refusal)
        assert await connection.expect("conversation.start") == {"type": "conversation.start", "greeting": False}
        await connection.send({**STARTED, "conversation": "c1"})
        of = {"conversation": "c0", "id": queued}
        await connection.send({**started(DELIVERY), "of": of}, b"later", finish(DELIVERY))
        assert await connection.expect("ack") == {"type": "ack", "id": DELIVERY}
        await until_closed(connection)

    connections: list[object] = []
    async with device_of(first, second, player=player, on_connection=connections.append) as device:
        speaking = [asyncio.create_task(device.speak(text)) for text in ("Good morning", "I see.")]
        await eventually(lambda: len(connections) == 3)
        player.go_on.set()
        assert await asyncio.gather(*speaking) == [True, True]
    assert player.heard == [AUDIO, b"later"]


async def test_a_silent_server_is_pinged_and_then_left(monkeypatch):
    monkeypatch.setattr(device_module, "AWAITED_S", 0.2)
    monkeypatch.setattr(device_module, "PONG_S", 0.3)

    async def first(connection: ServerConnection) -> None:
        await connection.start()
        await connection.expect("speak")
        await connection.expect("ping")
        await connection.send({"type": "pong"})
        await connection.expect("ping")
        await connection.socket.receive()  # no answer: the device goes

    async def second(connection: ServerConnection) -> None:
        await connection.start()
        await speech(connection, AUDIO)
        await until_closed(connection)

    async with device_of(first, second) as device:
        assert await device.speak("Good morning") is True


async def test_a_conversation_that_was_resumed_elsewhere_is_replaced_by_another_one():
    async def script(connection: ServerConnection) -> None:
        await connection.start()
        await connection.send({"type": "conversation.ended", "conversation": "c0", "characters": 0})
        assert await connection.expect("conversation.start") == {"type": "conversation.start", "greeting": False}
        await connection.send({**STARTED, "conversation": "c1"})
        await speech(connection, AUDIO)
        await until_closed(connection)

    async with device_of(script) as device:
        await eventually(lambda: device.is_connected)
        assert await device.speak("Good morning") is True


@pytest.mark.parametrize("code", [4001, 4003, 4400, 4403, 4499])
async def test_it_gives_up_after_a_close_that_a_person_has_to_look_at(code):
    async def script(connection: ServerConnection) -> None:
        await connection.start()
        await connection.expect("speak")
        await connection.socket.close(code=code, message=b"the device is revoked")

    async with device_of(script) as device:
        with pytest.raises(ConnectionClosed, match=f"code {code}: the device is revoked"):
            await device.speak("Good morning")
        with pytest.raises(ConnectionClosed):
            await device.wait_until_given_up()
        with pytest.raises(ConnectionClosed):
            await device.speak("Good night")


async def test_it_gives_up_when_its_token_is_refused():
    async with serving(until_closed, token="another") as url, Device(url, "secret", RecordingPlayer()) as device:
        with pytest.raises(HandshakeRefused, match="unknown_token: No device has this token"):
            await device.wait_until_given_up()


@pytest.mark.parametrize("code", [4008, 4009])
async def test_what_the_server_closes_the_socket_for_is_not_sent_again(code):
    async def first(connection: ServerConnection) -> None:
        await connection.start()
        await connection.expect("speak")
        await connection.socket.close(code=code)

    async def second(connection: ServerConnection) -> None:
        await connection.start()
        assert await speech(connection, AUDIO)
        await until_closed(connection)

    async with device_of(first, second) as device:
        with pytest.raises(ConnectionClosed):
            await device.speak("a")
        assert await device.speak("Good morning") is True


async def test_a_speech_that_waited_too_long_for_a_connection_is_not_spoken(monkeypatch):
    monkeypatch.setattr(device_module, "KEPT_S", 0.1)

    async def first(connection: ServerConnection) -> None:
        await connection.start()
        await connection.expect("speak")
        await asyncio.sleep(0.2)

    async def second(connection: ServerConnection) -> None:
        await connection.start()
        await until_closed(connection)

    async with device_of(first, second) as device:
        with pytest.raises(SpeechFailed, match="expired"):
            await device.speak("Good morning")
        await eventually(lambda: device.is_connected)
