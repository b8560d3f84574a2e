"""Signs of life of the two processes that no patient would miss: `beat` and `worker`.

beat gives its own sign while it ticks, and sends the worker a task that gives the worker's: so a worker is known to
take tasks, and while beat is silent nothing can be known of it. Web processes look at the signs and open an incident
for who is silent. The times of the signs are the database's; a web process' own clock only says how long it has been
looking.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from django.conf import settings
from django.db.models.functions import Now

from usage.alerts import dispatcher, incidents
from usage.models import Heartbeat, Incident

BEAT, WORKER = "beat", "worker"
INTERVAL_S = 15.0
BEAT_LATE_AFTER_S = 30.0  # beat may have been restarted, and the worker got no task in the meantime
MISSING_AFTER_S = 60.0
GRACE_S = 30.0  # to start in, beside a web process that has just started or a database that has just come back
NEVER_SEEN_AFTER_S = 600.0  # what has never been seen is missed so long after a web process has started
MAX_BACKDATING_S = dispatcher.ALERT_MAX_AGE.total_seconds() / 2
MAX_CHECK_GAP_S = 20.0  # who has not looked for so long, or whose clock was set, knows nothing of the time in between

_DETAILS = {
    BEAT: "It is beat, or beat waits for the broker (REDIS_URL). Whether the worker is up cannot be told meanwhile.",
    WORKER: "It is the worker: it is down, or busy with long work for more than a minute.",
}


class LastHeartbeat(NamedTuple):
    at: datetime
    age_s: float


def beat(name: str) -> None:
    """A sign of life, now. Raises DatabaseError."""
    heartbeat = Heartbeat(name=name, at=Now())
    Heartbeat.objects.bulk_create([heartbeat], update_conflicts=True, unique_fields=["name"], update_fields=["at"])


def read_heartbeats() -> dict[str, LastHeartbeat]:
    """The last ones, in one query; who has never given one is missing."""
    rows = Heartbeat.objects.annotate(now=Now())
    return {row.name: LastHeartbeat(row.at, (row.now - row.at).total_seconds()) for row in rows}


def missing_processes() -> list[str]:
    """Who has given no sign for too long, or never. While beat is silent the worker soon is, too: nobody asks it."""
    last = read_heartbeats()
    return [name for name in (WORKER, BEAT) if name not in last or last[name].age_s > MISSING_AFTER_S]


class HeartbeatMonitor:
    """What one web process has seen of the signs; `look` is called every few seconds."""

    def __init__(self, now: float) -> None:
        self._started = self._checked = now
        self._beat_alive_since: float | None = None

    def check(self, now: float) -> None:
        """Opens the incidents of who is silent, and resolves those of who is not; repeats alerts in their stead.

        Two queries while nobody is missed.
        """
        last = read_heartbeats()
        states = self.evaluate({name: heartbeat.age_s for name, heartbeat in last.items()}, now)
        open_incidents = Incident.objects.filter(kind=incidents.Kind.SILENT, resolved_at=None)
        reported = set(open_incidents.values_list("key", flat=True))
        for name, alive in states.items():
            if not alive and name not in reported:
                detail, started_at = _DETAILS[name], None
                if name in last:
                    detail += f" Its last sign: {last[name].at:%Y-%m-%d %H:%M} UTC."
                    # An alert with an older beginning would be no news to the dispatcher.
                    started_at = last[name].at if last[name].age_s < MAX_BACKDATING_S else None
                incidents.open_incident(incidents.Kind.SILENT, name, detail, started_at)
            elif alive and name in reported:
                incidents.resolve_incident(incidents.Kind.SILENT, name)
        if not all(states.values()):
            dispatcher.retry_in_thread()

    def evaluate(self, ages: Mapping[str, float], now: float) -> dict[str, bool]:
        """Who is alive and who is not, from the seconds since their signs; of whom nothing can be said is missing."""
        if abs(now - self._checked) > MAX_CHECK_GAP_S:
            self._started, self._beat_alive_since = now, None
        self._checked = now
        if ages.get(BEAT, BEAT_LATE_AFTER_S + 1) > BEAT_LATE_AFTER_S:
            self._beat_alive_since = None
        elif self._beat_alive_since is None:
            self._beat_alive_since = now
        states = {name: self._is_alive(name, ages.get(name), now) for name in (BEAT, WORKER)}
        return {name: alive for name, alive in states.items() if alive is not None}

    def _is_alive(self, name: str, age_s: float | None, now: float) -> bool | None:
        if age_s is not None and age_s <= MISSING_AFTER_S:
            return True
        since = self._started if name == BEAT else self._beat_alive_since
        if since is None or now - since < GRACE_S:
            return None
        if age_s is None and (settings.DEBUG or now - self._started < NEVER_SEEN_AFTER_S):
            return None  # a developer may leave it out for good; in production it was forgotten
        return False
