"""Sends the messages of one channel through a child process (`worker`), which has a time limit.

Apprise waits for its services as long as they send something, and loading it takes a second of processor time. In a
child process neither can disturb live speech, and a service that hangs ends with the process.
"""

import json
import os
import selectors
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, Self, cast

START_TIMEOUT_S = 20.0  # loads Apprise, also on a busy machine
SEND_TIMEOUT_S = 10.0
_ROOT = Path(__file__).resolve().parents[3]
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")  # all that is passed on of the environment

MessageType = Literal["info", "success", "warning", "failure"]


class ChannelFailed(Exception):
    """The message was not sent. The text says why, in a sentence without any part of the address."""


class Sender:
    """Use it in a `with` block. Nothing is started before the first call. `url` is the address of the channel."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def check(self) -> None:
        """Start the child process and raise ChannelFailed if the address cannot be used. Nothing is sent."""
        if self._child is None:
            environment = {name: os.environ[name] for name in _CERTIFICATES if name in os.environ}
            self._child = subprocess.Popen(
                [sys.executable, "-m", "usage.alerts.notifications.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=_ROOT,
                env=environment,
                start_new_session=True,  # Ctrl-C must reach the parent only
            )
            if problem := self._ask({"url": self._url}, START_TIMEOUT_S, "The service could not be started.")[
                "problem"
            ]:
                raise ChannelFailed(problem)

    def send(self, title: str, body: str, kind: MessageType) -> None:
        """Send one message. Raises ChannelFailed, after SEND_TIMEOUT_S if the service does not answer."""
        self.check()
        late = f"The service did not answer within {SEND_TIMEOUT_S:g} s."
        if error := self._ask({"title": title, "body": body, "type": kind}, SEND_TIMEOUT_S, late)["error"]:
            raise ChannelFailed(error)

    def _ask(self, request: dict[str, str], timeout_s: float, late: str) -> dict[str, str]:
        """Write one line and read one. A process that is late or has ended is stopped, because its lines are lost."""
        child = cast("subprocess.Popen[bytes]", self._child)
        stdin, stdout = cast(IO[bytes], child.stdin), cast(IO[bytes], child.stdout)
        deadline = time.monotonic() + timeout_s
        received = b""
        with selectors.DefaultSelector() as selector, suppress(BrokenPipeError):
            selector.register(stdout, selectors.EVENT_READ)
            stdin.write(json.dumps(request).encode() + b"\n")
            stdin.flush()
            while selector.select(max(deadline - time.monotonic(), 0)):
                part = os.read(stdout.fileno(), 65536)
                received += part
                if received.endswith(b"\n"):
                    answer: dict[str, str] = json.loads(received)
                    return answer
                if not part:
                    break
        has_ended = child.poll() is not None
        self._stop()
        raise ChannelFailed("The process that sends the message has ended." if has_ended else late)

    def _stop(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None
