"""The table of docs/write-a-device.md: when to connect again."""

from itertools import islice

import pytest

from voicecare_client import ConnectionClosed, HandshakeRefused, ServerUnreachable
from voicecare_client.reconnect import Reconnect, backoff, reconnect_after


@pytest.mark.parametrize(
    ("error", "reconnect"),
    [
        (ServerUnreachable("ws://localhost/"), Reconnect.BACKOFF),
        *((ConnectionClosed(code), Reconnect.BACKOFF) for code in (None, 1000, 1001, 1006, 1011, 4008, 4009, 4500)),
        *((ConnectionClosed(code), Reconnect.NEVER) for code in (4001, 4003, 4400, 4401, 4403, 4404, 4406, 4499)),
        (ConnectionClosed(4012), Reconnect.SOON),
        *((HandshakeRefused(status), Reconnect.BACKOFF) for status in (400, 403, 502, 503)),
        (HandshakeRefused(403, "shutting_down", ""), Reconnect.SOON),
        *(
            (HandshakeRefused(403, code, ""), Reconnect.NEVER)
            for code in ("unknown_token", "missing_token", "revoked_device", "inactive_patient", "wrong_subprotocol")
        ),
        *((HandshakeRefused(403, code, ""), Reconnect.NEVER) for code in ("unknown_path", "forbidden_origin", "new")),
    ],
)
def test_who_connects_again(error, reconnect):
    assert reconnect_after(error) is reconnect


def test_the_delays_grow_to_30_s_and_are_random():
    rounds = [list(islice(backoff(), 8)) for _ in range(300)]
    longest = [max(delays) for delays in zip(*rounds, strict=True)]
    for delay, limit in zip(longest, (1, 2, 4, 8, 16, 30, 30, 30), strict=True):
        assert limit * 0.9 < delay <= limit
    assert len({delays[0] for delays in rounds}) == len(rounds)
