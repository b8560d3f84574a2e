"""The ASGI application of a device socket: accepts or refuses it, feeds frames to its connection, and cleans up."""

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from django.conf import settings

from tts.devices.connection import Connection
from tts.devices.transport import DeviceTransport
from tts.protocol.handshake import SUBPROTOCOL, extract_token
from tts.runtime import runtime
from voicecare.core.database import run_in_db_thread
from voicecare.patients.authentication import authenticate_device

Message = dict[str, Any]
Send = Callable[[Message], Awaitable[None]]


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
    """Accept the socket and return its connection, or refuse it and return None.

    The server answers a refused handshake with HTTP 403.
    """
    token = extract_token(scope, settings.ALLOWED_HOSTS)
    admitted = None
    if token is not None and not runtime.draining:
        admitted = await run_in_db_thread(_admit, token)
    if admitted is None or runtime.draining:
        await send({"type": "websocket.close"})
        return None
    await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL})
    return Connection(DeviceTransport(send), runtime.dependencies, *admitted)


def _admit(token: str) -> tuple[uuid.UUID, int, uuid.UUID] | None:
    """Register a new connection of the device with this token. Return None if the token is not valid.

    The result is the device's id, the number of the new connection (`Device.epoch`) and the patient's id.
    """
    device = authenticate_device(token)
    return None if device is None else (device.id, device.register_connection(), device.patient_id)
