"""Named failures, which users can try with `manage.py sandbox_fault NAME` or the buttons of the sandbox's web page."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from voicecare.providers.elevenlabs.sandbox.account.voices import stock_voices
from voicecare.providers.elevenlabs.sandbox.config import SandboxConfig
from voicecare.providers.elevenlabs.sandbox.faults.faults import SPEECH_PATH, InvalidControlRequest
from voicecare.providers.elevenlabs.sandbox.state import Sandbox

EVERY_CALL = {"path": "^/v1/"}
_USES_OF_VOICES = f"{SPEECH_PATH}|^/v1/voices/"
_FIRST_VOICE_ID = stock_voices()[0].voice_id
ALL_VOICES_BUT_ONE = {"path": _USES_OF_VOICES, "voice_id": f"(?!{_FIRST_VOICE_ID}$).+"}
FIRST_VOICE = {"path": _USES_OF_VOICES, "voice_id": _FIRST_VOICE_ID}
OFF = "off"


@dataclass(frozen=True)
class Scenario:
    """A named failure. `effect` describes for users what happens.

    Choosing a scenario first changes the `settings` of the sandbox, then adds the `faults`.
    """

    effect: str
    settings: Mapping[str, object] = field(default_factory=dict)
    faults: Sequence[Mapping[str, object]] = ()


SCENARIOS = {
    "quota": Scenario(
        "The quota is used up. Cached phrases still play. Other speech waits up to a minute, then the offline voice "
        "speaks it. Speech that the server starts waits until the quota is back.",
        settings={"characters_used": SandboxConfig.character_limit},
    ),
    "busy": Scenario(
        "The provider rejects every request because it is busy. Speech waits up to BUSY_WAIT_S seconds, then the "
        "offline voice speaks it.",
        faults=[{"kind": "error", "preset": "system_busy"}],
    ),
    "down": Scenario(
        "The provider answers every request with 503. The first speech makes three attempts, then the offline voice "
        "speaks it. Later speech uses the offline voice immediately, until a probe succeeds.",
        faults=[{"kind": "error", "preset": "service_unavailable", "match": EVERY_CALL}],
    ),
    "slow": Scenario(
        "Every speech starts after 1.2 s, which is still within the limit. The voice is the same, after a pause.",
        settings={"first_byte_ms": 1200},
    ),
    "silent": Scenario(
        "The provider accepts requests and never responds. The first speech waits for the timeouts, then the offline "
        "voice speaks it.",
        faults=[{"kind": "stall_first"}],
    ),
    "cut": Scenario(
        "Every second response breaks off in the middle. The sentence is repeated from its beginning in the same "
        "voice.",
        faults=[{"kind": "cut", "after_bytes": 12_000, "first": 1}, {"kind": "cut", "after_bytes": 12_000, "every": 2}],
    ),
    "voice-gone": Scenario(
        "Every voice except the first stock voice is deleted. Patients with such a voice hear the default voice and "
        "get a notice.",
        faults=[{"kind": "error", "preset": "voice_not_found", "match": ALL_VOICES_BUT_ONE}],
    ),
    "default-gone": Scenario(
        "The first stock voice, which is the default voice of the demo, is deleted. The speech that notices it falls "
        "back to the offline voice. Within seconds the next usable voice takes over for all patients.",
        faults=[{"kind": "error", "preset": "voice_not_found", "match": FIRST_VOICE}],
    ),
    "no-voices": Scenario(
        "The account has no premade voices, as accounts that were made after March 2026. If it has no others either, "
        "the offline voice speaks.",
        settings={"premade_voices": False},
    ),
    "key": Scenario(
        "The provider rejects the API key. The offline voice speaks immediately, and an incident opens.",
        faults=[{"kind": "error", "preset": "invalid_api_key", "match": EVERY_CALL}],
    ),
    OFF: Scenario("No failure. The quota is restored as well."),
}


def apply_scenario(sandbox: Sandbox, name: str) -> None:
    """Removes all faults, sets all settings to their defaults, then applies the scenario. Raises InvalidControlRequest.

    Voices and recorded requests are kept.
    """
    if name not in SCENARIOS:
        raise InvalidControlRequest(f"A scenario is one of: {', '.join(SCENARIOS)}.")
    scenario = SCENARIOS[name]
    sandbox.faults.clear()
    sandbox.config.update({**asdict(SandboxConfig(first_byte_ms=sandbox.first_byte_ms)), **scenario.settings})
    for fault in scenario.faults:
        sandbox.faults.add(fault)
    sandbox.scenario = name
