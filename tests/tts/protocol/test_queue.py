"""The line of one connection: its order, whatever waits for the quota."""

from tests.tts.examples import speech
from tts.protocol.queue import SpeechQueue
from tts.speech import Speech


def line_of(*names: str) -> SpeechQueue:
    line = SpeechQueue()
    line.waiting.extend(speech(name) for name in names)
    return line


def said(line: SpeechQueue) -> list[str]:
    """What comes, one after the other, to its end."""
    names = []
    while (one := line.start_next()) is not None:
        names.append(one.id)
        line.finish(one)
    return names


def take(line: SpeechQueue) -> Speech:
    one = line.start_next()
    assert one is not None
    return one


def test_what_came_first_is_said_first():
    assert said(line_of("a", "b", "c")) == ["a", "b", "c"]


def test_what_is_held_lets_others_pass():
    line = line_of("a", "b")
    line.defer(take(line))
    assert line.playing is None
    assert said(line) == ["b"]


def test_what_was_held_comes_first_in_its_order_when_it_may():
    line = line_of("a", "b", "c", "d")
    line.defer(take(line))
    line.defer(take(line))
    line.release_deferred()
    assert said(line) == ["a", "b", "c", "d"]
    assert not line.deferred


def test_dropping_takes_from_both_and_leaves_the_rest_in_order():
    line = line_of("a", "b", "c", "d")
    line.defer(take(line))
    assert [one.id for one in line.remove(lambda one: one.id in "ac")] == ["a", "c"]
    assert said(line) == ["b", "d"]


def test_dropping_what_waits_keeps_what_is_held():
    line = line_of("a", "b")
    line.defer(take(line))
    assert [one.id for one in line.pop_pending()] == ["b"]
    line.release_deferred()
    assert said(line) == ["a"]


def test_the_end_of_another_speech_does_not_end_the_one_that_plays():
    line = line_of("a")
    playing = take(line)
    line.finish(speech("b"))
    assert line.playing is playing
