"""The queue of one connection keeps its order, also with deferred speeches."""

from tests.tts.examples import speech
from tts.protocol.queue import SpeechQueue
from tts.speech import Speech


def queue_of(*names: str) -> SpeechQueue:
    queue = SpeechQueue()
    queue.waiting.extend(speech(name) for name in names)
    return queue


def play_all(queue: SpeechQueue) -> list[str]:
    """Play all waiting speeches and return their ids in order."""
    names = []
    while (one := queue.start_next()) is not None:
        names.append(one.id)
        queue.finish(one)
    return names


def start_next(queue: SpeechQueue) -> Speech:
    one = queue.start_next()
    assert one is not None
    return one


def test_speeches_play_in_the_order_of_their_arrival():
    assert play_all(queue_of("a", "b", "c")) == ["a", "b", "c"]


def test_a_deferred_speech_lets_others_play_first():
    queue = queue_of("a", "b")
    queue.defer(start_next(queue))
    assert queue.playing is None
    assert play_all(queue) == ["b"]


def test_released_speeches_come_first_and_in_their_order():
    queue = queue_of("a", "b", "c", "d")
    queue.defer(start_next(queue))
    queue.defer(start_next(queue))
    queue.release_deferred()
    assert play_all(queue) == ["a", "b", "c", "d"]
    assert not queue.deferred


def test_remove_takes_waiting_and_deferred_speeches_and_keeps_the_order_of_the_rest():
    queue = queue_of("a", "b", "c", "d")
    queue.defer(start_next(queue))
    assert [one.id for one in queue.remove(lambda one: one.id in "ac")] == ["a", "c"]
    assert play_all(queue) == ["b", "d"]


def test_popping_the_waiting_speeches_keeps_the_deferred_ones():
    queue = queue_of("a", "b")
    queue.defer(start_next(queue))
    assert [one.id for one in queue.pop_pending()] == ["b"]
    queue.release_deferred()
    assert play_all(queue) == ["a"]


def test_finishing_another_speech_does_not_stop_the_one_that_plays():
    queue = queue_of("a")
    playing = start_next(queue)
    queue.finish(speech("b"))
    assert queue.playing is playing
