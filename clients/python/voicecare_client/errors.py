"""The errors of the client. The text of each is meant for the owner of the device.

DeviceError
├── ServerUnreachable   no server answers at this address
├── HandshakeRefused    the server answered, but did not open a WebSocket
├── ConnectionClosed    the WebSocket was closed
├── RequestRefused      the server answered a request with an `error` frame
├── SpeechFailed        a speech could not be spoken, or not in time
└── PlayerFailed        the program that plays audio is missing or has failed
"""

from typing import Any


class DeviceError(Exception):
    """The base class of all errors of the client."""


class ServerUnreachable(DeviceError):
    def __init__(self, url: str, reason: str = "") -> None:
        super().__init__(f"No server answers at {url}{f' ({reason})' if reason else ''}.")


class HandshakeRefused(DeviceError):
    """`status` is the HTTP status. `code` and `message` are those of the server's answer.

    They are empty if the answer is not from voicecare, but for example from a proxy in front of it.
    """

    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        why = f", {code}: {message}" if code else "."
        super().__init__(f"The server refused the connection with HTTP {status}{why}")
        self.status = status
        self.code = code
        self.message = message


class ConnectionClosed(DeviceError):
    """`code` is the close code and `reason` the reason text of the server. It may be empty."""

    def __init__(self, code: int | None, reason: str = "") -> None:
        super().__init__(f"The server closed the connection with code {code}{f': {reason}' if reason else ''}.")
        self.code = code
        self.reason = reason


class RequestRefused(DeviceError):
    """`frame` is the `error` frame, with `code` and `message`."""

    def __init__(self, frame: dict[str, Any]) -> None:
        super().__init__(f"{frame.get('code')}: {frame.get('message')}")
        self.frame = frame


class SpeechFailed(DeviceError):
    """`code` is that of the frame `speech.failed`, or `expired`: the device had no connection for too long."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class PlayerFailed(DeviceError):
    pass
