"""The process that speaks: `python -m voicecare.providers.espeak.worker`, messages of `wire` on stdin and stdout.

The main thread reads requests. Two workers make sound, each a slice of one stream at a time; espeak itself is used by
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
from voicecare.providers.espeak import messages as wire
from voicecare.providers.espeak.engine import SAMPLE_RATE, Engine
from voicecare.providers.espeak.text import normalize, split

WORKERS = 2
# Small at first, so that twenty streams that begin together all begin soon; long once a second is ahead, as every
# slice costs two processes a message and the caches of the encoder: 7.1 against 8.5 ms for a second of sound.
SLICE_S = 0.1
LONG_SLICE_S = 0.8
COMFORTABLE_S = 1.0
# A stream further ahead than this is no more pressed than others: without the bound, new streams would hold up old
# ones for as long as those are ahead.
PRESSED_S = 2.0
SILENCE_S = 0.2


_Place = tuple[float, int, "Speech"]


class Speech:
    """One stream: what is left to say, the sound not yet encoded, and how far it is ahead of real time."""

    def __init__(self, number: int, request: wire.Request) -> None:
        self.number, self.request = number, request
        self.credit = wire.WINDOW
        self.cancelled = self.finished = self.starved = False
        self._pieces = list(split(normalize(request.text)))[::-1]
        self._encoder = Encoder(FORMATS[request.format_name], SAMPLE_RATE)
        self._sound = b""
        self._made_s = 0.0
        self._began: float | None = None

    def lead_s(self) -> float:
        """Seconds of sound made beyond the time since the first slice."""
        return 0.0 if self._began is None else self._made_s - (time.monotonic() - self._began)

    def wait_s(self) -> float:
        """Seconds until the next slice may be made."""
        if self.request.max_lead_s is None or self._began is None:
            return 0.0
        return self.lead_s() + self._slice_s() - self.request.max_lead_s

    def dry_at(self) -> float:
        """When its listener has nothing left, on the monotonic clock; a stream that has not begun goes first."""
        return 0.0 if self._began is None else time.monotonic() + min(self.lead_s(), PRESSED_S)

    def is_mute(self) -> bool:
        """Whether espeak has to speak before there can be a slice."""
        return bool(self._pieces) and len(self._sound) < self._slice_bytes()

    def say_more(self, engine: Engine) -> None:
        asked = self.request
        self._sound += engine.speak(self._pieces.pop(), asked.language, asked.variant, asked.pitch, asked.rate)

    def make_slice(self) -> bytes:
        """The next slice, encoded; the last one sets `finished`. It may be empty, as encoders hold sound back."""
        self._began = self._began or time.monotonic()
        size = self._slice_bytes()
        sound, self._sound = self._sound[:size], self._sound[size:]
        self.finished = not self._sound and not self._pieces
        if self.finished and self._made_s == 0.0:
            sound = sound.ljust(int(SILENCE_S * SAMPLE_RATE) * 2, b"\0")
        self._made_s += len(sound) / (2 * SAMPLE_RATE)
        return self._encoder.feed(sound) + (self._encoder.finish() if self.finished else b"")

    def _slice_s(self) -> float:
        return SLICE_S if self.lead_s() < COMFORTABLE_S else LONG_SLICE_S

    def _slice_bytes(self) -> int:
        return int(self._slice_s() * SAMPLE_RATE) * 2


class Schedule:
    """Which stream is served next: a new one, or of those that may go on the one whose listener runs dry first.

    Those that need espeak for it are passed over while espeak is busy with another one.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._order = itertools.count()
        self._ready: list[_Place] = []
        self._mute: list[_Place] = []
        self._asleep: list[_Place] = []
        self._espeak_is_busy = False
        self._streams: dict[int, Speech] = {}

    def add(self, speech: Speech) -> None:
        with self._changed:
            self._streams[speech.number] = speech
            self._place(speech)

    def cancel(self, number: int) -> None:
        with self._changed:
            if speech := self._streams.pop(number, None):
                speech.cancelled = True

    def grant(self, number: int, amount: int) -> None:
        with self._changed:
            if speech := self._streams.get(number):
                speech.credit += amount
                if speech.starved and speech.credit > 0:
                    speech.starved = False
                    self._place(speech)

    def spend(self, speech: Speech, amount: int) -> None:
        with self._changed:  # or what is granted at the same moment is lost, and in the end the stream starves
            speech.credit -= amount

    @contextmanager
    def next(self) -> Iterator[tuple[Speech, bool]]:
        """Blocks until a stream is due; it is the caller's, and if the second is True espeak is too, for the block."""
        with self._changed:
            while (speech := self._take()) is None:
                self._changed.wait(self._until_next())
            mute = speech.is_mute()
            self._espeak_is_busy |= mute
        yield speech, mute
        with self._changed:
            self._espeak_is_busy &= not mute
            self._put_back(speech)

    def _take(self) -> Speech | None:
        self._wake()
        while heaps := [heap for heap in (self._ready, [] if self._espeak_is_busy else self._mute) if heap]:
            speech = heapq.heappop(min(heaps, key=lambda heap: heap[0]))[2]
            if not speech.cancelled:
                return speech
        return None

    def _until_next(self) -> float | None:
        return max(0.0, self._asleep[0][0] - time.monotonic()) if self._asleep else None

    def _wake(self) -> None:
        while self._asleep and self._asleep[0][0] <= time.monotonic():
            self._line_up(heapq.heappop(self._asleep)[2])

    def _put_back(self, speech: Speech) -> None:
        if speech.finished or speech.cancelled:
            self._streams.pop(speech.number, None)
        elif speech.credit <= 0:
            speech.starved = True
        else:
            self._place(speech)

    def _place(self, speech: Speech) -> None:
        wait = speech.wait_s()
        if wait > 0:
            heapq.heappush(self._asleep, (time.monotonic() + wait, next(self._order), speech))
        else:
            self._line_up(speech)
        self._changed.notify()

    def _line_up(self, speech: Speech) -> None:
        line = self._mute if speech.is_mute() else self._ready
        heapq.heappush(line, (speech.dry_at(), next(self._order), speech))


