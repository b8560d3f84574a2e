"""The device connections of this process.

A sweep reads the database once a second. It closes the connections of revoked devices and of devices that have
connected again, and wakes the connections that have speech to play.
"""

import asyncio
import math
import time
import uuid
from collections.abc import Iterable
from itertools import chain
from typing import TYPE_CHECKING

import structlog

from tts.conversations import lifecycle, takeover
from tts.outbox import leases, store
from tts.protocol.messages import CLOSE_REPLACED, CLOSE_REVOKED
from tts.resilience.quota_gate import QuotaGate
from voicecare.core import metrics
from voicecare.core.database import own_db_thread, run_in_db_thread
from voicecare.patients.models import Device

if TYPE_CHECKING:
    from tts.devices.connection import Connection

SWEEP_INTERVAL_S = 1.0
CLOSE_TIMEOUT_S = 5.0  # some servers wait in `send` for a stuck device
REVOKED = math.inf  # later than every epoch: the device may not be connected
RENEW_INTERVAL_S = leases.LEASE_S / 5
VOICE_SEARCH_INTERVAL_S = 5.0  # until another voice is searched again for conversations that got none
HEARTBEAT_INTERVAL_S = 60.0  # a conversation ends 30 minutes after its last heartbeat

log = structlog.get_logger(__name__)


