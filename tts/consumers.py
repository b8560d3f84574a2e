"""The Channels shell around a device's connection: accept or refuse, frames in, clean up."""

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from channels.consumer import get_handler_name
from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings

from tts.devices.connection import Connection
from tts.devices.transport import DeviceTransport
from tts.protocol.handshake import SUBPROTOCOL, extract_token
from tts.runtime import runtime
from voicecare.core.database import run_in_db_thread
from voicecare.patients.authentication import authenticate_device


class DeviceConsumer(AsyncWebsocketConsumer):
    """One device socket. It has no channel layer: a Redis that stops would close sockets that are speaking."""

    connection: Connection | None = None

    async def __call__(
        self, scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        """Channels' own loop also waits for a channel layer and starts two tasks for every frame; here is one source.

        The clean-up stands here because Channels calls `disconnect` neither after an exception nor when it is
        cancelled.
        """
        self.scope, self.base_send = scope, send
        try:
            while True:
                await self.dispatch(await receive())
        except StopConsumer:
            pass
        finally:
            if self.connection is not None:
                runtime.registry.unregister(self.connection)
                await self.connection.on_disconnect()

    async def dispatch(self, message: dict[str, Any]) -> None:
        """Without Channels' look at the database connections before each event: no handler here has one."""
        await getattr(self, get_handler_name(message))(message)

    async def connect(self) -> None:
        """Refused before accept, which the server turns into HTTP 403."""
        token = extract_token(self.scope, settings.ALLOWED_HOSTS)
        admitted = None
        if token is not None and not runtime.draining:
            admitted = await run_in_db_thread(_admit, token)
        if admitted is None or runtime.draining:
            await self.close()
            return
        await self.accept(SUBPROTOCOL)
        self.connection = Connection(DeviceTransport(self.base_send), runtime.dependencies, *admitted)
        await runtime.registry.register(self.connection)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if self.connection is not None:
            await self.connection.receive(text_data)


def _admit(token: str) -> tuple[uuid.UUID, int, uuid.UUID] | None:
    """The device behind the token, the epoch of this connection and whom it belongs to."""
    device = authenticate_device(token)
    return None if device is None else (device.id, device.register_connection(), device.patient_id)
