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

RETRY_FIRST_BYTE_S = 1.0
DEAD_AIR_S = 2.8  # what a provider that never answers may cost; the offline voice starts within 0.15 s
BACKUP_FIRST_BYTE_S = 0.3  # the least that the backup voice is given, whatever was lost before


class Rung(StrEnum):
    """One way to get the segment's audio, best first."""

    LIVE = "live"
    RETRY = "retry"  # the same voice again, at once
    BACKUP = "backup"  # the default voice, also where it is the conversation's own
    OFFLINE = "offline"


class Halt(StrEnum):
    """The segment is not asked for again now. The last two are codes of `speech.failed`."""

    IN_LINE = "busy"  # wait in line, then the same rung; past BUSY_WAIT_S the caller goes to Rung.OFFLINE
    QUOTA = "quota"  # no request until the quota is back; the caller queues the speech or speaks it offline
    REJECTED = "text_rejected"
    NO_VOICE = "no_voice"


Step = Rung | Halt


def _wherever(step: Step) -> dict[Rung, Step]:
    return dict.fromkeys((Rung.LIVE, Rung.RETRY, Rung.BACKUP), step)


_STEPS: Mapping[type, Mapping[Rung, Step]] = {
    Exception: {Rung.LIVE: Rung.RETRY, Rung.RETRY: Rung.BACKUP, Rung.BACKUP: Rung.OFFLINE},
    VoiceUnavailable: {Rung.LIVE: Rung.BACKUP, Rung.RETRY: Rung.BACKUP, Rung.BACKUP: Rung.OFFLINE},
    AuthorizationError: _wherever(Rung.OFFLINE),
    BadRequest: _wherever(Rung.OFFLINE),
    RateLimited: _wherever(Halt.IN_LINE),
    QuotaExceeded: _wherever(Halt.QUOTA),
    TextRejected: {**_wherever(Halt.REJECTED), Rung.OFFLINE: Halt.REJECTED},
}

_INCIDENTS: Mapping[type, str] = {AuthorizationError: "access", BadRequest: "request", VoiceUnavailable: "voice"}


def after(error: Exception, tried: Sequence[Rung]) -> Step:
    """What follows when the last of `tried` ended in `error`.

    `tried` are the rungs of this segment so far, in order, not empty; a rung repeated because of `Halt.IN_LINE` may
    stand in it twice.
    """
    kind = next(kind for kind in type(error).__mro__ if kind in _STEPS)
    if kind is Exception and tried[-1] is Rung.BACKUP and _first_failure(tried):
        return Rung.BACKUP
    return _STEPS[kind].get(tried[-1]) or _after_offline(tried)


def _first_failure(tried: Sequence[Rung]) -> bool:
    """A segment that came to the backup voice without a failure of the provider is retried in it, once, as in any."""
    return Rung.RETRY not in tried and tried.count(Rung.BACKUP) == 1


def _after_offline(tried: Sequence[Rung]) -> Step:
    """Its child process is started anew for the second try."""
    return Rung.OFFLINE if tried.count(Rung.OFFLINE) < 2 else Halt.NO_VOICE


def incident_kind(error: Exception) -> str | None:
    """The kind of the incident that administrators are told of; None for what heals by itself.

    `QuotaExceeded` is none here: its incident belongs to the quota, which opens and resolves it.
    """
    return next((_INCIDENTS[kind] for kind in type(error).__mro__ if kind in _INCIDENTS), None)


def first_byte_limit(rung: Rung, configured: float, silence_s: float) -> float:
    """How many seconds the first audio byte may take on this rung (rule 4), `silence_s` after the segment was wanted.

    The backup voice comes from the provider that has just failed twice: it gets what is left of `DEAD_AIR_S`.
    """
    match rung:
        case Rung.RETRY:
            return min(configured, RETRY_FIRST_BYTE_S)
        case Rung.BACKUP:
            return min(configured, max(DEAD_AIR_S - silence_s, BACKUP_FIRST_BYTE_S))
    return configured
