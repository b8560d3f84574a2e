"""Every provider failure, at every moment, in every format: each text is spoken exactly once and counted.

A case is a fault that hits one segment of a three-segment speech a number of times. After one fault the retry
succeeds. Two faults lead to the backup voice, three faults to the offline voice. For a patient who hears only their own
voice, the cases that would lead to the backup voice lead to the offline voice, and nothing is requested in another
voice.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.conftest import DEFAULT_VOICE, OTHER_VOICE, Member, wait_until_provider_healthy
from tests.e2e.device import instant_playback
from tests.sandbox import SandboxProcess
from tests.server import ServerProcess
from tests.sound import decode
from tts.models import Conversation, Utterance
from usage.models import UsageEvent
from voicecare.audio.formats import DEVICE_FORMATS
from voicecare.patients.models import Patient
from voicecare_client import DeviceClient, SpeechResult

BEFORE_AUDIO: list[dict[str, Any]] = [
    {"kind": "error", "preset": "internal_error"},
    {"kind": "error", "preset": "bad_gateway_html"},
    {"kind": "error", "preset": "service_unavailable"},
    {"kind": "refuse"},
    {"kind": "stall_first"},
    {"kind": "stall_headers"},
    {"kind": "empty"},
    {"kind": "html"},
    {"kind": "json"},
]
IN_THE_MIDDLE: list[dict[str, Any]] = [
    {"kind": "cut", "after_bytes": 4097},
    {"kind": "cut_reset", "after_bytes": 3001},
    {"kind": "stall_middle", "after_bytes": 5003},
]
ENDS_IN = {1: "live", 2: "backup", 3: "offline"}
SPEECH = (
    "Case {0} has a first sentence that stands alone. ",
    "Case {0} has a second one that may be struck. ",
    "Case {0} has a third, and then it is at its end.",
)


@dataclass(frozen=True)
class Case:
    number: int
    fault: dict[str, Any]
    struck: int
    times: int
    format: str
    ends_in: str
    switches: int
    policy: str = "switch"
    segments: list[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "segments", [sentence.format(self.number) for sentence in SPEECH])

    @property
    def text(self) -> str:
        return "".join(self.segments)

    @property
    def has_backup_request(self) -> bool:
        return self.policy == "switch" and (self.ends_in == "backup" or self.times == 3)

    def __str__(self) -> str:
        name = self.fault.get("preset", self.fault["kind"])
        return f"{self.number}-{name}-segment{self.struck}-x{self.times}-{self.format}-{self.policy}"


def matrix() -> Iterator[Case]:
    formats = itertools.cycle(DEVICE_FORMATS)
    cases = itertools.product([*BEFORE_AUDIO, *IN_THE_MIDDLE], (0, 1), (1, 2, 3))
    for number, (fault, struck, times) in enumerate(cases, 100):
        heard_before = struck > 0 or fault in IN_THE_MIDDLE
        switches = int(heard_before and times > 1)
        if fault in IN_THE_MIDDLE and times == 3:
            switches = 2  # the backup voice has sent audio, too, before it failed
        yield Case(number, fault, struck, times, next(formats), ENDS_IN[times], switches)


def refusals() -> Iterator[Case]:
    """Errors that are decided by one response, without a retry. The quota is exhausted in the middle of a speech here;
    tests/e2e/test_quota.py has the cases at its beginning.
    """
    table = [
        ("voice_not_found", "backup"),
        ("paid_plan_required", "backup"),
        ("quota_exceeded", "offline"),
        ("insufficient_credits", "offline"),
        ("invalid_api_key", "offline"),
        ("missing_permissions", "offline"),
        ("detected_unusual_activity", "offline"),
        ("model_not_found", "offline"),
        ("too_many_concurrent_requests", "live"),
        ("system_busy", "live"),
        ("rate_limit_exceeded", "live"),
    ]
    formats = itertools.cycle(DEVICE_FORMATS)
    for number, ((preset, ends_in), struck) in enumerate(itertools.product(table, (0, 1)), 200):
        if preset in ("quota_exceeded", "insufficient_credits") and not struck:
            continue
        switches = int(struck > 0 and ends_in != "live")
        yield Case(number, {"kind": "error", "preset": preset}, struck, 1, next(formats), ends_in, switches)


def own_voice_only(cases: Iterable[Case]) -> Iterator[Case]:
    """The cases whose result differs for a patient who hears only their own voice. One position for each fault.

    The offline voice speaks where the backup voice would.
    """
    struck = itertools.cycle((0, 0, 1, 1))  # `cases` have each fault with the first, then with the second segment
    for number, case in enumerate([case for case in cases if case.ends_in == "backup"], 300):
        if case.struck == next(struck):
            yield replace(case, number=number, ends_in="offline", policy="own_voice_only")


CASES = [*matrix(), *refusals()]
CASES += own_voice_only(CASES)


@pytest.fixture(scope="module")
def impatient_server(start_server: Callable[..., ServerProcess]) -> Iterator[ServerProcess]:
    with start_server(FIRST_CHUNK_TIMEOUT_S=0.9, STALL_TIMEOUT_S=0.9) as server:
        yield server


@pytest.fixture
def server(impatient_server: ServerProcess, sandbox: SandboxProcess, transactional_db: None) -> Iterator[ServerProcess]:
    yield impatient_server
    wait_until_provider_healthy(impatient_server)


def test_the_matrix_has_enough_cases() -> None:
    assert len(CASES) >= 60


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_each_text_is_spoken_once_and_counted(
    case: Case, server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    await Patient.objects.filter(pk=alice.patient.pk).aupdate(backup_policy=case.policy)
    sandbox.fault(**case.fault, match={"text": f"^{case.segments[case.struck][:30]}"}, first=case.times)
    async with DeviceClient(server.ws, alice.token, format=case.format, timeout_s=20) as device:
        started = await device.start(greeting=False)
        async with instant_playback(device, "speech"):
            spoken = await device.speak(case.text, id="speech")
        ended = await device.end()
    assert spoken.terminal["type"] == "speech.finished"
    assert spoken.terminal["source"] == case.ends_in
    assert_frames(case, spoken)
    assert_whole_samples(spoken.audio, case.format)
    assert decode(spoken.audio, case.format).seconds > 5
    assert await spoken_text(case, sandbox, alice) == case.text
    # The other requests are probes.
    recorded = [request for request in sandbox.requests() if request["text"] in case.segments]
    voices = {request["voice_id"] for request in recorded}
    assert voices == ({OTHER_VOICE, DEFAULT_VOICE} if case.has_backup_request else {OTHER_VOICE})
    billed = sum(request["characters"] for request in recorded if request["billed"])
    assert ended["characters"] == spoken.terminal["characters"] == billed
    conversation = await Conversation.objects.aget(pk=started["conversation"])
    assert conversation.tts_characters_used == billed


def assert_whole_samples(audio: bytes, format_name: str) -> None:
    """Assert that raw audio has whole samples. A decoder would drop half a sample at the end silently."""
    assert not (format_name.startswith("pcm") and len(audio) % 2)


def assert_frames(case: Case, spoken: SpeechResult) -> None:
    assert spoken.terminal["bytes"] == len(spoken.audio)
    assert len(spoken.frames_of("speech.started")) == 1
    assert len(spoken.frames_of("speech.finished", "speech.failed", "speech.interrupted")) == 1
    assert len(spoken.frames_of("speech.switched")) == case.switches
    assert len(spoken.frames_of("notice")) == (case.ends_in != "live")


async def spoken_text(case: Case, sandbox: SandboxProcess, member: Member) -> str:
    """Return the text that was spoken to its end, in order: from the provider's records, and from our ledger for the
    offline voice.
    """
    by_provider = {
        request["text"]: request["voice_id"] for request in sandbox.requests() if request["outcome"] == "completed"
    }
    assert set(by_provider.values()) <= {OTHER_VOICE, DEFAULT_VOICE}
    utterance = await Utterance.objects.aget(patient=member.patient)
    improvised = UsageEvent.objects.filter(source=utterance.pk, kind="offline", outcome="completed")
    offline = {event.segment async for event in improvised}
    return "".join(
        text
        for index, text in enumerate(case.segments)
        if (index in offline) != (_is_really_spoken(case, index, by_provider))
    )


def _is_really_spoken(case: Case, index: int, by_provider: dict[str, str]) -> bool:
    """Return whether the whole segment was spoken. For the provider an empty or disguised response is a success."""
    if index == case.struck and case.ends_in == "offline":
        return False
    return case.segments[index] in by_provider


async def test_audio_after_a_clean_end_within_a_sample_is_aligned(
    server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    first, second, _ = SPEECH
    sandbox.fault(kind="cut_clean", after_bytes=5001, first=1)
    async with DeviceClient(server.ws, alice.token, format="pcm_16000") as device:
        await device.start(greeting=False)
        spoken = await device.speak(first.format(1) + second.format(2))
    assert spoken.terminal["source"] == "live"
    assert_whole_samples(spoken.audio, "pcm_16000")
    assert decode(spoken.audio, "pcm_16000").loudness < 0.3  # misaligned by one byte, speech is noise at full scale


@pytest.mark.parametrize("preset", ["text_too_long", "invalid_text", "unprocessable"])
async def test_a_rejected_text_is_not_retried(
    preset: str, server: ServerProcess, sandbox: SandboxProcess, alice: Member
) -> None:
    sandbox.fault(kind="error", preset=preset)
    async with DeviceClient(server.ws, alice.token) as device:
        await device.start(greeting=False)
        spoken = await device.speak("This text is refused by the provider, for a reason of its own.")
    assert (spoken.terminal["type"], spoken.terminal["code"]) == ("speech.failed", "text_rejected")
    assert len(sandbox.requests()) == 1
