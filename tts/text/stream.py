"""The text of one speech, complete or still being written, as a stream of segments."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Container
from dataclasses import dataclass, replace

from tts.text.segmenter import Segmenter, split
from tts.text.spoken_form import Pronunciation

WRITER_TIMEOUT_S = 60.0  # then the text counts as complete (docs/protocol.md, speak.done)
WRITER_PAUSE_S = 0.4  # a language model writes several pieces in this time; a longer gap means that it does other work


@dataclass(frozen=True, slots=True)
class Segment:
    """The text of one request.

    `text` is what the voice is asked to say, `plain_text` the same without audio tags, and `written` the segment as it
    was written (`tts.text.spoken_form`). `previous_text` and `next_text` are the segments before and after it, as
    `plain_text`, or None if unknown.
    """

    index: int
    text: str
    plain_text: str
    written: str
    previous_text: str | None
    next_text: str | None

    def without_tags(self) -> "Segment":
        """Return this segment without audio tags."""
        return self if self.text == self.plain_text else replace(self, text=self.plain_text)


class TextStream:
    """Receives pieces of a text and yields segments as soon as they are complete. It has one writer and one reader."""

    def __init__(self, text: str = "", *, complete: bool) -> None:
        self.text = text
        self.complete = complete
        self._unread = deque([text] if text else [])
        self._written_at = time.monotonic()
        self._changed: asyncio.Event | None = None

    def append(self, piece: str) -> None:
        """Add a piece of text."""
        self.text += piece
        self._unread.append(piece)
        self._notify()

    def is_idle(self, now: float) -> bool:
        """Whether nothing was written for WRITER_TIMEOUT_S, so that the text counts as complete. `now` is monotonic."""
        return now - self._written_at >= WRITER_TIMEOUT_S

    def finish(self) -> None:
        """Mark the text as complete."""
        self.complete = True
        self._notify()

    def _notify(self) -> None:
        self._written_at = time.monotonic()
        if self._changed is not None:
            self._changed.set()

    async def segments(self, pronunciation: Pronunciation, phrases: Container[str]) -> AsyncGenerator[Segment, None]:
        """Yield every segment once, in order. Waits for a writer that has not finished.

        `phrases` are the known phrases in normal form, as they are written.

        The text may be read again from its beginning, but there must not be two readers at the same time.
        """
        self._unread = deque([self.text] if self.text else [])
        segmenter = Segmenter(pronunciation.language, phrases)
        ready: deque[str] = deque()
        if self.complete:  # only a complete text can be a known phrase of several sentences
            ready.extend(split(self.text, pronunciation.language, phrases))
            self._unread.clear()
        index = 0
        before: str | None = None
        following: str | None = None
        while True:
            while self._unread:
                ready.extend(segmenter.feed(self._unread.popleft()))
            if self.complete and not self._unread:
                ready.extend(segmenter.finish())
            if not ready:
                if self.complete:
                    return
                if not await self._wait_for_write(WRITER_PAUSE_S):
                    ready.extend(segmenter.pause())
                    left_s = WRITER_TIMEOUT_S - (time.monotonic() - self._written_at)
                    if not ready and not await self._wait_for_write(left_s):
                        self.complete = True
                continue
            written = ready.popleft()
            plain = pronunciation.plain(written) if following is None else following
            text = pronunciation.spoken(written) if "[" in written else plain
            following = pronunciation.plain(ready[0]) if ready else None
            yield Segment(index, text, plain, written, before, following)
            index, before = index + 1, plain

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
