"""Which request a fault strikes, and what is no fault: without a socket."""

from typing import Any

import pytest

from voicecare.providers.elevenlabs.sandbox.faults.faults import (
    FaultRegistry,
    InvalidControlRequest,
    RequestInfo,
    parse_fault,
)


def struck(book: FaultRegistry, times: int) -> list[int]:
    traits = RequestInfo("/v1/text-to-speech/v", "POST")
    return [fault.id if (fault := book.find_for(traits)) else 0 for _ in range(times)]


def test_faults_stand_in_line() -> None:
    book = FaultRegistry()
    book.add({"kind": "refuse", "first": 2})
    book.add({"kind": "empty", "first": 1})
    assert struck(book, 4) == [1, 1, 2, 0]


def test_every_second_and_only_twice() -> None:
    book = FaultRegistry()
    book.add({"kind": "refuse", "every": 2, "first": 2})
    assert struck(book, 6) == [0, 1, 0, 1, 0, 0]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"kind": "explode"}, "stall_middle"),
        ([], "A fault must be an object"),
        ({"kind": "refuse", "after_bytes": 1}, "after_bytes. Known: kind, match"),
        ({"kind": "cut"}, "after_bytes, after_ms"),
        ({"kind": "cut", "after_bytes": -1}, "not negative"),
        ({"kind": "cut", "after_bytes": True}, "not negative"),
        ({"kind": "cut", "after_ms": "1"}, "number"),
        ({"kind": "error"}, "quota_exceeded"),
        ({"kind": "error", "preset": "bad luck"}, "quota_exceeded"),
        ({"kind": "error", "status": 500, "form": "verse"}, "legacy"),
        ({"kind": "error", "status": 500, "headers": {"a": 1}}, "string"),
        ({"kind": "refuse", "first": 0}, "above 0"),
        ({"kind": "refuse", "match": "x"}, "voice_id"),
        ({"kind": "refuse", "match": {"colour": "x"}}, "voice_id"),
        ({"kind": "refuse", "match": {"text": "("}}, "not a regular expression"),
    ],
)
def test_what_is_unknown_is_refused_with_what_is_known(wanted: Any, words: str) -> None:
    with pytest.raises(InvalidControlRequest, match=words):
        parse_fault(wanted)
