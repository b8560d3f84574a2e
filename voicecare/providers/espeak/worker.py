"""The process that speaks: `python -m voicecare.providers.espeak.worker`, messages of `wire` on stdin and stdout.

The main thread reads requests. Two workers make audio, each a slice of one stream at a time; espeak itself is used by
one of them at a time, the encoders run side by side (both leave Python's lock while they work).
"""

import heapq
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from voicecare.audio.encoders import Encoder
from voicecare.audio.formats import DEVICE_FORMATS, FORMATS
from voicecare.providers.espeak import messages
from voicecare.providers.espeak.engine import SAMPLE_RATE, Engine
from voicecare.providers.espeak.text import normalize, split

THREADS = 2
# Small at first, so that twenty streams that begin together all begin soon; long once a second is ahead, as every
# slice costs two processes a message and the caches of the encoder: 7.1 against 8.5 ms for a second of audio.
SLICE_S = 0.1
LONG_SLICE_S = 0.8
LONG_SLICE_LEAD_S = 1.0
# A stream further ahead than this is no more pressed than others: without the bound, new streams would hold up old
# ones for as long as those are ahead.
MAX_PRIORITY_LEAD_S = 2.0
SILENCE_S = 0.2


_HeapEntry = tuple[float, int, "SpeechStream"]


class SpeechStream:
    """One stream: what is left to say, the audio not yet encoded, and how far it is ahead of real time."""

    def __init__(self, number: int, request: messages.Request) -> None:
        self.number, self.request = number, request
        self.credit = messages.WINDOW_BYTES
        self.cancelled = self.finished = self.out_of_credit = False
        self._pieces = list(split(normalize(request.text)))[::-1]
        self._encoder = Encoder(FORMATS[request.format_name], SAMPLE_RATE)
        self._pcm = b""
        self._produced_s = 0.0
        self._started_at: float | None = None

    def lead_s(self) -> float:
        """Seconds of audio made beyond the time since the first slice."""
        return 0.0 if self._started_at is None else self._produced_s - (time.monotonic() - self._started_at)

    def seconds_until_next_slice(self) -> float:
        """Seconds until the next slice may be made."""
        if self.request.max_lead_s is None or self._started_at is None:
            return 0.0
        return self.lead_s() + self._slice_s() - self.request.max_lead_s

    def runs_out_at(self) -> float:
        """When its listener has nothing left, on the monotonic clock; a stream that has not begun goes first."""
        return 0.0 if self._started_at is None else time.monotonic() + min(self.lead_s(), MAX_PRIORITY_LEAD_S)

    def needs_synthesis(self) -> bool:
        """Whether espeak has to speak before there can be a slice."""
        return bool(self._pieces) and len(self._pcm) < self._slice_bytes()

    def synthesize_piece(self, engine: Engine) -> None:
        request = self.request
        self._pcm += engine.speak(self._pieces.pop(), request.language, request.variant, request.pitch, request.rate)

    def make_slice(self) -> bytes:
        """The next slice, encoded; the last one sets `finished`. It may be empty, as encoders hold audio back."""
        self._started_at = self._started_at or time.monotonic()
        size = self._slice_bytes()
        audio, self._pcm = self._pcm[:size], self._pcm[size:]
        self.finished = not self._pcm and not self._pieces
        if self.finished and self._produced_s == 0.0:
            audio = audio.ljust(int(SILENCE_S * SAMPLE_RATE) * 2, b"\0")
        self._produced_s += len(audio) / (2 * SAMPLE_RATE)
        return self._encoder.feed(audio) + (self._encoder.finish() if self.finished else b"")

    def _slice_s(self) -> float:
        return SLICE_S if self.lead_s() < LONG_SLICE_LEAD_S else LONG_SLICE_S

    def _slice_bytes(self) -> int:
        return int(self._slice_s() * SAMPLE_RATE) * 2


