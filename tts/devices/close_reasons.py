"""How a WebSocket is closed and a handshake refused, so that the device is told the reason.

ASGI has both: `reason` in the message `websocket.close`, and the extension `websocket.http.response` for the response
to a refused handshake (https://asgi.readthedocs.io/en/latest/extensions.html). daphne 4.2 has neither: it drops the
reason, and refuses with an empty HTTP 403. So under daphne the methods of its base class are used, which are public in
autobahn: `sendClose`, `sendHttpErrorResponse` and `sendData` of `WebSocketServerProtocol`. If a version lacks one of
them, daphne's own way remains, without the reason. `check` reports that at process start.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog
from autobahn.twisted.websocket import WebSocketServerProtocol

from tts.protocol.messages import CLOSE_REASONS
from tts.protocol.refusals import HTTP_STATUS, Refusal

Send = Callable[[dict[str, Any]], Awaitable[None]]

DENIAL_EXTENSION = "websocket.http.response"
_METHODS = ("sendClose", "sendHttpErrorResponse", "sendData")

log = structlog.get_logger(__name__)


def check() -> None:
    """Log `close_reasons.unavailable` if the installed autobahn lacks a method. Call it at process start."""
    missing = [name for name in _METHODS if not hasattr(WebSocketServerProtocol, name)]
    if missing:
        log.error("close_reasons.unavailable", missing=missing)


async def close(send: Send, code: int) -> None:
    """Close an accepted WebSocket with this close code and its reason."""
    reason = CLOSE_REASONS[code]
    protocol = _daphne_protocol(send)
    if protocol is None:
        await send({"type": "websocket.close", "code": code, "reason": reason})
    else:
        protocol.sendClose(code=code, reason=reason)


async def deny(scope: Mapping[str, Any], send: Send, refusal: Refusal) -> None:
    """Refuse a handshake that was not accepted yet, with HTTP 403 and the reason as JSON."""
    headers = {"Content-Type": "application/json", "Content-Length": str(len(refusal.body))}
    if DENIAL_EXTENSION in (scope.get("extensions") or {}):
        encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await send({"type": f"{DENIAL_EXTENSION}.start", "status": HTTP_STATUS, "headers": encoded})
        await send({"type": f"{DENIAL_EXTENSION}.body", "body": refusal.body})
        return
    protocol = _daphne_protocol(send)
    if protocol is None:
        await send({"type": "websocket.close"})  # the server answers HTTP 403
        return

    def respond(code: int, reason: str, _: object = None) -> None:
        """In place of autobahn's method of this name, which sends no body."""
        lines = [f"HTTP/1.1 {code} {reason}", *(f"{name}: {value}" for name, value in headers.items())]
        head = "\r\n".join([*lines, "Connection: close", "", ""])
        protocol.sendData(head.encode() + refusal.body)

    protocol.sendHttpErrorResponse = respond
    try:
        await send({"type": "websocket.close"})  # daphne calls the method before this returns
    finally:
        del protocol.sendHttpErrorResponse  # a reference cycle with `respond`


def _daphne_protocol(send: object) -> Any:  # noqa: ANN401 - autobahn has no types
    """Return daphne's protocol behind an ASGI `send`, or None. daphne's `send` is a `functools.partial` with it."""
    protocol = next(iter(getattr(send, "args", ())), None)
    is_usable = isinstance(protocol, WebSocketServerProtocol) and all(hasattr(protocol, name) for name in _METHODS)
    return protocol if is_usable else None