class ConnectionRegistry:
    """All device connections of one process.

    Of all connections of a device, in all processes, only the newest is valid: `epoch` is its number in the device's
    row.
    """

    def __init__(self, quota: QuotaGate) -> None:
        self._quota = quota
        self._connections: dict[uuid.UUID, Connection] = {}
        self._renewed_at = self._heartbeat_at = time.monotonic()
        self._next_search_at: dict[uuid.UUID, float] = {}  # by voice: those that stay because there is no other

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
        """Make this patient's devices look into the outbox now, without waiting for the next sweep."""
        for connection in self.connections:
            if connection.patient_id == patient_id:
                connection.wake()

    def unregister(self, connection: "Connection") -> None:
        if self._connections.get(connection.device_id) is connection:
            del self._connections[connection.device_id]
        metrics.DEVICES_CONNECTED.set(len(self._connections))

    async def run(self) -> None:
        """Compare the connections with the database every second (`sweep`), until cancelled.

        While the database is unavailable, no connection is closed.
        """
        while True:
            await self._quota.wait_for_change(SWEEP_INTERVAL_S)  # sweeps immediately when the quota is back
            try:
                await self.sweep()
            except Exception as error:  # without further sweeps, revoked devices would stay connected
                log.warning("registry.sweep_failed", error=type(error).__name__)

    async def keep_alive(self) -> None:
        """Renew the leases of the connections until cancelled.

        This task has its own interval and its own database thread. So slow sweeps and busy database threads do not
        delay it, and no other connection takes over speech that is playing on this process.
        """
        async with own_db_thread("leases"):
            while True:
                await asyncio.sleep(RENEW_INTERVAL_S)
                try:
                    await self.renew()
                except Exception as error:  # after any error the next renewal may succeed
                    log.warning("registry.renew_failed", error=type(error).__name__)

    async def renew(self) -> None:
        """Renew the leases of all connections, and every minute the heartbeats of their conversations.

        If this renewal is late, the leases may have expired. Then each delivery that is playing is checked, and it is
        stopped if another connection has claimed it.
        """
        now = time.monotonic()
        connections = self.connections
        await run_in_db_thread(leases.renew, {c.outbox.owner: c.device_id for c in connections})
        is_late = now - self._renewed_at > leases.LEASE_S
        self._renewed_at = now
        if is_late:
            for connection in connections:
                if connection.session.queue.playing is not None:
                    connection.stop_lost_delivery()
        if now - self._heartbeat_at >= HEARTBEAT_INTERVAL_S:
            await run_in_db_thread(lifecycle.heartbeat, [key for key, _ in self._open_conversations()])
            self._heartbeat_at = now

    async def sweep(self) -> None:
        """Compare all connections with the database, in steps of one or two queries each.

        Revoked and replaced connections are closed. Conversations that another device has resumed are detached. Devices
        with waiting deliveries are woken.
        """
        if not self._connections:
            return
        connections = self.connections  # a connection that is added later was checked by its own handshake
        devices = [connection.device_id for connection in connections]
        latest = await run_in_db_thread(_current_epochs, devices)
        # Only these few get a task. One for each connection would delay the audio of all.
        outdated = [c for c in connections if latest.get(c.device_id, REVOKED) > c.epoch]
        closings = [_close_outdated(connection, latest.get(connection.device_id)) for connection in outdated]
        await asyncio.gather(*closings)  # concurrently, because closing a stuck connection takes seconds
        for step in (self._sync_conversations, self._notify_expired, self._dispatch_due):
            await asyncio.sleep(0)  # lets audio be sent first: a step takes milliseconds with thousands of connections
            await step()

    async def _sync_conversations(self) -> None:
        """Detach conversations that another device has resumed. Takes two queries.

        Conversations whose voice or backup voice cannot be used any longer get another one, with a few more queries.
        """
        open_here = self._open_conversations()
        if not open_here:
            return
        ids = [conversation_id for conversation_id, _ in open_here]
        devices = await run_in_db_thread(lifecycle.current_devices, ids)
        for conversation_id, connection in open_here:
            if devices.get(conversation_id, connection.device_id) != connection.device_id:
                connection.detach_conversation(conversation_id)
        await self._replace_voices()

    async def _replace_voices(self) -> None:
        now = time.monotonic()
        self._next_search_at = {voice: at for voice, at in self._next_search_at.items() if at > now}
        contexts = [c.session.conversation.context for c in self.connections if c.session.conversation]
        voices = {s.voice.id for context in contexts for s in (context.speech_settings, context.backup_settings)}
        unreliable = await run_in_db_thread(takeover.unreliable_voices, voices - self._next_search_at.keys())
        affected = [context.conversation_id for context in contexts if unreliable.concern(context)]
        if not affected:
            return
        choices = await run_in_db_thread(takeover.choose_voices, affected)
        chosen = {voice.id for choice in choices.values() for voice in (choice.voice, choice.backup)}
        self._next_search_at |= dict.fromkeys(unreliable.refused & chosen, now + VOICE_SEARCH_INTERVAL_S)
        for conversation_id, connection in self._open_conversations():
            if conversation_id in choices:
                connection.change_voices(conversation_id, choices[conversation_id])

    async def _notify_expired(self) -> None:
        """Notify devices of queued speech that has expired. Takes at most one query."""
        now = time.monotonic()
        due = {connection: keys for connection in self.connections if (keys := connection.outbox.overdue(now))}
        if due:
            expired = await run_in_db_thread(store.expired_among, list(chain.from_iterable(due.values())))
            for connection, keys in due.items():
                connection.notify_expired(keys, expired)

    async def _dispatch_due(self) -> None:
        """Wake the connections that have waiting deliveries or pending writes. Takes two queries at most."""
        waiting = {
            "quota_exhausted": self._quota.is_exhausted,
            "hold_live": self._quota.hold_remaining_s(time.monotonic()) > 0,
        }
        patients = await run_in_db_thread(store.patients_with_work, **waiting)
        devices = [connection.device_id for connection in self.connections if connection.patient_id in patients]
        due = await run_in_db_thread(store.devices_with_work, devices, **waiting) if devices else set()
        for connection in self.connections:
            if connection.device_id in due or connection.outbox.has_pending_writes:
                connection.wake()

    def _open_conversations(self) -> list[tuple[uuid.UUID, "Connection"]]:
        return [(c.session.conversation.context.conversation_id, c) for c in self.connections if c.session.conversation]


async def _close_outdated(connection: "Connection", epoch: int | None) -> None:
    """Close a connection whose device is revoked (`epoch` is None) or has a newer connection. Never raises."""
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await connection.close(CLOSE_REVOKED if epoch is None else CLOSE_REPLACED)
    except Exception:  # a broken socket must not end the sweep
        log.exception("registry.close_failed")


def _current_epochs(devices: Iterable[uuid.UUID]) -> dict[uuid.UUID, int]:
    """Return the number of the latest connection (`Device.epoch`) for each device that is still allowed to connect."""
    return dict(Device.objects.connectable().filter(pk__in=devices).values_list("pk", "epoch"))
