"""The core of examples/esp32, compiled for this machine."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server import ROOT

FOLDER = ROOT / "examples/esp32/voicecare_device"
STARTED = {
    "type": "conversation.started",
    "conversation": "c0",
    "companion": 'Clara "C."',
    "voice": {"id": "v0", "name": "id", "source": "default"},
    "format": "pcm_16000",
    "initiated": "device",
}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("g++") is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("g++ is not installed")
    path = tmp_path_factory.mktemp("esp32") / "host"
    source = Path(__file__).parent / "esp32_host.cpp"
    warnings = ("-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined", "-fno-sanitize-recover")
    subprocess.run(["g++", "-std=c++17", *warnings, f"-I{FOLDER}", "-o", str(path), str(source)], check=True)
    return path


class Core:
    def __init__(self, program: Path) -> None:
        self._process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, event: str) -> list[str]:
        """Pass an event on. Return the actions that follow."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{event}\n")
        self._process.stdin.flush()
        actions = []
        while (line := self._process.stdout.readline().rstrip("\n")) != ".":
            assert line, "the program has ended"
            actions.append(line)
        return actions

    def text(self, now: int = 1, **frame: object) -> list[str]:
        return self(f"text {now} {json.dumps(frame)}")

    def sent(self, event: str) -> list[dict]:
        return [json.loads(action.removeprefix("send ")) for action in self(event) if action.startswith("send ")]

    def end(self) -> None:
        self._process.communicate(timeout=20)
        assert self._process.returncode == 0


@pytest.fixture
def core(program: Path) -> Iterator[Core]:
    core = Core(program)
    yield core
    core.end()


@pytest.fixture
def connected(core: Core) -> Core:
    assert core.sent("connected 1") == [{"type": "conversation.start", "format": "pcm_16000"}]
    assert core.text(**STARTED) == ['show Clara "C."']
    return core


def test_audio_is_played_in_whole_samples(connected: Core):
    connected.text(type="speech.started", id="own-1")
    assert connected("audio 1 010203") == ["play 0102"]
    assert connected("audio 1 04") == ["play 0304"]
    assert connected("audio 1 0506") == ["play 0506"]


def test_a_delivery_is_acknowledged_when_its_last_sample_was_played(connected: Core):
    connected.text(type="speech.started", id="srv-1")
    connected("audio 1 01020304")
    connected("unplayed 2")
    connected.text(type="speech.finished", id="srv-1")
    assert connected("tick 2") == []
    connected("unplayed 0")
    ack = {"type": "ack", "id": "srv-1"}
    assert connected.sent("tick 3") == [ack]
    assert connected("closed 1006") == ["again 999"]
    assert connected.sent("connected 4") == [{"type": "conversation.start", "format": "pcm_16000", "resume": "c0"}]
    assert connected.text(**STARTED)[0] == f"send {json.dumps(ack, separators=(',', ':'))}"
    connected.text(type="speech.started", id="srv-1")  # it had been sent again already
    assert connected("audio 1 0102") == []
    assert connected.text(type="speech.finished", id="srv-1") == [f"send {json.dumps(ack, separators=(',', ':'))}"]


def test_a_delivery_that_comes_again_while_it_plays_is_heard_once(connected: Core):
    connected.text(type="speech.started", id="srv-1")
    connected("audio 1 01020304")
    connected("unplayed 2")
    connected.text(type="speech.finished", id="srv-1")
    assert connected("closed 1006") == ["again 999"]
    connected("connected 4")
    connected.text(**STARTED)
    connected.text(type="speech.started", id="srv-1")
    assert connected("audio 5 01020304") == []
    assert connected.text(type="speech.finished", id="srv-1") == []
    connected("unplayed 0")
    assert connected.sent("tick 6") == [{"type": "ack", "id": "srv-1"}]
    assert connected("tick 7") == []


@pytest.mark.parametrize("ending", ["speech.failed", "speech.interrupted"])
def test_what_was_not_played_to_its_end_is_not_acknowledged(connected: Core, ending: str):
    connected.text(type="speech.started", id="srv-1")
    connected("audio 1 0102")
    connected.text(type=ending, id="srv-1")
    assert connected("tick 2") == []


def test_a_loss_drops_what_is_incomplete(connected: Core):
    connected.text(type="speech.started", id="srv-1")
    connected("audio 1 0102")
    assert connected("closed 0") == ["silence", "again 999"]
    assert connected("tick 2") == []


def test_an_interrupt_is_silence_and_ignores_what_still_comes(connected: Core):
    connected.text(type="speech.started", id="own-1")
    connected("audio 1 0102")
    assert connected("interrupt") == ['send {"type":"interrupt"}', "silence"]
    assert connected("audio 1 0304") == []


def test_a_text_is_sent_as_json(connected: Core):
    [frame] = connected.sent('speak She said "Grüß Gott"\\ \t.')
    assert frame["text"] == 'She said "Grüß Gott"\\ \t.'


def test_a_conversation_that_has_ended_is_replaced_without_a_greeting(connected: Core):
    connected("closed 1006")
    connected("connected 2")
    frame = {"type": "conversation.start", "format": "pcm_16000", "greeting": False}
    assert connected.text(type="error", code="unknown_id", message="") == [
        f"send {json.dumps(frame, separators=(',', ':'))}"
    ]


@pytest.mark.parametrize(
    ("close", "again"),
    [
        *((close, 999) for close in ("1006", "1001", "4012", "4008", "0 shutting_down")),
        *((close, 900_000) for close in ("4003", "4403", "0 unknown_token")),
        ("4001", 2**32 - 1),
    ],
)
def test_when_it_connects_again(core: Core, close: str, again: int):
    assert core(f"closed {close}")[-1] == f"again {again}"


def test_the_delays_grow_to_30_s_and_begin_again_with_a_conversation(connected: Core):
    delays = [connected("closed 1006")[-1] for _ in range(7)]
    assert delays == [f"again {ms - 1}" for ms in (1000, 2000, 4000, 8000, 16000, 30000, 30000)]
    connected.text(**STARTED)
    assert connected("closed 1006") == ["again 999"]


def test_a_silent_server_is_pinged_and_then_left(connected: Core):
    assert connected("tick 10001") == []
    assert connected("tick 10002") == ['send {"type":"ping"}']
    assert connected("tick 15001") == []
    assert connected("tick 15002") == ["disconnect"]


@pytest.mark.parametrize("frame", ["", "{", "[]", '{"type": ["speech.started"], "id": {"id": "x"}}', '{"type":"\\u00'])
def test_malformed_frames_do_nothing(connected: Core, frame: str):
    assert connected(f"text 1 {frame}") == []
