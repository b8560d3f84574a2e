"""The ladder of one segment (the contract, section 2, rules 4 to 8): error in, next step out. Pure.

    error                         live     retry    backup   offline
    any failure of the provider   retry    backup   offline  -
    VoiceUnavailable              backup   backup   offline  -
    AuthorizationError BadRequest offline  offline  offline  -
    RateLimited                   in line  in line  in line  -
    QuotaExceeded                 quota    quota    quota    -
    TextRejected                  rejected, whatever the rung
    any other, offline            -        -        -        offline once more, then no voice

A failure of the provider is every error without a line of its own, so one that nobody foresaw still ends in speech.
Whether a part of the segment was heard changes nothing: it is spoken again from its beginning (rule 6). With the
provider known to be down a segment starts at `Rung.OFFLINE`.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum

from voicecare.providers.errors import (
    AuthorizationError,
    BadRequest,
    QuotaExceeded,
    RateLimited,
    TextRejected,
    VoiceUnavailable,
)

RETRY_FIRST_BYTE_TIMEOUT_S = 1.0
MAX_SILENCE_S = 2.8  # what a provider that never answers may cost; the offline voice starts within 0.15 s
MIN_BACKUP_FIRST_BYTE_TIMEOUT_S = 0.3  # the least that the backup voice is given, whatever was lost before


class Strategy(StrEnum):
    """One way to get the segment's audio, best first."""

    LIVE = "live"
    RETRY = "retry"  # the same voice again, at once
    BACKUP = "backup"  # the default voice, also where it is the conversation's own
    OFFLINE = "offline"


class StopReason(StrEnum):
    """The segment is not asked for again now. The last two are codes of `speech.failed`."""

    BUSY = "busy"  # wait in line, then the same rung; past BUSY_WAIT_S the caller goes to Rung.OFFLINE
    QUOTA = "quota"  # no request until the quota is back; the caller queues the speech or speaks it offline
    REJECTED = "text_rejected"
    NO_VOICE = "no_voice"


Decision = Strategy | StopReason


def _always(step: Decision) -> dict[Strategy, Decision]:
    return dict.fromkeys((Strategy.LIVE, Strategy.RETRY, Strategy.BACKUP), step)


_STEPS: Mapping[type, Mapping[Strategy, Decision]] = {
    Exception: {Strategy.LIVE: Strategy.RETRY, Strategy.RETRY: Strategy.BACKUP, Strategy.BACKUP: Strategy.OFFLINE},
    VoiceUnavailable: {
        Strategy.LIVE: Strategy.BACKUP,
        Strategy.RETRY: Strategy.BACKUP,
        Strategy.BACKUP: Strategy.OFFLINE,
    },
    AuthorizationError: _always(Strategy.OFFLINE),
    BadRequest: _always(Strategy.OFFLINE),
    RateLimited: _always(StopReason.BUSY),
    QuotaExceeded: _always(StopReason.QUOTA),
    TextRejected: {**_always(StopReason.REJECTED), Strategy.OFFLINE: StopReason.REJECTED},
}

_INCIDENTS: Mapping[type, str] = {AuthorizationError: "access", BadRequest: "request", VoiceUnavailable: "voice"}


def next_step(error: Exception, tried: Sequence[Strategy]) -> Decision:
    """What follows when the last of `tried` ended in `error`.

    `tried` are the rungs of this segment so far, in order, not empty; a rung repeated because of `Halt.IN_LINE` may
    stand in it twice.
    """
    kind = next(kind for kind in type(error).__mro__ if kind in _STEPS)
    if kind is Exception and tried[-1] is Strategy.BACKUP and _is_first_backup_failure(tried):
        return Strategy.BACKUP
    return _STEPS[kind].get(tried[-1]) or _step_after_offline(tried)


def _is_first_backup_failure(tried: Sequence[Strategy]) -> bool:
    """A segment that came to the backup voice without a failure of the provider is retried in it, once, as in any."""
    return Strategy.RETRY not in tried and tried.count(Strategy.BACKUP) == 1


def _step_after_offline(tried: Sequence[Strategy]) -> Decision:
    """Its child process is started anew for the second try."""
    return Strategy.OFFLINE if tried.count(Strategy.OFFLINE) < 2 else StopReason.NO_VOICE


def incident_kind(error: Exception) -> str | None:
    """The kind of the incident that administrators are told of; None for what heals by itself.

    `QuotaExceeded` is none here: its incident belongs to the quota, which opens and resolves it.
    """
    return next((_INCIDENTS[kind] for kind in type(error).__mro__ if kind in _INCIDENTS), None)


def first_byte_limit(rung: Strategy, configured: float, silence_s: float) -> float:
    """How many seconds the first audio byte may take on this rung (rule 4), `silence_s` after the segment was wanted.

    The backup voice comes from the provider that has just failed twice: it gets what is left of `DEAD_AIR_S`.
    """
    match rung:
        case Strategy.RETRY:
            return min(configured, RETRY_FIRST_BYTE_TIMEOUT_S)
        case Strategy.BACKUP:
            return min(configured, max(MAX_SILENCE_S - silence_s, MIN_BACKUP_FIRST_BYTE_TIMEOUT_S))
    return configured
