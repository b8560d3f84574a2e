"""A sink for tests that keeps all audio."""

from tts.speech import Speech
from tts.synthesis.sink import record_audio


class RecordingSink:
    """An `AudioSink` that never waits. `sent` holds (source, voice, chunk)."""

    def __init__(self, speech: Speech) -> None:
        self.sent: list[tuple[str, str, bytes]] = []
        self.queued: list[tuple[str, float]] = []
        self.calls: list[str] = []
        self._speech = speech

    async def wait_for_capacity(self) -> None:
        self.calls.append("wait_for_capacity")

    async def send_audio(self, chunk: bytes, source: str, voice: str) -> None:
        self.calls.append("send_audio")
        self.sent.append((source, voice, chunk))
        record_audio(self._speech, len(chunk), source)

    async def wait_for_listener(self) -> None:
        self.calls.append("wait_for_listener")

    async def notify_queued(self, reason: str, expires_in_s: float) -> None:
        self.queued.append((reason, expires_in_s))

    async def flush(self) -> None:
        self.calls.append("flush")
