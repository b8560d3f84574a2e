"""What must hold at the end: endings, totals, and nothing left behind."""

import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.report import table
from tests.chaos.cluster import Cluster
from tests.chaos.listening import UNWRITTEN_S
from tests.chaos.soak.devices import Record, SentSpeech
from tests.server import ServerProcess

IDLE_GAUGES = (
    "voicecare_devices_connected",
    "voicecare_slots_held",
    "voicecare_slots_waiting",
    "voicecare_recorder_backlog",
    "voicecare_held_bytes",
)
MAX_GROWTH, MAX_GROWTH_MB = 1.15, 20.0  # of the memory from a quarter of the time to the end
MAX_MORE_FILES = 20  # database threads and idle connections to the provider that an idle process may have opened
DEFECTS = (
    "Traceback",
    "rest.failed",
    "row.failed",
    "step.failed",
    "player.crashed",
    "player.speech_crashed",
    "runtime.background_task_failed",
    "outbox.row_rejected",
    "recorder.row_rejected",
    "registry.close_failed",
)
"""What the logs of a correct server never have, whatever the provider does."""
ROW_STATES = {
    "speech.finished": {"spoken", "heard"},
    "speech.interrupted": {"interrupted"},
    "speech.failed": {"failed", "expired", "interrupted"},
}

OPEN_ROWS = """SELECT count(*) FROM tts_utterance
WHERE state IN ('waiting', 'queued', 'speaking') OR (origin = 'server' AND state = 'spoken')"""
OPEN_CLONES = "SELECT count(*) FROM cloning_clonejob WHERE status IN ('pending', 'uploading', 'withdrawing')"
EXPIRE_ALL = """UPDATE tts_utterance SET expires_at = now()
WHERE state IN ('waiting', 'queued') OR (origin = 'server' AND state = 'spoken')"""
ABANDON_ALL = """UPDATE conversations SET seen_at = now() - interval '31 minutes',
started_at = least(started_at, now() - interval '31 minutes') WHERE ended_at IS NULL"""
CLONES_NOW = "UPDATE cloning_clonejob SET next_attempt_at = now() WHERE status IN ('pending', 'withdrawing')"
LEASES = """SELECT (SELECT count(*) FROM tts_utterance WHERE lease_until > now())
+ (SELECT count(*) FROM patients_device WHERE online_until > now() + interval '1 second')
+ (SELECT count(*) FROM cloning_clonejob WHERE lease_until > now())"""
IN_TRANSACTION = (
    "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%%' AND pid <> pg_backend_pid()"
)
SUM = "SELECT coalesce(sum(characters), 0) FROM "
LATE = f"{SUM} usage_usageevent WHERE code = 'billed' AND conversation IS NOT NULL"
BUDGETED = f"""{SUM} usage_usageevent WHERE kind IN ('live', 'retry', 'backup') AND patient IN (
SELECT patient FROM usage_budgetmonth)"""
BUDGETS = "SELECT coalesce(sum(used), 0), coalesce(sum(reserved), 0) FROM usage_budgetmonth"
SETTLE = """
from datetime import timedelta
from django.conf import settings
from django.db.models import Min
from django.utils import timezone
from tts.conversations import lifecycle
from usage import budgets
from usage.ledger import events, journal, rollup
from usage.models import BudgetMonth, UsageEvent
from usage.reconciliation import reconciler
now = timezone.now()
journal.recover(settings.DATA_DIR / journal.FOLDER, events.record_attempts)
first = UsageEvent.objects.aggregate(at=Min("started_at"))["at"] or now
for day in sorted({rollup.day_of(first), rollup.day_of(now)}):
    assert reconciler.reconcile_day(day, now + timedelta(minutes=30), lifecycle.add_reconciled_characters, force=True)
BudgetMonth.objects.update(updated_at=now - timedelta(minutes=30), checked=False)
budgets.repair()
"""


@dataclass(frozen=True)
class Check:
    """One row of the table. `found` must be 0, unless `fits` says otherwise."""

    name: str
    found: object
    fits: bool

    @classmethod
    def none(cls, name: str, found: Sequence[object] | int) -> "Check":
        examples = "" if isinstance(found, int) else " ".join(str(one) for one in found[:3])
        count = found if isinstance(found, int) else len(found)
        return cls(name, f"{count} {examples}".strip(), not count)

    @classmethod
    def equal(cls, name: str, *figures: int) -> "Check":
        return cls(name, " = ".join(f"{figure:,}" for figure in dict.fromkeys(figures)), len(set(figures)) == 1)


