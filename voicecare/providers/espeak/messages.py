"""The messages between a process that speaks and its espeak child, over the child's stdin and stdout.

    kind u8 | stream u32 | length u32 | body of `length` bytes        little-endian

    to the child    SPEAK   the Request as JSON; `stream` is a new number, chosen by the parent
                    CREDIT  u32: so many bytes of the stream were consumed and may be sent anew
                    CANCEL  empty; the child forgets the stream and may still send what was under way
    to the parent   READY   stream 0, empty: the library is loaded, speech can be asked for
                    AUDIO   encoded sound
                    END     empty: the stream is complete

A stream begins with a credit of WINDOW bytes; the child stops making its sound when that is used up (the last piece
may exceed it), so what waits in the parent is bounded. EOF on stdin ends the child.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import NamedTuple

SPEAK, CREDIT, CANCEL, READY, AUDIO, END = range(1, 7)
WINDOW_BYTES = 256 * 1024
_HEADER = struct.Struct("<BII")
_AMOUNT = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Request:
    """What to speak: a BCP 47 language, espeak's variant, pitch 0..99, rate in words a minute, seconds ahead."""

    text: str
    language: str
    variant: str
    pitch: int
    rate: int
    format_name: str
    max_lead_s: float | None


class Message(NamedTuple):
    kind: int
    stream: int
    body: bytes


def pack(kind: int, stream: int, body: bytes = b"") -> bytes:
    return _HEADER.pack(kind, stream, len(body)) + body


def pack_request(stream: int, request: Request) -> bytes:
    return pack(SPEAK, stream, json.dumps(asdict(request)).encode())


def unpack_request(body: bytes) -> Request:
    return Request(**json.loads(body))


def pack_credit(stream: int, amount: int) -> bytes:
    return pack(CREDIT, stream, _AMOUNT.pack(amount))


def unpack_credit(body: bytes) -> int:
    amount: int = _AMOUNT.unpack(body)[0]
    return amount


class MessageParser:
    """Cuts what was read from a pipe into messages; a part of one waits for the next read."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Message]:
        data, at = self._rest + data, 0
        while at + _HEADER.size <= len(data):
            kind, stream, length = _HEADER.unpack_from(data, at)
            end = at + _HEADER.size + length
            if end > len(data):
                break
            yield Message(kind, stream, data[at + _HEADER.size : end])
            at = end
        self._rest = data[at:]
