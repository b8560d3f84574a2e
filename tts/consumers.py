"""The ASGI application of a device socket: accepts or refuses it, feeds frames to its connection, and cleans up."""

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from tts.devices.close_reasons import Send
from tts.devices.connection import Connection
from tts.devices.refusing import refuse
from tts.devices.transport import DeviceTransport
from tts.protocol.handshake import SUBPROTOCOL, extract_token
from tts.protocol.refusals import (
    INACTIVE_PATIENT,
    REVOKED_DEVICE,
    SHUTTING_DOWN,
    UNKNOWN_TOKEN,
    HandshakeError,
    Refusal,
)
from tts.runtime import runtime
from voicecare.core.database import run_in_db_thread
from voicecare.patients.authentication import find_device

Message = dict[str, Any]


async def device_socket(scope: dict[str, Any], receive: Callable[[], Awaitable[Message]], send: Send) -> None:
    """Serve one device socket (docs/protocol.md).

    This is a plain ASGI application and not a consumer of Channels, for three reasons. A consumer uses a channel layer,
    so a Redis that stops would close sockets that are speaking. A consumer starts two tasks and checks the database
    connections for every frame. A consumer does not clean up after an exception or a cancellation.
    """
    connection: Connection | None = None
    try:
        while (message := await receive())["type"] != "websocket.disconnect":
            if message["type"] == "websocket.connect":
                connection = await _accept(scope, send)
                if connection is not None:
                    await runtime.registry.register(connection)
            elif connection is not None:
                await connection.receive(message.get("text"))
    finally:
        if connection is not None:
            runtime.registry.unregister(connection)
            await connection.on_disconnect()


async def _accept(scope: dict[str, Any], send: Send) -> Connection | None:
    """Accept the socket and return its connection, or refuse it and return None."""
    try:
        token = extract_token(scope, settings.ALLOWED_HOSTS, settings.DEVICE_ORIGINS)
    except HandshakeError as error:
        await refuse(scope, send, error.refusal)
        return None
    admitted = None if runtime.draining else await run_in_db_thread(_admit, token)
    if admitted is None or runtime.draining:
        await refuse(scope, send, SHUTTING_DOWN)
        return None
    if isinstance(admitted, Rejected):
        await refuse(scope, send, admitted.refusal, admitted.device_id)
        return None
    await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL})
    return Connection(DeviceTransport(send), runtime.dependencies, *admitted)


@dataclass(frozen=True, slots=True)
class Rejected:
    """The token is not accepted. `device_id` is None if no device has it."""

    refusal: Refusal
    device_id: uuid.UUID | None = None


def _admit(token: str) -> tuple[uuid.UUID, int, uuid.UUID] | Rejected:
    """Register a new connection of the device with this token, or record why it may not connect.

    The result is the device's id, the number of the new connection (`Device.epoch`) and the patient's id.
    """
    device = find_device(token)
    if device is None:
        return Rejected(UNKNOWN_TOKEN)
    if device.can_connect:
        return device.id, device.register_connection(), device.patient_id
    refusal = INACTIVE_PATIENT if device.revoked_at is None else REVOKED_DEVICE
    device.record_refusal(refusal.code)
    return Rejected(refusal, device.id)
