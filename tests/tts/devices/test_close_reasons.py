"""The reason of a close frame and of a refused handshake, through any ASGI server. tests/e2e has daphne."""

import json
from functools import partial
from typing import Any

from autobahn.twisted.websocket import WebSocketServerProtocol
from autobahn.websocket.protocol import WebSocketServerProtocol as BaseProtocol
from structlog.testing import capture_logs

from tts.devices import close_reasons
from tts.protocol.messages import CLOSE_REASONS, CLOSE_REPLACED
from tts.protocol.refusals import REVOKED_DEVICE


class Server:
    """Collects what the application sends."""

    def __init__(self, *extensions: str) -> None:
        self.scope: dict[str, Any] = {"type": "websocket", "extensions": {name: {} for name in extensions}}
        self.messages: list[dict[str, Any]] = []

    async def send(self, message: dict[str, Any]) -> None:
        self.messages.append(message)


async def test_a_close_frame_has_a_reason():
    server = Server()
    await close_reasons.close(server.send, CLOSE_REPLACED)
    reason = CLOSE_REASONS[CLOSE_REPLACED]
    assert server.messages == [{"type": "websocket.close", "code": CLOSE_REPLACED, "reason": reason}]


async def test_a_server_with_the_extension_sends_the_reason_of_a_refusal():
    """As uvicorn and hypercorn have it."""
    server = Server("websocket.http.response")
    await close_reasons.deny(server.scope, server.send, REVOKED_DEVICE)
    start, body = server.messages
    assert start["type"] == "websocket.http.response.start"
    assert start["status"] == 403
    assert (b"content-type", b"application/json") in start["headers"]
    assert (b"content-length", str(len(body["body"])).encode()) in start["headers"]
    assert body["type"] == "websocket.http.response.body"
    assert json.loads(body["body"]) == {"code": "revoked_device", "message": REVOKED_DEVICE.message}


async def test_a_server_without_the_extension_refuses_without_a_reason():
    for scope in (Server().scope, {"type": "websocket", "extensions": None}, {"type": "websocket"}):
        server = Server()
        await close_reasons.deny(scope, server.send, REVOKED_DEVICE)
        assert server.messages == [{"type": "websocket.close"}]


async def test_without_autobahns_methods_daphnes_own_way_remains(monkeypatch):
    """A new version of autobahn may rename a method."""
    monkeypatch.delattr(BaseProtocol, "sendHttpErrorResponse")
    with capture_logs() as logs:
        close_reasons.check()
    assert logs == [{"event": "close_reasons.unavailable", "missing": ["sendHttpErrorResponse"], "log_level": "error"}]
    server = Server()

    async def handle_reply(protocol: object, message: dict[str, Any]) -> None:
        server.messages.append(message)

    send = partial(handle_reply, WebSocketServerProtocol())
    await close_reasons.deny(server.scope, send, REVOKED_DEVICE)
    await close_reasons.close(send, CLOSE_REPLACED)
    assert [message["type"] for message in server.messages] == ["websocket.close"] * 2


def test_the_installed_autobahn_has_all_methods():
    with capture_logs() as logs:
        close_reasons.check()
    assert logs == []