class Schedule:
    """Which stream is served next: a new one, or of those that may go on the one whose listener runs dry first.

    Those that need espeak for it are passed over while espeak is busy with another one.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._order = itertools.count()
        self._ready: list[_HeapEntry] = []
        self._needing_espeak: list[_HeapEntry] = []
        self._delayed: list[_HeapEntry] = []
        self._espeak_is_busy = False
        self._streams: dict[int, SpeechStream] = {}

    def add(self, speech: SpeechStream) -> None:
        with self._changed:
            self._streams[speech.number] = speech
            self._enqueue(speech)

    def cancel(self, number: int) -> None:
        with self._changed:
            if speech := self._streams.pop(number, None):
                speech.cancelled = True

    def add_credit(self, number: int, amount: int) -> None:
        with self._changed:
            if speech := self._streams.get(number):
                speech.credit += amount
                if speech.out_of_credit and speech.credit > 0:
                    speech.out_of_credit = False
                    self._enqueue(speech)

    def use_credit(self, speech: SpeechStream, amount: int) -> None:
        with self._changed:  # or what is granted at the same moment is lost, and in the end the stream starves
            speech.credit -= amount

    @contextmanager
    def acquire_next(self) -> Iterator[tuple[SpeechStream, bool]]:
        """Blocks until a stream is due; it is the caller's, and if the second is True espeak is too, for the block."""
        with self._changed:
            while (speech := self._pop_due()) is None:
                self._changed.wait(max(0.0, self._delayed[0][0] - time.monotonic()) if self._delayed else None)
            needs_espeak = speech.needs_synthesis()
            self._espeak_is_busy |= needs_espeak
        yield speech, needs_espeak
        with self._changed:
            self._espeak_is_busy &= not needs_espeak
            if speech.finished or speech.cancelled:
                self._streams.pop(speech.number, None)
            elif speech.credit <= 0:
                speech.out_of_credit = True
            else:
                self._enqueue(speech)

    def _pop_due(self) -> SpeechStream | None:
        while self._delayed and self._delayed[0][0] <= time.monotonic():
            self._push(heapq.heappop(self._delayed)[2])
        while heaps := [heap for heap in (self._ready, [] if self._espeak_is_busy else self._needing_espeak) if heap]:
            speech = heapq.heappop(min(heaps, key=lambda heap: heap[0]))[2]
            if not speech.cancelled:
                return speech
        return None

    def _enqueue(self, speech: SpeechStream) -> None:
        wait = speech.seconds_until_next_slice()
        if wait > 0:
            heapq.heappush(self._delayed, (time.monotonic() + wait, next(self._order), speech))
        else:
            self._push(speech)
        self._changed.notify()

    def _push(self, speech: SpeechStream) -> None:
        line = self._needing_espeak if speech.needs_synthesis() else self._ready
        heapq.heappush(line, (speech.runs_out_at(), next(self._order), speech))


class Worker:
    def __init__(self, stdin: int, stdout: int) -> None:
        self._stdin, self._stdout = stdin, stdout
        self._schedule = Schedule()
        self._engine = Engine()
        self._write_lock = threading.Lock()

    def run(self) -> None:
        """Until EOF."""
        self._warm_up()
        for _ in range(THREADS):
            threading.Thread(target=self._run_thread, daemon=True).start()
        self._send(messages.READY, 0)
        parser = messages.MessageParser()
        while data := os.read(self._stdin, 65536):
            for message in parser.feed(data):
                match message.kind:
                    case messages.SPEAK:
                        self._schedule.add(SpeechStream(message.stream, messages.unpack_request(message.body)))
                    case messages.CREDIT:
                        self._schedule.add_credit(message.stream, messages.unpack_credit(message.body))
                    case messages.CANCEL:
                        self._schedule.cancel(message.stream)

    def _warm_up(self) -> None:
        """The first use of each encoder, and of the voice, loads what the later ones share."""
        for name in DEVICE_FORMATS:
            speech = SpeechStream(0, messages.Request("Ready.", "en", "", 50, 175, name, None))
            speech.synthesize_piece(self._engine)
            speech.make_slice()

    def _run_thread(self) -> None:
        try:
            while True:
                with self._schedule.acquire_next() as (speech, needs_espeak):
                    if needs_espeak:
                        speech.synthesize_piece(self._engine)
                    else:
                        self._send_slice(speech)
        except BrokenPipeError:
            os._exit(0)
        except BaseException:
            # One thread gone would leave streams without an end; the parent starts a new process instead.
            sys.excepthook(*sys.exc_info())
            os._exit(1)

    def _send_slice(self, speech: SpeechStream) -> None:
        audio = speech.make_slice()
        self._schedule.use_credit(speech, len(audio))
        if audio:
            self._send(messages.AUDIO, speech.number, audio)
        if speech.finished:
            self._send(messages.END, speech.number)

    def _send(self, kind: int, stream: int, body: bytes = b"") -> None:
        data = memoryview(messages.pack(kind, stream, body))
        with self._write_lock:
            while data:
                data = data[os.write(self._stdout, data) :]


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Whatever a library prints must not end up between messages.
    stdout = os.dup(1)
    os.dup2(2, 1)
    Worker(0, stdout).run()
    # The workers are not waited for: nobody is there to hear them.
    os._exit(0)


if __name__ == "__main__":
    main()
