"""The espeak worker process, `python -m voicecare.providers.espeak.worker`. See `messages` for its protocol.

The main thread reads requests. Two more threads make audio, one slice of one stream at a time. Only one of them can use
espeak at a time, but the encoders run in parallel. Both libraries release Python's global interpreter lock while they
work.
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
from voicecare.core import tracebacks
from voicecare.providers.espeak import messages
from voicecare.providers.espeak.engine import SAMPLE_RATE, Engine
from voicecare.providers.espeak.readability import readable_parts
from voicecare.providers.espeak.text import normalize, split

THREADS = 2
# The first slices are short, so that twenty streams that start together all start soon. Slices are long as soon as a
# stream is one second ahead, because each slice costs a message between two processes and the CPU caches of the
# encoder: 7.1 instead of 8.5 ms for a second of audio.
SLICE_S = 0.1
LONG_SLICE_S = 0.8
LONG_SLICE_LEAD_S = 1.0
# Streams that are further ahead than this have the same priority. Without this limit, new streams would delay old ones
# for as long as the old ones are ahead.
MAX_PRIORITY_LEAD_S = 2.0
SILENCE_S = 0.2


_HeapEntry = tuple[float, int, "SpeechStream"]


class SpeechStream:
    """The state of one stream: the text left to speak, the PCM not yet encoded, and the seconds of audio made."""

    def __init__(self, number: int, request: messages.Request) -> None:
        self.number, self.request = number, request
        self.credit = messages.WINDOW_BYTES
        self.cancelled = self.finished = self.out_of_credit = False
        if request.as_written:
            parts = [(normalize(request.text), request.language)]
        else:
            parts = readable_parts(request.text, request.language, apologize=request.apologize)
        # In the order of speech, the next one last. Each has the language of its voice.
        self._pieces = [(piece, language) for text, language in parts for piece in split(text)][::-1]
        self._encoder = Encoder(FORMATS[request.format_name], SAMPLE_RATE)
        self._pcm = b""
        self._produced_s = 0.0
        self._started_at: float | None = None

    def lead_s(self) -> float:
        """Returns how many seconds the stream is ahead of real time.

        This is the duration of its audio minus the time since its start.
        """
        return 0.0 if self._started_at is None else self._produced_s - (time.monotonic() - self._started_at)

    def seconds_until_next_slice(self) -> float:
        """Returns in how many seconds the next slice of audio may be made, so that the lead stays below `max_lead_s`.

        The result is zero or negative if the slice may be made now.
        """
        if self.request.max_lead_s is None or self._started_at is None:
            return 0.0
        return self.lead_s() + self._slice_s() - self.request.max_lead_s

    def runs_out_at(self) -> float:
        """Returns the monotonic time at which the listener has played all audio made so far.

        It is 0 for a stream that has not started, so that such a stream is served first. A lead of more than
        MAX_PRIORITY_LEAD_S counts as MAX_PRIORITY_LEAD_S.
        """
        return 0.0 if self._started_at is None else time.monotonic() + min(self.lead_s(), MAX_PRIORITY_LEAD_S)

    def needs_synthesis(self) -> bool:
        """Whether espeak must speak the next piece of the text before there is enough PCM for a slice."""
        return bool(self._pieces) and len(self._pcm) < self._slice_bytes()

    def synthesize_piece(self, engine: Engine) -> None:
        request = self.request
        piece, language = self._pieces.pop()
        self._pcm += engine.speak(piece, language, request.variant, request.pitch, request.rate)

    def make_slice(self) -> bytes:
        """Encodes the next slice of audio, and returns the encoded bytes.

        They can be b"", because encoders buffer audio. Sets `finished` if the slice is the last one.
        """
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
    """Chooses the stream for which a thread works next.

    This is a new stream, or otherwise the one whose listener runs out of audio first. Streams that need espeak are
    skipped while espeak works for another stream.
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
        with self._changed:  # without the lock, credit added at the same moment is lost, and the stream stops
            speech.credit -= amount

    @contextmanager
    def acquire_next(self) -> Iterator[tuple[SpeechStream, bool]]:
        """Blocks until a stream needs work, and yields `(stream, needs_espeak)`.

        Inside the `with` block, no other thread uses the stream. If `needs_espeak` is true, no other thread uses
        espeak.
        """
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
    """Serves the requests on the file descriptor `stdin` with THREADS threads, and writes the audio to `stdout`."""

    def __init__(self, stdin: int, stdout: int) -> None:
        self._stdin, self._stdout = stdin, stdout
        self._schedule = Schedule()
        self._engine = Engine()
        self._write_lock = threading.Lock()

    def run(self) -> None:
        """Serves requests until EOF on stdin."""
        # The first use of the English voice and of each encoder loads data that all later streams share.
        for name in DEVICE_FORMATS:
            speech = SpeechStream(0, messages.Request("Ready.", True, True, "en", "", 50, 175, name, None))
            speech.synthesize_piece(self._engine)
            speech.make_slice()
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

    def _run_thread(self) -> None:
        try:
            while True:
                with self._schedule.acquire_next() as (speech, needs_espeak):
                    if needs_espeak:
                        speech.synthesize_piece(self._engine)
                        continue
                    audio = speech.make_slice()
                    self._schedule.use_credit(speech, len(audio))
                    if audio:
                        self._send(messages.AUDIO, speech.number, audio)
                    if speech.finished:
                        self._send(messages.END, speech.number)
        except BrokenPipeError:
            os._exit(0)
        except BaseException as error:
            # If only this thread ended, some streams would never end. The parent starts a new process instead.
            sys.stderr.write(f"{tracebacks.describe(error)}\n")
            os._exit(1)

    def _send(self, kind: int, stream: int, body: bytes = b"") -> None:
        data = memoryview(messages.pack(kind, stream, body))
        with self._write_lock:
            while data:
                data = data[os.write(self._stdout, data) :]


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # stdout becomes stderr, so that text printed by a library does not mix with the messages.
    stdout = os.dup(1)
    os.dup2(2, 1)
    Worker(0, stdout).run()
    # The threads are not joined, because the parent process does not read their audio any longer.
    os._exit(0)


if __name__ == "__main__":
    main()
