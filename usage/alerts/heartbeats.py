"""Heartbeats of the two background processes, `beat` and `worker`, and the monitor that reports a missing one.

beat writes its heartbeat on every tick and sends the worker a task that writes the worker's heartbeat. So a heartbeat
of the worker proves that the worker runs tasks. While beat is missing, the state of the worker is unknown. Web
processes check the heartbeats and open an incident for a missing process. Heartbeats have the database's time. The
clock of a web process only measures how long it has been checking.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from django.conf import settings
from django.db.models import Case, F, Q, When
from django.db.models.functions import Now

from usage.alerts import dispatcher, incidents
from usage.models import Heartbeat, Incident

BEAT, WORKER = "beat", "worker"
SILENT, SECOND_BEAT = Incident.Kind.SILENT, Incident.Kind.SECOND_BEAT
INTERVAL_S = 15.0
BEAT_LATE_AFTER_S = 30.0  # after such a gap, the worker may have had no heartbeat task
MISSING_AFTER_S = 60.0
GRACE_S = 30.0  # time to start, after this web process has started or the database was unavailable
NEVER_SEEN_AFTER_S = 600.0  # after this time, a process without any heartbeat is reported as missing
MAX_BACKDATING_S = dispatcher.ALERT_MAX_AGE.total_seconds() / 2
SECOND_AFTER_S = 180.0  # an overlap of the old and the new beat at a restart is shorter
MAX_CHECK_GAP_S = 20.0  # after a longer gap, or a change of the clock, the monitor starts again

_DETAILS = {
    BEAT: "beat is not running, or it is waiting for the broker (REDIS_URL). The state of the worker is unknown.",
    WORKER: "The worker is not running, or one task has kept it busy for more than a minute.",
}


class LastHeartbeat(NamedTuple):
    """The last heartbeat of a process. `overlap_age_s` is the age of the last sign that it runs twice, or None."""

    at: datetime
    age_s: float
    overlap_age_s: float | None

    @property
    def runs_twice(self) -> bool:
        return self.overlap_age_s is not None and self.overlap_age_s <= MISSING_AFTER_S


def beat(name: str, instance: str = "") -> None:
    """Write a heartbeat of the process `name` with the database's current time. Raises DatabaseError.

    `instance` identifies a process that must run once. Two such processes replace each other's heartbeat in turn. A
    process that was restarted never comes back after its successor.
    """
    takes_over = ~Q(instance=instance)
    written = Heartbeat.objects.filter(name=name).update(
        at=Now(),
        overlapped_at=Case(When(takes_over & Q(former_instance=instance), then=Now()), default=F("overlapped_at")),
        former_instance=Case(When(takes_over, then=F("instance")), default=F("former_instance")),
        instance=instance,
    )
    if not written:
        heartbeat = Heartbeat(name=name, at=Now(), instance=instance)
        Heartbeat.objects.bulk_create([heartbeat], ignore_conflicts=True)


def read_heartbeats() -> dict[str, LastHeartbeat]:
    """Return the last heartbeat of each process that ever wrote one, by name of the process. One query."""
    rows = Heartbeat.objects.annotate(now=Now())
    return {
        row.name: LastHeartbeat(
            row.at,
            (row.now - row.at).total_seconds(),
            (row.now - row.overlapped_at).total_seconds() if row.overlapped_at else None,
        )
        for row in rows
    }


def missing_processes() -> list[str]:
    """Return the names of the processes whose last heartbeat is too old, or that never wrote one.

    If beat stops, the worker is soon missing as well, because beat schedules the task that writes its heartbeat.
    """
    last = read_heartbeats()
    return [name for name in (WORKER, BEAT) if name not in last or last[name].age_s > MISSING_AFTER_S]


class HeartbeatMonitor:
    """Finds missing background processes. Each web process has one monitor and calls `check` every few seconds."""

    def __init__(self, now: float) -> None:
        self._started = self._checked = now
        self._beat_alive_since: float | None = None
        self._second_beat_since: float | None = None

    def check(self, now: float) -> None:
        """Open incidents of missing processes and of a second beat, and resolve those that have ended.

        While a process is missing, this process retries failed alerts in its place. Two queries if nothing changes.
        `now` is the clock of this process in seconds. If it jumps, the monitor starts again. Raises DatabaseError.
        """
        last = read_heartbeats()
        states = self.evaluate({name: heartbeat.age_s for name, heartbeat in last.items()}, now)
        open_incidents = Incident.objects.filter(kind__in=(SILENT, SECOND_BEAT), resolved_at=None)
        reported_incidents = set(open_incidents.values_list("kind", "key"))
        reported = {key for kind, key in reported_incidents if kind == SILENT}
        for name, alive in states.items():
            if not alive and name not in reported:
                detail, started_at = _DETAILS[name], None
                if name in last:
                    detail += f" Last heartbeat: {last[name].at:%Y-%m-%d %H:%M} UTC."
                    # The dispatcher does not send alerts about older incidents.
                    started_at = last[name].at if last[name].age_s < MAX_BACKDATING_S else None
                incidents.open_incident(SILENT, name, detail, started_at)
            elif alive and name in reported:
                incidents.resolve_incident(SILENT, name)
        self._check_second_beat(last.get(BEAT), now, is_reported=(SECOND_BEAT, "") in reported_incidents)
        if not all(states.values()):
            dispatcher.retry_in_thread()

    def evaluate(self, ages: Mapping[str, float], now: float) -> dict[str, bool]:
        """Map each process name to True (alive) or False (missing), based on heartbeat age in seconds.

        Processes whose state is not yet known are left out.
        """
        if abs(now - self._checked) > MAX_CHECK_GAP_S:
            self._started, self._beat_alive_since, self._second_beat_since = now, None, None
        self._checked = now
        if ages.get(BEAT, BEAT_LATE_AFTER_S + 1) > BEAT_LATE_AFTER_S:
            self._beat_alive_since = None
        elif self._beat_alive_since is None:
            self._beat_alive_since = now
        states = {name: self._is_alive(name, ages.get(name), now) for name in (BEAT, WORKER)}
        return {name: alive for name, alive in states.items() if alive is not None}

    def _check_second_beat(self, last: LastHeartbeat | None, now: float, *, is_reported: bool) -> None:
        if last is None or not last.runs_twice:
            self._second_beat_since = None
            if is_reported:
                incidents.resolve_incident(SECOND_BEAT)
            return
        if self._second_beat_since is None:
            self._second_beat_since = now
        if now - self._second_beat_since >= SECOND_AFTER_S and not is_reported:
            incidents.open_incident(SECOND_BEAT, detail=f"Last heartbeat: {last.at:%Y-%m-%d %H:%M} UTC.")

    def _is_alive(self, name: str, age_s: float | None, now: float) -> bool | None:
        if age_s is not None and age_s <= MISSING_AFTER_S:
            return True
        since = self._started if name == BEAT else self._beat_alive_since
        if since is None or now - since < GRACE_S:
            return None
        if age_s is None and (settings.DEBUG or now - self._started < NEVER_SEEN_AFTER_S):
            return None  # developers may never start this process; in production it must not be forgotten
        return False
