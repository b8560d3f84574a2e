"""Why a handshake is refused, and what the device is told about it (docs/protocol.md, "Refusal")."""

import json
from dataclasses import dataclass

from tts.protocol.messages import CLOSE_SHUTTING_DOWN, Frame

HTTP_STATUS = 403


@dataclass(frozen=True, slots=True)
class Refusal:
    """The reason of a refused handshake.

    `code` is for programs, `message` for people. `close_code` closes the WebSocket of a browser.
    """

    code: str
    message: str
    close_code: int

    @property
    def frame(self) -> Frame:
        """The frame that tells it to a browser."""
        return {"type": "error", "code": self.code, "message": self.message}

    @property
    def body(self) -> bytes:
        """The JSON body of the HTTP response that tells it to all other devices."""
        return json.dumps({"code": self.code, "message": self.message}).encode()


WRONG_SUBPROTOCOL = Refusal("wrong_subprotocol", "Offer the subprotocol voicecare.v1.", 4400)
MISSING_TOKEN = Refusal(
    "missing_token", "Send the device token: in `Authorization: Bearer`, or in a browser as a subprotocol.", 4401
)
UNKNOWN_TOKEN = Refusal(
    "unknown_token", "No device has this token. If it was renewed, the device needs the new one.", 4401
)
REVOKED_DEVICE = Refusal("revoked_device", "The device is revoked. Add a new device in the admin.", 4403)
INACTIVE_PATIENT = Refusal("inactive_patient", "The patient of this device is archived or erased.", 4403)
UNKNOWN_PATH = Refusal("unknown_path", "There is no WebSocket at this path. Devices connect to /ws/device/.", 4404)
FORBIDDEN_ORIGIN = Refusal("forbidden_origin", "Pages of this origin may not connect: see DEVICE_ORIGINS.", 4406)
SHUTTING_DOWN = Refusal("shutting_down", "The server is shutting down. Connect again in a moment.", CLOSE_SHUTTING_DOWN)

REFUSALS = (
    *(WRONG_SUBPROTOCOL, MISSING_TOKEN, UNKNOWN_TOKEN, REVOKED_DEVICE),
    *(INACTIVE_PATIENT, UNKNOWN_PATH, FORBIDDEN_ORIGIN, SHUTTING_DOWN),
)


class HandshakeError(Exception):
    """The handshake of a device is refused."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal
