"""The parts that the service consists of, and whether each of them works now.

`/readyz`, the admin and `manage.py doctor` show the same. The doctor adds what takes longer or asks others (`doctor`).
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from django.conf import settings
from django.utils import timezone
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from tts.conversations.model_check import ModelProblem
from tts.runtime import runtime
from usage.alerts import channels, heartbeats
from usage.alerts.voices import default_voice
from usage.models import Incident, NotificationChannel, ProviderState, RetentionCheck
from voicecare.core.database import run_in_db_thread

REDIS_TIMEOUT_S = 0.5  # each check pings Redis
DATABASE_TIMEOUT_S = 2.0
CHANNEL_KINDS = (Incident.Kind.ALERTS, Incident.Kind.CHANNEL)
PROOF_OUTDATED_AFTER = timedelta(days=2)  # the check is repeated every night
TIME_FORMAT = "%Y-%m-%d %H:%M:%S UTC"


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the service.

    `name` is its name in `/readyz`, `title` its name in the admin. `state` says in words how it is, and `advice` what
    to expect and what to do if it does not work. With `warns` it works, and the advice should be followed nevertheless.
    """

    name: str
    title: str
    works: bool
    state: str
    advice: str = ""
    warns: bool = False

    @property
    def status(self) -> Literal["ok", "warning", "failure"]:
        if not self.works:
            return "failure"
        return "warning" if self.warns else "ok"


@dataclass(frozen=True, slots=True)
class _Rows:
    """What the database says, from one visit."""

    has_no_voice: bool
    provider: ProviderState
    seen: Mapping[str, heartbeats.LastHeartbeat]
    missing: list[str]
    failing_channels: set[str]
    notification_channels: list[str]
    failing_notification_channels: set[str]
    zero_retention: Part | None


async def check_parts() -> list[Part]:
    """Checks all parts. Raises DatabaseError or TimeoutError if the database does not answer within DATABASE_TIMEOUT_S.

    The provider, the phrase store and the offline voice are those of this web process. Other processes may see them
    differently for some seconds. A process without a runtime has no phrase store and no offline voice, and knows of the
    provider what the database says.
    """
    async with asyncio.timeout(DATABASE_TIMEOUT_S):
        rows = await run_in_db_thread(_read_rows)
    broker = await check_broker()
    proof = [rows.zero_retention] if rows.zero_retention else []
    return [broker, *_speech(rows), *proof, *_processes(rows), *_alert_channels(rows)]


async def check_broker() -> Part:
    """Checks Redis, the broker of Celery. Without REDIS_URL the broker is a folder, which always works."""
    title = "Broker"
    if not settings.REDIS_URL:
        return Part("broker", title, True, f"a folder in {settings.DATA_DIR}, for one machine only")
    client = Redis.from_url(settings.REDIS_URL, socket_timeout=REDIS_TIMEOUT_S, socket_connect_timeout=REDIS_TIMEOUT_S)
    try:
        async with client:
            await client.ping()
    except (RedisError, OSError) as error:
        state = f"Redis does not answer ({type(error).__name__})"
        if isinstance(error, AuthenticationError | NoPermissionError):
            state = "Redis refuses the user or the password"
        return Part("broker", title, False, state, "Speech continues, background work waits. Check REDIS_URL.")
    return Part("broker", title, True, "Redis answers")


def _read_rows() -> _Rows:
    failing = Incident.objects.filter(kind__in=CHANNEL_KINDS, resolved_at=None).values_list("kind", "key")
    channel_ids = NotificationChannel.objects.filter(enabled=True).values_list("pk", flat=True)
    keys = {kind: {key for its_kind, key in failing if its_kind == kind} for kind in CHANNEL_KINDS}
    return _Rows(
        has_no_voice=default_voice.is_missing(),
        provider=ProviderState.objects.filter(pk=1).first() or ProviderState(),
        seen=heartbeats.read_heartbeats(),
        missing=heartbeats.missing_processes(),
        failing_channels=keys[Incident.Kind.ALERTS],
        notification_channels=[str(pk) for pk in channel_ids],
        failing_notification_channels=keys[Incident.Kind.CHANNEL],
        zero_retention=_zero_retention(),
    )


def _speech(rows: _Rows) -> Iterator[Part]:
    provider = rows.provider
    has_quota = provider.quota == ProviderState.Quota.AVAILABLE
    is_reachable = provider.circuit == ProviderState.Circuit.CLOSED
    is_accepted = provider.access == ProviderState.Access.GRANTED
    if runtime.is_started:
        dependencies = runtime.dependencies
        has_quota, is_reachable = not dependencies.quota.is_exhausted, not dependencies.circuit.is_open
        is_accepted = not runtime.access_refused
        yield phrase_store(works=not dependencies.phrase_cache.failing)
        yield offline_voice(works=dependencies.offline_voice.is_running)
        if runtime.model_problems:
            yield model(runtime.model_problems)
    yield Part(
        "provider",
        "Provider",
        is_reachable,
        f"{'reachable' if is_reachable else 'unreachable'} since {provider.changed_at:{TIME_FORMAT}}",
        "Patients hear cached phrases and the offline voice. The server checks regularly whether the provider is back.",
    )
    yield Part(
        "provider_key",
        "API key",
        is_accepted,
        "accepted" if is_accepted else "refused",
        "Patients hear cached phrases and the offline voice. Check the key, its permissions and the plan.",
    )
    yield Part(
        "default_voice",
        "Default voice",
        not rows.has_no_voice,
        "no voice can be used" if rows.has_no_voice else "available",
        "Patients without a voice of their own hear the offline voice. Add a voice to the account at the provider.",
    )
    yield Part(
        "quota",
        "Credits",
        has_quota,
        _credits(provider),
        "Exhausted. Cached phrases still play. Other speech waits or uses the offline voice.",
    )


