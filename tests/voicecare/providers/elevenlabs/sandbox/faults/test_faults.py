"""Matching of faults and validation of their JSON, without a socket."""

from typing import Any

import pytest

from voicecare.providers.elevenlabs.sandbox.faults.faults import (
    FaultRegistry,
    InvalidControlRequest,
    RequestInfo,
    parse_fault,
)


def matched_faults(registry: FaultRegistry, times: int) -> list[int]:
    request = RequestInfo("/v1/text-to-speech/v", "POST")
    return [fault.id if (fault := registry.find_for(request)) else 0 for _ in range(times)]


def test_the_first_matching_fault_is_applied() -> None:
    registry = FaultRegistry()
    registry.add({"kind": "refuse", "first": 2})
    registry.add({"kind": "empty", "first": 1})
    assert matched_faults(registry, 4) == [1, 1, 2, 0]


def test_every_and_first_limit_a_fault() -> None:
    registry = FaultRegistry()
    registry.add({"kind": "refuse", "every": 2, "first": 2})
    assert matched_faults(registry, 6) == [0, 1, 0, 1, 0, 0]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"kind": "explode"}, "stall_middle"),
        ([], "A fault must be an object"),
        ({"kind": "refuse", "after_bytes": 1}, "after_bytes. Known: kind, match"),
        ({"kind": "cut"}, "after_bytes, after_ms"),
        ({"kind": "prefix", "hex": "xyz"}, "hexadecimal"),
        ({"kind": "prefix", "hex": 5}, "string"),
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
def test_an_invalid_fault_is_rejected_with_the_valid_names(body: Any, message: str) -> None:
    with pytest.raises(InvalidControlRequest, match=message):
        parse_fault(body)
