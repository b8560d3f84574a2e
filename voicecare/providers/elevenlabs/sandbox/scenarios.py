"""Degradations by name, to be heard: `python manage.py sandbox_fault <name>`, and the buttons of the sandbox's page."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from voicecare.providers.elevenlabs.sandbox.account.voices import stock_voices
from voicecare.providers.elevenlabs.sandbox.config import SandboxConfig
from voicecare.providers.elevenlabs.sandbox.faults.faults import SPEECH_PATH, InvalidControlRequest
from voicecare.providers.elevenlabs.sandbox.state import Sandbox

EVERY_CALL = {"path": "^/v1/"}
ALL_VOICES_BUT_ONE = {"path": f"{SPEECH_PATH}(?!{stock_voices()[0].voice_id}/)"}
OFF = "off"


@dataclass(frozen=True)
class Scenario:
    """`heard` is what one then hears. Settings are changed and faults added in this order."""

    effect: str
    settings: Mapping[str, object] = field(default_factory=dict)
    faults: Sequence[Mapping[str, object]] = ()


SCENARIOS = {
    "quota": Scenario(
        "The quota is spent. Known phrases still play; live speech waits for up to a minute, then the offline voice "
        "says it; what the server starts waits until the quota is back.",
        settings={"characters_used": SandboxConfig.character_limit},
    ),
    "busy": Scenario(
        "Every request is refused for want of capacity. Speech waits in line, as long as BUSY_WAIT_S says, then the "
        "offline voice says it.",
        faults=[{"kind": "error", "preset": "system_busy"}],
    ),
    "down": Scenario(
        "Every call is answered with 503. The first speech tries three times, then the offline voice says it, and all "
        "that follows at once, until a probe is answered.",
        faults=[{"kind": "error", "preset": "service_unavailable", "match": EVERY_CALL}],
    ),
    "slow": Scenario(
        "Every speech begins after 1.2 s, which is still within the limit: the same voice, after a pause.",
        settings={"first_byte_ms": 1200},
    ),
    "silent": Scenario(
        "Requests are taken and never answered. The first speech pays the time-outs, then the offline voice says it.",
        faults=[{"kind": "stall_first"}],
    ),
    "cut": Scenario(
        "Every other answer breaks off in the middle: the sentence is said again from its beginning, in the same "
        "voice.",
        faults=[{"kind": "cut", "after_bytes": 12_000, "first": 1}, {"kind": "cut", "after_bytes": 12_000, "every": 2}],
    ),
    "voice-gone": Scenario(
        "Every voice but the first of the stock is gone. Patients who have chosen one hear the default voice, with a "
        "notice.",
        faults=[{"kind": "error", "preset": "voice_not_found", "match": ALL_VOICES_BUT_ONE}],
    ),
    "key": Scenario(
        "The key is refused. The offline voice speaks at once, and there is an incident.",
        faults=[{"kind": "error", "preset": "invalid_api_key", "match": EVERY_CALL}],
    ),
    OFF: Scenario("All is well again, the quota too."),
}


def apply_scenario(sandbox: Sandbox, name: str) -> None:
    """Puts the scenario in the place of all faults and settings. Voices and the requests seen stay as they are."""
    if name not in SCENARIOS:
        raise InvalidControlRequest(f"A scenario is one of: {', '.join(SCENARIOS)}.")
    scenario = SCENARIOS[name]
    sandbox.faults.clear()
    sandbox.config.update({**asdict(SandboxConfig(first_byte_ms=sandbox.first_byte_ms)), **scenario.settings})
    for fault in scenario.faults:
        sandbox.faults.add(fault)