def phrase_store(*, works: bool, problem: str = "") -> Part:
    """Returns the part for the store of the phrase cache."""
    state = f"{settings.PHRASE_STORE}, {'answers' if works else 'fails'}{problem and f' ({problem})'}"
    advice = "Cached phrases are requested from the provider again. Check the store that PHRASE_STORE names."
    return Part("cache", "Phrase store", works, state, advice)


def offline_voice(*, works: bool, problem: str = "") -> Part:
    """Returns the part for the offline voice."""
    state = f"{'running' if works else 'not running'}{problem and f' ({problem})'}"
    advice = "Patients hear nothing while the provider cannot speak. Read the log of the web process."
    return Part("offline_voice", "Offline voice", works, state, advice)


def _zero_retention() -> Part | None:
    """Returns the part about the nightly check, or None if zero retention is not used."""
    if not settings.ELEVENLABS_ZERO_RETENTION:
        return None
    name, title = "zero_retention", "Zero retention"
    checks = RetentionCheck.objects.exclude(checked_at=None)
    last, proof = checks.first(), checks.filter(is_found=False).first()
    proved = f"last proved at {proof.checked_at:{TIME_FORMAT}}" if proof else "never proved"
    if last is not None and last.is_found:
        state = f"not effective: the provider kept the request of the night {last.night}; {proved}"
        return Part(name, title, False, state, "Texts of patients stay in the provider's history. Ask the provider.")
    if not settings.ZERO_RETENTION_CHECK:
        return Part(
            name, title, True, f"not checked (ZERO_RETENTION_CHECK); {proved}", "Turn the check on.", warns=True
        )
    checked_at = proof.checked_at if proof else None
    is_recent = checked_at is not None and checked_at > timezone.now() - PROOF_OUTDATED_AFTER
    failed = RetentionCheck.objects.exclude(error="").first()
    why = f"; the last attempt: {failed.error}" if failed and not is_recent else ""
    advice = "The worker checks it every night. The API key needs the permission to read the history."
    return Part(name, title, True, proved + why, advice, warns=not is_recent)


def model(problems: Sequence[ModelProblem]) -> Part:
    """Returns the part for the provider's model of ELEVENLABS_MODEL_ID."""
    works = not any(problem.is_fatal for problem in problems)
    state = " ".join(problem.text for problem in problems) or settings.ELEVENLABS_MODEL_ID
    return Part("model", "Model", works, state, "Choose another ELEVENLABS_MODEL_ID.", warns=bool(problems))


def _credits(provider: ProviderState) -> str:
    if provider.polled_at is None or provider.quota_used is None:
        return "not read yet"
    read = f"read at {provider.polled_at:{TIME_FORMAT}}"
    if provider.quota_limit is None:
        return f"{provider.quota_used:,} used, without a limit, {read}"
    return f"{provider.quota_remaining:,} of {provider.quota_limit:,} left, {read}"


def _processes(rows: _Rows) -> Iterator[Part]:
    advice = {
        heartbeats.BEAT: "Nothing is scheduled: no retries of clones, no reconciliation. Start beat (see Procfile).",
        heartbeats.WORKER: "Clones and new cached phrases wait. Start a worker (see Procfile).",
    }
    for name in (heartbeats.BEAT, heartbeats.WORKER):
        last = rows.seen.get(name)
        state = f"last heartbeat at {last.at:{TIME_FORMAT}}" if last else "no heartbeat yet"
        if last and last.runs_twice:
            yield Part(
                name, name.capitalize(), False, f"two processes, {state}", "Stop one of them, or tasks run twice."
            )
            continue
        yield Part(name, name.capitalize(), name not in rows.missing, state, advice[name])


def _alert_channels(rows: _Rows) -> Iterator[Part]:
    configured = channels.configured_channels()
    for name, title in (("mail", "Alerts by mail"), ("webhook", "Alerts by webhook")):
        works = name not in rows.failing_channels
        state = "not configured" if name not in configured else "configured" if works else "several attempts failed"
        yield Part(name, title, works, state, "Other channels are used. Open the incident for the last error.")
    count = len(rows.notification_channels)
    failing = rows.failing_notification_channels.intersection(rows.notification_channels)
    state = f"{len(failing)} of {count} fail" if failing else f"{count} enabled" if count else "not configured"
    advice = "Other channels are used. Open the notification channels and send a test alert."
    yield Part("notification_channels", "Alerts by notification channels", not failing, state, advice)
