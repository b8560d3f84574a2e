"""Refuses handshakes: tells the device why, and counts and logs it."""

import time
import uuid
from collections import Counter
from collections.abc import Mapping
from typing import Any

import structlog

from tts.devices import close_reasons
from tts.devices.close_reasons import Send
from tts.devices.transport import encode_frame
from tts.protocol.handshake import is_browser, subprotocol_for_refusal
from tts.protocol.refusals import Refusal
from voicecare.core import metrics

LOG_INTERVAL_S = 10.0  # anybody can open connections, so one reason is logged at most once in this time

log = structlog.get_logger(__name__)


class RefusalLog:
    """Logs refused handshakes with their reason. A line has the number of refusals since the last line."""

    def __init__(self) -> None:
        self._unlogged: Counter[str] = Counter()
        self._logged_at: dict[str, float] = {}

    def add(self, code: str, device_id: uuid.UUID | None, now: float) -> None:
        """`now` is in seconds of `time.monotonic`."""
        self._unlogged[code] += 1
        if now - self._logged_at.get(code, -LOG_INTERVAL_S) >= LOG_INTERVAL_S:
            self._logged_at[code] = now
            count = self._unlogged.pop(code)
            log.info("handshake.refused", reason=code, count=count, device=device_id and str(device_id))


_refusal_log = RefusalLog()


async def refuse(scope: Mapping[str, Any], send: Send, refusal: Refusal, device_id: uuid.UUID | None = None) -> None:
    """Refuse the handshake. `device_id` is the device, if its token is known.

    A page in a browser cannot read the response to a refused handshake. So its WebSocket is accepted, and closed after
    an `error` frame. All others get an HTTP response.
    """
    metrics.HANDSHAKES_REFUSED.labels(refusal.code).inc()
    _refusal_log.add(refusal.code, device_id, time.monotonic())
    if is_browser(scope):
        await send({"type": "websocket.accept", "subprotocol": subprotocol_for_refusal(scope)})
        await send({"type": "websocket.send", "text": encode_frame(refusal.frame)})
        await close_reasons.close(send, refusal.close_code)
    else:
        await close_reasons.deny(scope, send, refusal)
