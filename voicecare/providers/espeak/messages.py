"""The messages between the server process and its espeak worker, over the worker's stdin and stdout.

    kind u8 | stream u32 | length u32 | body of `length` bytes        little-endian

    to the worker   SPEAK   the Request as JSON. `stream` is a new number that the parent chooses.
                    CREDIT  u32, the number of consumed bytes. The worker may send as many bytes again.
                    CANCEL  empty. The worker drops the stream and can still send audio that was in progress.
    to the parent   READY   stream 0, empty. The library is loaded and the worker accepts requests.
                    AUDIO   encoded audio
                    END     empty. The stream is complete.

The credit of a stream is the number of bytes that the worker may send. It starts with WINDOW_BYTES, and the worker
stops making audio when it is used up. The last piece may exceed it. So the audio that is buffered in the parent is
limited. EOF on stdin ends the worker.
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
    """A request for one speech.

    The fields are those of `client.EspeakVoice` and the arguments of `OfflineSynthesizer.speak`.
    """

    text: str
    as_written: bool
    apologize: bool
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
    """Splits the bytes that are read from a pipe into messages.

    The start of an incomplete message is kept for the next read.
    """

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
