"""A web server of an integrator. It checks each signature, and it can refuse, hang, die and redirect."""

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from standardwebhooks import Webhook, WebhookVerificationError

DIE, DRIP = -1, -2
"""Instead of a status: close the connection without a response, and send the header one byte at a time."""


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # connections that wait to be accepted; five are too few for 80 at the same time


class Receiver:
    """Serves on a free port inside a `with` block.

    `answer` gets the number of the request, from 1, and returns the status of the response. `messages` has the id and
    the body of each message with status 2xx, in order. `forged` counts wrong signatures with `secret`.
    """

    def __init__(self, secret: str = "") -> None:
        self.secret = secret
        self.answer: Callable[[int], int] = lambda _: 204
        self.hang_s = 0.0
        self.body = b""
        self.asked = 0
        self.forged = 0
        self.headers: list[dict[str, str]] = []
        self.messages: list[tuple[str, dict[str, Any]]] = []
        self.paths: list[str] = []
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.handle(self)

            def log_message(self, format: str, *args: object) -> None: ...

        self.server = _Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/hooks"

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in request.headers.items()}
        with self._lock:
            self.asked += 1
            status = self.answer(self.asked)
            self.headers.append(headers)
            self.paths.append(request.path)
            if self.secret and not is_signed(self.secret, body, headers):
                self.forged += 1
            if 200 <= status < 300:
                self.messages.append((headers["webhook-id"], json.loads(body)))
        time.sleep(self.hang_s)
        if status == DIE:
            request.close_connection = True
            return
        if status == DRIP:
            for byte in b"HTTP/1.1 200 OK" + b" " * 100:
                request.wfile.write(bytes([byte]))
                time.sleep(0.05)
        request.send_response(status)
        if 300 <= status < 400:
            request.send_header("Location", "/elsewhere")
        request.send_header("Content-Length", str(len(self.body)))
        request.end_headers()
        request.wfile.write(self.body)

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, args=[0.02], daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.shutdown()
        self.server.server_close()


def is_signed(secret: str, body: bytes, headers: dict[str, str]) -> bool:
    try:
        Webhook(secret).verify(body, headers)
    except WebhookVerificationError:
        return False
    return True