class Child:
    def __init__(self, source: int, sink: int) -> None:
        self._source, self._sink = source, sink
        self._schedule = Schedule()
        self._engine = Engine()
        self._writing = threading.Lock()

    def run(self) -> None:
        """Until EOF."""
        self._warm_up()
        for _ in range(WORKERS):
            threading.Thread(target=self._work, daemon=True).start()
        self._send(wire.READY, 0)
        messages = wire.Splitter()
        while data := os.read(self._source, 65536):
            for message in messages.feed(data):
                self._obey(message)

    def _warm_up(self) -> None:
        """The first use of each encoder, and of the voice, loads what the later ones share."""
        for name in DEVICE_FORMATS:
            speech = Speech(0, wire.Request("Ready.", "en", "", 50, 175, name, None))
            speech.say_more(self._engine)
            speech.make_slice()

    def _obey(self, message: wire.Message) -> None:
        match message.kind:
            case wire.SPEAK:
                self._schedule.add(Speech(message.stream, wire.unpack_request(message.body)))
            case wire.CREDIT:
                self._schedule.grant(message.stream, wire.unpack_credit(message.body))
            case wire.CANCEL:
                self._schedule.cancel(message.stream)

    def _work(self) -> None:
        try:
            while True:
                self._serve()
        except BrokenPipeError:
            os._exit(0)
        except BaseException:
            # One thread gone would leave streams without an end; the parent starts a new process instead.
            sys.excepthook(*sys.exc_info())
            os._exit(1)

    def _serve(self) -> None:
        with self._schedule.next() as (speech, has_espeak):
            if has_espeak:
                speech.say_more(self._engine)
            else:
                self._send_slice(speech)

    def _send_slice(self, speech: Speech) -> None:
        sound = speech.make_slice()
        self._schedule.spend(speech, len(sound))
        if sound:
            self._send(wire.AUDIO, speech.number, sound)
        if speech.finished:
            self._send(wire.END, speech.number)

    def _send(self, kind: int, stream: int, body: bytes = b"") -> None:
        data = memoryview(wire.pack(kind, stream, body))
        with self._writing:
            while data:
                data = data[os.write(self._sink, data) :]


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Whatever a library prints must not end up between messages.
    sink = os.dup(1)
    os.dup2(2, 1)
    Child(0, sink).run()
    # The workers are not waited for: nobody is there to hear them.
    os._exit(0)


if __name__ == "__main__":
    main()
