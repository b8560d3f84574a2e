"""The whole state of the sandbox: the account, the faults and the recorded requests."""

from aiohttp import web

from voicecare.providers.elevenlabs.sandbox.account.account import Account
from voicecare.providers.elevenlabs.sandbox.account.concurrency import ConcurrencySlots
from voicecare.providers.elevenlabs.sandbox.account.synthesizer import Synthesizer
from voicecare.providers.elevenlabs.sandbox.account.voices import VoiceLibrary
from voicecare.providers.elevenlabs.sandbox.config import SandboxConfig
from voicecare.providers.elevenlabs.sandbox.faults.faults import FaultRegistry
from voicecare.providers.elevenlabs.sandbox.records import RequestLog


class Sandbox:
    """The account with its voices, the faults and the recorded requests.

    A request that is in progress during a reset is finished with the old state.
    """

    def __init__(self, synthesizer: Synthesizer, first_byte_ms: float) -> None:
        self.synthesizer = synthesizer
        self.first_byte_ms = first_byte_ms
        self.reset()

    def reset(self) -> None:
        """Returns to the initial state. Only the cache of synthesized audio is kept."""
        self.config = SandboxConfig(first_byte_ms=self.first_byte_ms)
        self.account = Account(self.config)
        self.concurrency = ConcurrencySlots(self.config)
        self.voices = VoiceLibrary(self.config)
        self.faults = FaultRegistry()
        self.scenario = "off"  # the name of the chosen one, scenarios.OFF; empty after other changes
        self.request_log = RequestLog()


SANDBOX = web.AppKey("sandbox", Sandbox)
