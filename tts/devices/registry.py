"""The device connections of this process, and the sweep that compares them with the database."""

import asyncio
import time
import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING

import structlog

from tts.conversations import lifecycle
from tts.outbox import leases, store
from tts.protocol.messages import CLOSE_REPLACED, CLOSE_REVOKED
from tts.resilience.quota_gate import QuotaGate
from voicecare.core import metrics
from voicecare.core.database import run_in_db_thread
from voicecare.patients.models import Device

if TYPE_CHECKING:
    from tts.devices.connection import Connection

SWEEP_INTERVAL_S = 1.0
CLOSE_TIMEOUT_S = 5.0  # some servers wait in `send` for a stuck device
RENEW_EVERY_SWEEPS = 3  # every 3 s, a fifth of the lease time
HEARTBEAT_EVERY_SWEEPS = 60  # every minute; a conversation ends 30 minutes after its last heartbeat

log = structlog.get_logger(__name__)


class ConnectionRegistry:
    """All connections of one process.

    In all processes together, only one connection of a device is valid: the one whose `epoch` is that of its row.
    """

    def __init__(self, quota: QuotaGate) -> None:
        self._quota = quota
        self._connections: dict[uuid.UUID, Connection] = {}
        self._sweeps = 0

    @property
    def connections(self) -> list["Connection"]:
        return list(self._connections.values())

    async def register(self, connection: "Connection") -> None:
        """Add the connection. An older connection of the same device in this process is closed immediately."""
        former = self._connections.get(connection.device_id)
        if former is not None and former.epoch > connection.epoch:  # two handshakes finished in reverse order
            await connection.close(CLOSE_REPLACED)
            return
        self._connections[connection.device_id] = connection
        metrics.DEVICES_CONNECTED.set(len(self._connections))
        if former is not None:
            await former.close(CLOSE_REPLACED)
        await connection.on_registered()

    def wake_patient(self, patient_id: uuid.UUID) -> None:
        """Let this patient's devices look into the outbox now, without waiting for the next sweep."""
        for connection in self.connections:
            if connection.patient_id == patient_id:
                connection.wake()

    def unregister(self, connection: "Connection") -> None:
        if self._connections.get(connection.device_id) is connection:
            del self._connections[connection.device_id]
        metrics.DEVICES_CONNECTED.set(len(self._connections))

    async def run(self) -> None:
        """Sweep until cancelled. While the database is unavailable, no connection is closed."""
        while True:
            await self._quota.wait_for_change(SWEEP_INTERVAL_S)  # sweeps immediately when the quota is back
            self._sweeps += 1
            try:
                await self.sweep()
            except Exception as error:  # without further sweeps, revoked devices would stay connected
                log.warning("registry.sweep_failed", error=type(error).__name__)

    async def sweep(self) -> None:
        """Compare all connections with the database. Each step takes one or two queries.

        Revoked and replaced connections are closed, conversations that another device has resumed are detached, and
        devices with waiting deliveries are woken.
        """
        if not self._connections:
            return
        if self._sweeps % RENEW_EVERY_SWEEPS == 0:  # first, because later steps may fail
            await run_in_db_thread(leases.renew, {c.outbox.owner: c.device_id for c in self.connections})
        connections = self.connections  # a connection that is added later was checked by its own handshake
        devices = [connection.device_id for connection in connections]
        latest = await run_in_db_thread(_current_epochs, devices)
        closings = [_close_if_revoked(connection, latest.get(connection.device_id)) for connection in connections]
        await asyncio.gather(*closings)  # concurrently, because a stuck one takes seconds
        await self._sync_conversations()
        await self._dispatch_due()
        if self._sweeps % HEARTBEAT_EVERY_SWEEPS == 0:
            await run_in_db_thread(lifecycle.heartbeat, [key for key, _ in self._open_conversations()])

    async def _sync_conversations(self) -> None:
        """Detach conversations that another device has resumed. Switch those whose voice was withdrawn to the default
        voice. Takes two queries.
        """
        open_here = self._open_conversations()
        if not open_here:
            return
        ids = [conversation_id for conversation_id, _ in open_here]
        devices = await run_in_db_thread(lifecycle.current_devices, ids)
        for conversation_id, connection in open_here:
            if devices.get(conversation_id, connection.device_id) != connection.device_id:
                await connection.detach_conversation(conversation_id)
        withdrawn = await run_in_db_thread(lifecycle.with_withdrawn_voice, ids)
        for conversation_id, connection in open_here:
            if conversation_id in withdrawn:
                await connection.reset_voice(conversation_id)

    async def _dispatch_due(self) -> None:
        """Notify devices of expired speech, and wake those that have deliveries or pending writes."""
        devices = [connection.device_id for connection in self.connections]
        hold_live = self._quota.hold_remaining_s(time.monotonic()) > 0
        due = await run_in_db_thread(
            store.devices_with_work, devices, quota_exhausted=self._quota.is_exhausted, hold_live=hold_live
        )
        for connection in self.connections:
            await connection.notify_expired()
            if connection.device_id in due or connection.outbox.has_pending_writes:
                connection.wake()

    def _open_conversations(self) -> list[tuple[uuid.UUID, "Connection"]]:
        return [(c.session.conversation.context.conversation_id, c) for c in self.connections if c.session.conversation]


async def _close_if_revoked(connection: "Connection", epoch: int | None) -> None:
    """Close a connection if its device is revoked (no epoch) or has a newer connection. Never raises."""
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            if epoch is None:
                await connection.close(CLOSE_REVOKED)
            elif epoch > connection.epoch:
                await connection.close(CLOSE_REPLACED)
    except Exception:  # a broken socket must not end the sweep
        log.exception("registry.close_failed")


def _current_epochs(devices: Iterable[uuid.UUID]) -> dict[uuid.UUID, int]:
    """Return the latest epoch of each device that may still be connected."""
    rows = Device.objects.filter(
        pk__in=devices, revoked_at=None, patient__archived_at=None, patient__erased_at=None
    ).values_list("pk", "epoch")
    return dict(rows)
