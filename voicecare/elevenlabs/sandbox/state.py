"""Everything the sandbox is at one moment; a reset makes it anew."""

from aiohttp import web

from voicecare.elevenlabs.sandbox.account import Account
from voicecare.elevenlabs.sandbox.faults import FaultBook
from voicecare.elevenlabs.sandbox.knobs import Knobs
from voicecare.elevenlabs.sandbox.records import Records
from voicecare.elevenlabs.sandbox.slots import Slots
from voicecare.elevenlabs.sandbox.speech import Studio
from voicecare.elevenlabs.sandbox.voices import Voices


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
