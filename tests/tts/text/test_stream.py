"""The text stream: pieces in, segments out, with a slow reader, a slow writer and a writer that stops."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any

import pytest

from tts.text.spoken_form import Pronunciation
from tts.text.stream import Segment, TextStream

PHRASES = {"Yes.", "How are you?", "Good night. Sleep well."}
FIRST = "The first sentence is long enough to stand alone."
SECOND = "The second one is long enough for that as well."
THIRD = "And so is the third one, which ends the whole text."


class SkippingSelector(selectors.DefaultSelector):
    """Moves the clock forward instead of waiting."""

    skipped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout:
            self.skipped += timeout
        return ready


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop on which idle time passes immediately."""

    def __init__(self) -> None:
        self._clock = SkippingSelector()
        super().__init__(self._clock)

    def time(self) -> float:
        return super().time() + self._clock.skipped


def run_skipping_time(work: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        return runner.run(work)


async def read(stream: TextStream, language: str = "en") -> list[Segment]:
    return [segment async for segment in stream.segments(Pronunciation(language), PHRASES)]


async def texts(stream: TextStream) -> list[str]:
    return [segment.text.strip() for segment in await read(stream)]


async def test_segments_of_a_complete_text_know_their_neighbours():
    segments = await read(TextStream(f"{FIRST} {SECOND} {THIRD}", complete=True))
    assert [segment.index for segment in segments] == [0, 1, 2]
    assert [segment.text.strip() for segment in segments] == [FIRST, SECOND, THIRD]
    assert [segment.previous_text for segment in segments] == [None, segments[0].text, segments[1].text]
    assert [segment.next_text for segment in segments] == [segments[1].text, segments[2].text, None]


@pytest.mark.parametrize(
    ("text", "segments"),
    [
        ("Yes.", ["Yes."]),
        ("Hi.", ["Hi."]),
        (" ", [" "]),
        ("", []),
        ("Good night. Sleep well.", ["Good night. Sleep well."]),
    ],
)
async def test_a_short_text_is_one_segment_and_an_empty_text_has_none(text: str, segments: list[str]):
    assert [segment.text for segment in await read(TextStream(text, complete=True))] == segments


async def test_a_known_phrase_is_a_segment_of_its_own():
    assert await texts(TextStream(f"Yes. {FIRST} How are you?", complete=True)) == ["Yes.", FIRST, "How are you?"]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
async def test_nothing_is_lost_for_any_size_of_pieces(size: int):
    whole = f"{FIRST} Yes. {SECOND}\n{THIRD}"
    stream = TextStream("", complete=False)
    for start in range(0, len(whole), size):
        stream.append(whole[start : start + size])
    stream.finish()
    segments = await read(stream)
    assert "".join(segment.text for segment in segments) == stream.text == whole
    assert [segment.text.strip() for segment in segments] == [FIRST, "Yes.", SECOND, THIRD]


async def test_a_sentence_is_read_as_soon_as_the_next_one_begins():
    stream = TextStream(FIRST, complete=False)
    reader = stream.segments(Pronunciation("en"), PHRASES)
    first = asyncio.ensure_future(anext(reader))
    await asyncio.sleep(0)
    assert not first.done()
    stream.append(" The")
    segment = await first
    assert (segment.index, segment.text.strip(), segment.next_text) == (0, FIRST, None)
    await reader.aclose()


def test_a_sentence_is_read_while_the_writer_pauses():
    async def scenario() -> tuple[list[str], str]:
        reader = stream.segments(Pronunciation("en"), PHRASES)
        first = (await anext(reader)).text
        stream.append(" ")
        phrase = asyncio.create_task(anext(reader))
        await asyncio.sleep(1)
        stream.append("Yes.")
        said = [first, (await phrase).text]
        stream.append(f" {SECOND[:20]}")
        rest = asyncio.create_task(anext(reader))
        await asyncio.sleep(1)
        assert not rest.done()
        stream.append(SECOND[20:])
        return [*said, (await rest).text], "".join([segment.text async for segment in reader])

    stream = TextStream(FIRST, complete=False)
    assert run_skipping_time(scenario()) == ([FIRST, " Yes.", f" {SECOND}"], "")
    assert stream.complete


def test_white_space_after_a_pause_is_not_a_sentence():
    async def scenario() -> list[str]:
        reader = asyncio.create_task(texts(stream))
        await asyncio.sleep(1)
        stream.append("\n\n")
        stream.finish()
        return await reader

    stream = TextStream(FIRST, complete=False)
    assert run_skipping_time(scenario()) == [FIRST]


def test_a_text_can_be_finished_during_a_pause():
    async def scenario() -> list[str]:
        reader = asyncio.create_task(texts(stream))
        await asyncio.sleep(30)
        stream.finish()
        return await asyncio.wait_for(reader, 1)

    stream = TextStream("The first words", complete=False)
    assert run_skipping_time(scenario()) == ["The first words"]


async def test_a_reader_waits_for_the_writer_and_ends_with_it():
    stream = TextStream(FIRST, complete=False)
    reader = asyncio.create_task(texts(stream))
    for piece in (" ", SECOND, " Th", "ere."):
        await asyncio.sleep(0)
        assert not reader.done()
        stream.append(piece)
    stream.finish()
    assert await reader == [FIRST, SECOND, "There."]


async def test_text_written_between_two_reads_is_not_lost():
    stream = TextStream(f"{FIRST} And", complete=False)
    reader = stream.segments(Pronunciation("en"), PHRASES)
    await anext(reader)
    stream.append(" then. ")
    stream.append(SECOND)
    stream.finish()
    assert "".join([segment.text async for segment in reader]).strip() == f"And then. {SECOND}"


async def test_a_reader_that_is_cancelled_leaves_nothing_behind():
    stream = TextStream("", complete=False)
    reader = asyncio.create_task(texts(stream))
    await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    stream.append(FIRST)
    assert not stream.complete


async def test_a_text_that_is_finished_twice_is_read_once():
    stream = TextStream(FIRST, complete=False)
    stream.finish()
    stream.finish()
    assert await texts(stream) == [FIRST]


def test_a_text_is_complete_after_60_s_without_a_piece():
    async def scenario() -> tuple[list[str], float]:
        began = asyncio.get_running_loop().time()
        said = await texts(stream)
        return said, asyncio.get_running_loop().time() - began

    stream = TextStream(f"{FIRST} {SECOND}", complete=False)
    said, waited = run_skipping_time(scenario())
    assert said == [FIRST, SECOND]
    assert stream.complete
    assert 59 < waited < 90


def test_each_piece_gives_the_writer_another_60_s():
    async def scenario() -> list[str]:
        reader = asyncio.create_task(texts(stream))
        for piece in (" ", SECOND, " "):
            await asyncio.sleep(55)
            assert not reader.done()
            stream.append(piece)
        return await reader

    stream = TextStream(FIRST, complete=False)
    assert run_skipping_time(scenario()) == [FIRST, SECOND]


@pytest.mark.parametrize(("seconds", "silent"), [(0, False), (59.9, False), (60.1, True)])
async def test_a_text_without_a_reader_is_complete_after_60_s_too(seconds: float, silent: bool):
    stream = TextStream(FIRST, complete=False)
    assert stream.is_idle(asyncio.get_running_loop().time() + seconds) is silent
