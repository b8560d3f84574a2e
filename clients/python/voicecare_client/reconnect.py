"""When to connect again: the table of docs/write-a-device.md."""

import random
from collections.abc import Iterator
from enum import Enum, auto

from voicecare_client.errors import ConnectionClosed, DeviceError, HandshakeRefused

FIRST_DELAY_S, MAX_DELAY_S = 1.0, 30.0
REPLACED, REVOKED, TOO_MANY_ERRORS, TOO_BIG, SHUTTING_DOWN = 4001, 4003, 4008, 4009, 4012
_SHUTTING_DOWN_CODE = "shutting_down"


class Reconnect(Enum):
    BACKOFF = auto()  # after a random part of 1 s, 2 s, 4 s and so on
    SOON = auto()  # after a random part of 1 s: another process is there, or will be soon
    NEVER = auto()  # a person has to change something first


def reconnect_after(error: DeviceError) -> Reconnect:
    """Return whether to connect again after this error. Close codes from 4400 to 4499 that are unknown are refusals."""
    match error:
        case ConnectionClosed(code=code) if code == SHUTTING_DOWN:
            return Reconnect.SOON
        case ConnectionClosed(code=code) if code in (REPLACED, REVOKED) or 4400 <= (code or 0) < 4500:
            return Reconnect.NEVER
        case HandshakeRefused(code=code) if code == _SHUTTING_DOWN_CODE:
            return Reconnect.SOON
        case HandshakeRefused(code=code) if code:
            return Reconnect.NEVER
    return Reconnect.BACKOFF


def backoff() -> Iterator[float]:
    """Yield the seconds to wait before each attempt: a random part of 1 s, 2 s, 4 s, ..., 30 s.

    The random part keeps many devices from connecting in the same moment.
    """
    longest = FIRST_DELAY_S
    while True:
        yield random.uniform(0, longest)  # noqa: S311 - not a secret
        longest = min(2 * longest, MAX_DELAY_S)
