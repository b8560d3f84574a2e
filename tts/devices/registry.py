"""The live device connections of this process, and the rows that decide whether they may stay."""

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
CLOSE_TIMEOUT_S = 5.0  # for a server whose `send` waits for a stuck device
RENEW_EVERY_SWEEPS = 3  # sweeps; a fifth of the lease of what the connections hold
HEARTBEAT_EVERY_SWEEPS = 60  # sweeps; far below the 30 minutes after which an unseen conversation ends

log = structlog.get_logger(__name__)


class ConnectionRegistry:
    """One for each process. A device has one live socket anywhere: the row's `epoch` names the latest."""

    def __init__(self, quota: QuotaGate) -> None:
        self._quota = quota
        self._connections: dict[uuid.UUID, Connection] = {}
        self._sweeps = 0

    @property
    def connections(self) -> list["Connection"]:
        return list(self._connections.values())

    async def register(self, connection: "Connection") -> None:
        """Admits the connection; an older one of the same device in this process is replaced at once."""
        former = self._connections.get(connection.device_id)
        if former is not None and former.epoch > connection.epoch:  # two handshakes overtook each other
            await connection.close(CLOSE_REPLACED)
            return
        self._connections[connection.device_id] = connection
        metrics.DEVICES_CONNECTED.set(len(self._connections))
        if former is not None:
            await former.close(CLOSE_REPLACED)
        await connection.on_registered()

    def wake_patient(self, patient: uuid.UUID) -> None:
        """Something waits for this patient: their devices here look at once, without waiting for the sweep."""
        for connection in self.connections:
            if connection.patient_id == patient:
                connection.wake()

    def unregister(self, connection: "Connection") -> None:
        if self._connections.get(connection.device_id) is connection:
            del self._connections[connection.device_id]
        metrics.DEVICES_CONNECTED.set(len(self._connections))

    async def run(self) -> None:
        """Sweeps until cancelled. A database that is away closes nobody: the next sweep looks again."""
        while True:
            await self._quota.wait_for_change(SWEEP_INTERVAL_S)  # what waits for it is looked at when it is back
            self._sweeps += 1
            try:
                await self.sweep()
            except Exception as error:  # whatever it is: who stops sweeping lets revoked devices stay
                log.warning("hub.sweep_failed", error=type(error).__name__)

    async def sweep(self) -> None:
        """Who may not stay, who has lost their conversation, for whom something waits: a query or two for each."""
        if not self._connections:
            return
        if self._sweeps % RENEW_EVERY_SWEEPS == 0:  # before all that could fail
            await run_in_db_thread(leases.renew, {c.outbox.owner: c.device_id for c in self.connections})
        looked_at = self.connections  # one that comes while we ask was looked at by its own handshake
        devices = [connection.device_id for connection in looked_at]
        latest = await run_in_db_thread(_current_epochs, devices)
        closings = [_close_if_revoked(connection, latest.get(connection.device_id)) for connection in looked_at]
        await asyncio.gather(*closings)  # together: one that is stuck takes seconds, and all have two
        await self._revoke_conversations()
        await self._dispatch_due()
        if self._sweeps % HEARTBEAT_EVERY_SWEEPS == 0:
            await run_in_db_thread(lifecycle.heartbeat, [key for key, _ in self._open_conversations()])

    async def _revoke_conversations(self) -> None:
        """A conversation that another device of its patient has resumed is over on the former one; one whose voice was
        withdrawn goes on in the default voice. Two queries.
        """
        held = self._open_conversations()
        if held:
            holders = await run_in_db_thread(lifecycle.current_devices, [key for key, _ in held])
            for conversation, connection in held:
                if holders.get(conversation, connection.device_id) != connection.device_id:
                    await connection.detach_conversation(conversation)
            withdrawn = await run_in_db_thread(lifecycle.with_withdrawn_voice, [key for key, _ in held])
            for conversation, connection in held:
                if conversation in withdrawn:
                    await connection.reset_voice(conversation)

    async def _dispatch_due(self) -> None:
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
    """Closes it if its device may not be connected (no epoch) or is connected elsewhere. Never raises."""
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            if epoch is None:
                await connection.close(CLOSE_REVOKED)
            elif epoch > connection.epoch:
                await connection.close(CLOSE_REPLACED)
    except Exception:  # a socket that broke meanwhile must not end the sweeps
        log.exception("hub.close_failed")


def _current_epochs(devices: Iterable[uuid.UUID]) -> dict[uuid.UUID, int]:
    """The epochs of those devices that may still be connected."""
    rows = Device.objects.filter(
        pk__in=devices, revoked_at=None, patient__archived_at=None, patient__erased_at=None
    ).values_list("pk", "epoch")
    return dict(rows)
