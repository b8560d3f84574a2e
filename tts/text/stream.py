"""One speech on its way: its text, whole or still being written, and what has become of it."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Container
from dataclasses import dataclass

from tts.text.segmenter import Segmenter, split

WRITER_TIMEOUT_S = 60.0  # the contract, section 1: a writer silent for so long is taken as done
WRITER_PAUSE_S = 0.4  # language models write several pieces in it; one that pauses has something else to do first


@dataclass(frozen=True, slots=True)
class Segment:
    """One request's worth of text. `before` and `after` are its neighbours, as far as they are known."""

    index: int
    text: str
    previous_text: str | None
    next_text: str | None


class TextStream:
    """Pieces go in as they are written, segments come out as soon as they are complete. One writer, one reader."""

    def __init__(self, text: str = "", *, complete: bool) -> None:
        self.text = text
        self.complete = complete
        self._unread = deque([text] if text else [])
        self._written_at = time.monotonic()
        self._changed: asyncio.Event | None = None

    def append(self, piece: str) -> None:
        self.text += piece
        self._unread.append(piece)
        self._notify()

    def is_idle(self, now: float) -> bool:
        """Nothing was written for so long that the text is taken as complete, also if nobody has read it yet."""
        return now - self._written_at >= WRITER_TIMEOUT_S

    def finish(self) -> None:
        self.complete = True
        self._notify()

    def _notify(self) -> None:
        self._written_at = time.monotonic()
        if self._changed is not None:
            self._changed.set()

    async def segments(self, language: str, phrases: Container[str]) -> AsyncGenerator[Segment, None]:
        """Every segment once, in order; waits for a writer that has not finished.

        A speech that was held may be read again, from its beginning; two readers at a time are a mistake.
        """
        self._unread = deque([self.text] if self.text else [])
        segmenter = Segmenter(language, phrases)
        ready: deque[str] = deque()
        if self.complete:  # seen whole, a text of several sentences may be a phrase
            ready.extend(split(self.text, language, phrases))
            self._unread.clear()
        index, before = 0, None
        while True:
            while self._unread:
                ready.extend(segmenter.feed(self._unread.popleft()))
            if self.complete and not self._unread:
                ready.extend(segmenter.finish())
            if not ready:
                if self.complete:
                    return
                ready.extend(await self._wait_for_text(segmenter))
                continue
            text = ready.popleft()
            yield Segment(index, text, before, ready[0] if ready else None)
            index, before = index + 1, text

    async def _wait_for_text(self, segmenter: Segmenter) -> list[str]:
        """Waits for the writer, who may pause where a sentence ends: the segment that is complete then."""
        if await self._wait_for_write(WRITER_PAUSE_S):
            return []
        paused = segmenter.pause()
        if not paused and not await self._wait_for_write(WRITER_TIMEOUT_S - (time.monotonic() - self._written_at)):
            self.complete = True
        return paused

    async def _wait_for_write(self, seconds: float) -> bool:
        self._changed = asyncio.Event()
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return False
        finally:
            self._changed = None
        return True
