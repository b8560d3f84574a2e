"""Everything the sandbox is at one moment; a reset makes it anew."""

from aiohttp import web

from voicecare.providers.elevenlabs.sandbox.account.account import Account
from voicecare.providers.elevenlabs.sandbox.account.concurrency import Slots
from voicecare.providers.elevenlabs.sandbox.account.synthesizer import Studio
from voicecare.providers.elevenlabs.sandbox.account.voices import Voices
from voicecare.providers.elevenlabs.sandbox.config import Knobs
from voicecare.providers.elevenlabs.sandbox.faults.faults import FaultBook
from voicecare.providers.elevenlabs.sandbox.records import Records


class Sandbox:
    """The account, its voices, the faults in line and the requests seen. Requests under way during a reset end on
    the state in which they began."""

    def __init__(self, studio: Studio, first_byte_ms: float) -> None:
        self.studio = studio
        self.first_byte_ms = first_byte_ms
        self.reset()

    def reset(self) -> None:
        """Back to the start, except for the memory of spoken audio."""
        self.knobs = Knobs(first_byte_ms=self.first_byte_ms)
        self.account = Account(self.knobs)
        self.slots = Slots(self.knobs)
        self.voices = Voices()
        self.faults = FaultBook()
        self.records = Records()


SANDBOX = web.AppKey("sandbox", Sandbox)
