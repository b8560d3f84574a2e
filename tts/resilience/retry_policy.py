"""The fallback chain of one segment (docs/protocol.md, rules 4 to 8): an error in, the next step out. Pure.

    error                         live     retry    backup   offline
    any other provider failure    retry    backup   offline  -
    VoiceUnavailable              backup   backup   offline  -
    AuthorizationError BadRequest offline  offline  offline  -
    RateLimited                   busy     busy     busy     -
    QuotaExceeded                 quota    quota    quota    -
    TextRejected                  text_rejected, with every strategy
    any other, offline            -        -        -        offline once more, then no_voice

The columns are the strategies that failed. An error without its own line counts as a provider failure, so an unexpected
error still ends in speech. It makes no difference whether part of the segment was sent: the segment is spoken again
from its beginning (rule 6). While the provider is known to be down, a segment starts with `Strategy.OFFLINE`. Without a
backup voice, for example for a patient who hears only their own voice, `offline` takes the place of `backup`.

A retry follows immediately. Two other retry intervals are defined elsewhere: `tts.synthesis.admission` has the one for
a busy provider, `cloning.jobs.runner` those for a clone that failed.
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
MAX_SILENCE_S = 2.8  # until the offline voice is chosen, if the provider never answers; it starts within 0.15 s
MIN_BACKUP_FIRST_BYTE_TIMEOUT_S = 0.3  # for the backup voice, also if `MAX_SILENCE_S` has passed


class Strategy(StrEnum):
    """The ways to speak a segment, the best one first."""

    LIVE = "live"
    RETRY = "retry"  # the same voice again, immediately
    BACKUP = "backup"  # the patient's backup voice or the default voice, also if it is the conversation's own
    OFFLINE = "offline"


class StopReason(StrEnum):
    """The reasons not to request the segment again now. The last two are codes of the frame `speech.failed`."""

    BUSY = "busy"  # wait, then use the same strategy; after BUSY_WAIT_S the caller uses Strategy.OFFLINE
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
    """Return the step that follows after the last strategy in `tried` has failed with `error`.

    `tried` has the strategies of this segment in order. It is not empty. A strategy that was repeated because of
    `StopReason.BUSY` is in it twice.
    """
    kind = next(kind for kind in type(error).__mro__ if kind in _STEPS)
    if kind is Exception and tried[-1] is Strategy.BACKUP:
        # A segment that came to the backup voice without a provider failure is retried once in that voice.
        is_first_failure = Strategy.RETRY not in tried and tried.count(Strategy.BACKUP) == 1
        return Strategy.BACKUP if is_first_failure else Strategy.OFFLINE
    step = _STEPS[kind].get(tried[-1])
    if step is None:  # the offline voice failed; its process is restarted for the second attempt
        return Strategy.OFFLINE if tried.count(Strategy.OFFLINE) < 2 else StopReason.NO_VOICE
    return step


def incident_kind(error: Exception) -> str | None:
    """Return the kind of incident to open for this error, or None for an error that needs no administrator.

    `QuotaExceeded` gives None because `usage.provider_state.quota` opens and resolves that incident.
    """
    return next((_INCIDENTS[kind] for kind in type(error).__mro__ if kind in _INCIDENTS), None)


def first_byte_limit(strategy: Strategy, configured_s: float, elapsed_s: float) -> float:
    """Return the timeout for the first audio byte (docs/protocol.md, rule 4). All values are in seconds.

    `configured_s` is the timeout of the first attempt. `elapsed_s` is the time since the segment was needed, without
    waits for admission. The backup voice comes from the provider that has just failed twice, so it gets only the time
    that is left of MAX_SILENCE_S.
    """
    match strategy:
        case Strategy.RETRY:
            return min(configured_s, RETRY_FIRST_BYTE_TIMEOUT_S)
        case Strategy.BACKUP:
            return min(configured_s, max(MAX_SILENCE_S - elapsed_s, MIN_BACKUP_FIRST_BYTE_TIMEOUT_S))
    return configured_s
