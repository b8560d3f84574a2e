"""The queue of one connection keeps its order, also with deferred speeches."""

from tests.tts.examples import speech
from tts.protocol.queue import SpeechQueue
from tts.speech import Speech


def queue_of(*names: str) -> SpeechQueue:
    line = SpeechQueue()
    line.waiting.extend(speech(name) for name in names)
    return line


def play_all(line: SpeechQueue) -> list[str]:
    """Play all waiting speeches and return their ids in order."""
    names = []
    while (one := line.start_next()) is not None:
        names.append(one.id)
        line.finish(one)
    return names


def start_next(line: SpeechQueue) -> Speech:
    one = line.start_next()
    assert one is not None
    return one


def test_speeches_play_in_the_order_of_their_arrival():
    assert play_all(queue_of("a", "b", "c")) == ["a", "b", "c"]


def test_a_deferred_speech_lets_others_play_first():
    line = queue_of("a", "b")
    line.defer(start_next(line))
    assert line.playing is None
    assert play_all(line) == ["b"]


def test_released_speeches_come_first_and_in_their_order():
    line = queue_of("a", "b", "c", "d")
    line.defer(start_next(line))
    line.defer(start_next(line))
    line.release_deferred()
    assert play_all(line) == ["a", "b", "c", "d"]
    assert not line.deferred


def test_remove_takes_waiting_and_deferred_speeches_and_keeps_the_order_of_the_rest():
    line = queue_of("a", "b", "c", "d")
    line.defer(start_next(line))
    assert [one.id for one in line.remove(lambda one: one.id in "ac")] == ["a", "c"]
    assert play_all(line) == ["b", "d"]


def test_popping_the_waiting_speeches_keeps_the_deferred_ones():
    line = queue_of("a", "b")
    line.defer(start_next(line))
    assert [one.id for one in line.pop_pending()] == ["b"]
    line.release_deferred()
    assert play_all(line) == ["a"]


def test_finishing_another_speech_does_not_stop_the_one_that_plays():
    line = queue_of("a")
    playing = start_next(line)
    line.finish(speech("b"))
    assert line.playing is playing
