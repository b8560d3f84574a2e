"""Refused handshakes are logged with their reason, but not each one. tests/e2e/test_refusals.py has the rest."""

import uuid

from structlog.testing import capture_logs

from tts.devices.refusing import LOG_INTERVAL_S, RefusalLog


def test_the_log_of_refusals_stays_small():
    device = uuid.uuid4()
    refusals = RefusalLog()
    with capture_logs() as lines:
        for number in range(1000):
            refusals.add("unknown_token", None, now=number * LOG_INTERVAL_S / 1000)
        refusals.add("revoked_device", device, now=LOG_INTERVAL_S)
        refusals.add("unknown_token", None, now=LOG_INTERVAL_S)
        refusals.add("unknown_token", None, now=3 * LOG_INTERVAL_S)
    assert [(line["reason"], line["count"], line["device"]) for line in lines] == [
        ("unknown_token", 1, None),
        ("revoked_device", 1, str(device)),
        ("unknown_token", 1000, None),
        ("unknown_token", 1, None),
    ]