@dataclass(frozen=True)
class Idle:
    """A web process without devices: its tasks, open files and memory in MB."""

    tasks: float
    files: int
    memory_mb: float

    @classmethod
    def of(cls, server: ServerProcess) -> "Idle":
        pid = server.process.pid
        files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        return cls(gauge(server, "voicecare_tasks"), files, memory_mb(pid))


def memory_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def settle(cluster: Cluster, timeout_s: float = 180) -> None:
    """Expire what waits and abandon what is open, and wait until the tasks of beat have ended it."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        for statement in (EXPIRE_ALL, ABANDON_ALL, CLONES_NOW):
            cluster.execute(statement)
        if not cluster.query(OPEN_ROWS)[0][0] and not cluster.query(OPEN_CLONES)[0][0]:
            return
        time.sleep(5)


def endings(record: Record, rows: dict[tuple[str, str], str], kills: Sequence[float]) -> list[Check]:
    """Check each speech that a device has requested, at the device and in the database. `rows` are states by speech."""
    accepted = [speech for speech in record.speeches.values() if speech.conversation and not speech.refused]
    written = [speech for speech in accepted if speech.endings and not _around(speech, kills)]
    return [
        Check("speeches accepted from devices", f"{len(accepted):,}", bool(accepted)),
        Check.none("ended twice at the device", [s for s in accepted if len(s.endings) > 1]),
        Check.none(
            "not ended at the device, though the conversation ended in order",
            [s for s in accepted if s.connection in record.ended and not s.endings],
        ),
        Check.none("begun twice in one connection", record.repeated_in_connection),
        Check.none("ended at the device, and not in the database", [s for s in written if not _has_row(s, rows)]),
        Check.none(
            "ended differently in the database",
            [
                (s, rows[s.conversation, s.id])
                for s in written
                if _has_row(s, rows) and rows[s.conversation, s.id] not in ROW_STATES[s.endings[0]]
            ],
        ),
    ]


def _has_row(speech: SentSpeech, rows: dict[tuple[str, str], str]) -> bool:
    return (speech.conversation, speech.id) in rows


def _around(speech: SentSpeech, kills: Sequence[float]) -> bool:
    """Whether a web process was killed while it may have had unwritten rows of this speech."""
    return any(speech.sent_at - UNWRITTEN_S < killed_at < speech.sent_at + 120 for killed_at in kills)


def rows_of_devices(cluster: Cluster) -> dict[tuple[str, str], str]:
    rows = cluster.query("SELECT conversation_id, client_id, state FROM tts_utterance WHERE client_id <> ''")
    return {(str(conversation), speech): state for conversation, speech, state in rows}


def deliveries(cluster: Cluster, record: Record) -> list[Check]:
    states = {str(key): state for key, state in cluster.query("SELECT id, state FROM tts_utterance")}
    lost = [key for key in record.deliveries if key not in states]
    return [
        Check("texts accepted over REST", f"{len(record.deliveries):,}", bool(record.deliveries)),
        Check.none("of them without a row", lost),
        Check.none("rows that have not ended", cluster.query(OPEN_ROWS)[0][0]),
        Check.none("clones that have not ended", cluster.query(OPEN_CLONES)[0][0]),
    ]


def left_behind(cluster: Cluster, running: dict[str, tuple[ServerProcess, Idle]]) -> list[Check]:
    """Check the idle processes. `running` maps a name to a process and its figures before the load."""
    checks = [
        Check.none("leases", cluster.query(LEASES)[0][0]),
        Check.none("database connections in a transaction", cluster.query(IN_TRANSACTION)[0][0]),
        Check.none("temporary files", [path.name for path in (cluster.folder / "tmp").iterdir() if _is_ours(path)]),
        Check.none("recordings without a job", _orphan_samples(cluster)),
        Check.none("lines of defects in the logs", _defects(cluster)),
    ]
    for name, (server, before) in running.items():
        busy = _busy_gauges(server)
        now = Idle.of(server)
        more_files = f"{before.files} at the start, {now.files} at the end"
        checks += [
            Check.none(f"{name}: gauges that are not 0", busy),
            Check(f"{name}: tasks", f"{before.tasks:.0f} and {now.tasks:.0f}", now.tasks <= before.tasks + 2),
            Check(f"{name}: open files", more_files, now.files <= before.files + MAX_MORE_FILES),
        ]
    return checks


def _busy_gauges(server: ServerProcess, timeout_s: float = 90) -> list[tuple[str, float]]:
    """Return the gauges that do not become 0. A device that was cut off is disconnected within a minute."""
    deadline = time.monotonic() + timeout_s
    while (busy := [(name, value) for name in IDLE_GAUGES if (value := gauge(server, name))]) and (
        time.monotonic() < deadline
    ):
        time.sleep(1)
    return busy


def gauge(server: ServerProcess, name: str) -> float:
    """Return the value of a metric. Patient, because the machine may be busy."""
    for _ in range(10):
        with suppress(OSError):
            return server.gauge(name)
    raise TimeoutError(f"the process with port {server.port} does not answer")


def _is_ours(path: Path) -> bool:
    """Whether the file is ours. A worker has an empty folder of multiprocessing, which a killed one leaves."""
    return not path.name.startswith("pymp-")


def _defects(cluster: Cluster) -> list[str]:
    """Return the name of the log and the line, shortened, for each line that reports a defect."""
    return [
        f"{path.name}: {line.strip()[:120]}"
        for path in cluster.folder.glob("*.log")
        for line in path.read_text(errors="replace").splitlines()
        if any(word in line for word in DEFECTS)
    ]


def _orphan_samples(cluster: Cluster) -> list[str]:
    known = {name for (name,) in cluster.query("SELECT sample FROM cloning_clonejob WHERE sample <> ''")}
    return [path.name for path in (cluster.folder / "samples").glob("*") if path.name not in known]


def totals(cluster: Cluster) -> list[Check]:
    """Compare the accounts. All processes have stopped, and unknown attempts were reconciled."""
    recorded, billed = cluster.ledger_characters(), cluster.billed_requests()
    different = [key for key, characters in recorded.items() if billed.get(key, {}).get("characters", 0) != characters]
    used, reserved = cluster.query(BUDGETS)[0]
    missing = cluster.conversation_ledger_characters() - cluster.conversation_characters()
    late = _one(cluster, LATE)
    return [
        Check.equal(
            "characters: provider = ledger = days",
            cluster.sandbox.account()["characters"],
            _one(cluster, f"{SUM} usage_usageevent"),
            _one(cluster, f"{SUM} usage_dailyusage"),
        ),
        Check.none("requests with other characters at the provider", different),
        Check.none("billed requests that are not in the ledger", [key for key in billed if key not in recorded]),
        Check.none(
            "unknown attempts", _one(cluster, "SELECT count(*) FROM usage_usageevent WHERE outcome = 'unknown'")
        ),
        Check("ledger of conversations - their counters", f"{missing:,} of {late:,} late", 0 <= missing <= late),
        Check.equal("budgets: used = ledger", used, _one(cluster, BUDGETED)),
        Check.none("budgets: reserved", int(reserved)),
    ]


def report(found: Sequence[Check], folder: Path, *, keep: bool) -> int:
    """Print the checks and return the exit code of the command. The folder with the logs stays if one fails."""
    print(table(("", "check", "found"), [["" if c.fits else "WRONG", c.name, str(c.found)] for c in found]))
    fits = all(check.fits for check in found)
    if fits and not keep:
        shutil.rmtree(folder)
    else:
        print(f"The logs are in {folder}.")
    return 0 if fits else 1


def memory(samples: list[tuple[float, float]]) -> Check:
    """Compare the memory at a quarter of the time with the end. `samples` are seconds and MB. Means of a tenth each."""
    whole = samples[-1][0]
    quarter = _mean([mb for at, mb in samples if 0.2 * whole <= at <= 0.3 * whole])
    end = _mean([mb for at, mb in samples if at >= 0.9 * whole])
    fits = end <= max(quarter * MAX_GROWTH, quarter + MAX_GROWTH_MB)
    return Check("memory of the steady web process", f"{quarter:.0f} MB after a quarter, {end:.0f} MB at the end", fits)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _one(cluster: Cluster, statement: str) -> Any:
    return int(cluster.query(statement)[0][0])
