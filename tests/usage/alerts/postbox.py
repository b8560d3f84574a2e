"""A small mail server and a small web server that receive alerts in tests. They can refuse and hang."""

import json
import socketserver
import threading
import time
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class _Serving:
    """Serves on a free port inside a `with` block."""

    server: socketserver.BaseServer

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, args=[0.02], daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.shutdown()
        self.server.server_close()


class Webhook(_Serving):
    """Answers with `status` after `hang_s` seconds. `received` has the messages it accepted, `bodies` all."""

    def __init__(self) -> None:
        self.status = 204
        self.hang_s = 0.0
        self.asked = 0
        self.received: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                webhook.asked += 1
                webhook.headers.append({name.lower(): value for name, value in self.headers.items()})
                body = self.rfile.read(int(self.headers["Content-Length"]))
                webhook.bodies.append(body)
                time.sleep(webhook.hang_s)
                if webhook.status < 300:
                    webhook.received.append(json.loads(body))
                self.send_response(webhook.status)
                if webhook.status in (302, 307):
                    self.send_header("Location", self.path)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook?token=secret"


class MailServer(_Serving):
    """Accepts mails unless it `refuses` the sender. `mails` has the accepted mails with their recipients."""

    def __init__(self) -> None:
        self.refuses = False
        self.mails: list[tuple[list[str], EmailMessage]] = []
        mailbox = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                recipients: list[str] = []
                self.say("220 here")
                while line := self.rfile.readline().decode().strip():
                    verb = line[:4].upper()
                    if verb == "MAIL" and mailbox.refuses:
                        self.say("451 not now")
                    elif verb == "RCPT":
                        recipients.append(line.partition("<")[2].partition(">")[0])
                        self.say("250 yes")
                    elif verb == "DATA":
                        self.say("354 go on")
                        mailbox.mails.append((recipients, self.message()))
                        self.say("250 taken")
                    elif verb == "QUIT":
                        self.say("221 bye")
                        return
                    else:
                        self.say("250 yes")

            def say(self, line: str) -> None:
                self.wfile.write(f"{line}\r\n".encode())

            def message(self) -> EmailMessage:
                lines = iter(self.rfile.readline, b".\r\n")
                return message_from_bytes(b"".join(lines), policy=policy.default)  # type: ignore[return-value]

        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
