"""Everything the sandbox is at one moment; a reset makes it anew."""

from aiohttp import web

from voicecare.providers.elevenlabs.sandbox.account.account import Account
from voicecare.providers.elevenlabs.sandbox.account.concurrency import ConcurrencySlots
from voicecare.providers.elevenlabs.sandbox.account.synthesizer import Synthesizer
from voicecare.providers.elevenlabs.sandbox.account.voices import VoiceLibrary
from voicecare.providers.elevenlabs.sandbox.config import SandboxConfig
from voicecare.providers.elevenlabs.sandbox.faults.faults import FaultRegistry
from voicecare.providers.elevenlabs.sandbox.records import RequestLog


class Sandbox:
    """The account, its voices, the faults in line and the requests seen. Requests under way during a reset end on
    the state in which they began."""

    def __init__(self, synthesizer: Synthesizer, first_byte_ms: float) -> None:
        self.synthesizer = synthesizer
        self.first_byte_ms = first_byte_ms
        self.reset()

    def reset(self) -> None:
        """Back to the start, except for the memory of spoken audio."""
        self.config = SandboxConfig(first_byte_ms=self.first_byte_ms)
        self.account = Account(self.config)
        self.concurrency = ConcurrencySlots(self.config)
        self.voices = VoiceLibrary()
        self.faults = FaultRegistry()
        self.request_log = RequestLog()


SANDBOX = web.AppKey("sandbox", Sandbox)
