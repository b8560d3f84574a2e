"""The fallback chain: every error with every strategy, and whole chains."""

import pytest

from tts.resilience.retry_policy import Decision, StopReason, Strategy, first_byte_limit, incident_kind, next_step
from voicecare.providers import errors as e

LIVE, RETRY, BACKUP, OFFLINE = Strategy
BUSY, QUOTA, REJECTED, NO_VOICE = StopReason


class SomethingNew(e.ProviderError):
    """An error class that is not in the table."""


class QuotaExceededForToday(e.QuotaExceeded):
    """A subclass of an error in the table."""


PROVIDER_FAILURES = [
    e.Unreachable,
    e.NoFirstByte,
    e.Stalled,
    e.ConnectionBroken,
    e.NotAudio,
    e.AudioTooShort,
    e.ServerError,
    e.ProviderError,
    SomethingNew,
    ValueError,
    OSError,
]

# For each error, the step after live, retry, backup, the first and the second offline attempt.
TABLE: dict[type[Exception], tuple[Decision, Decision, Decision, Decision, Decision]] = {
    **dict.fromkeys(PROVIDER_FAILURES, (RETRY, BACKUP, OFFLINE, OFFLINE, NO_VOICE)),
    e.VoiceUnavailable: (BACKUP, BACKUP, OFFLINE, OFFLINE, NO_VOICE),
    e.AuthorizationError: (OFFLINE, OFFLINE, OFFLINE, OFFLINE, NO_VOICE),
    e.BadRequest: (OFFLINE, OFFLINE, OFFLINE, OFFLINE, NO_VOICE),
    e.RateLimited: (BUSY, BUSY, BUSY, OFFLINE, NO_VOICE),
    e.QuotaExceeded: (QUOTA, QUOTA, QUOTA, OFFLINE, NO_VOICE),
    QuotaExceededForToday: (QUOTA, QUOTA, QUOTA, OFFLINE, NO_VOICE),
    e.TextRejected: (REJECTED, REJECTED, REJECTED, REJECTED, REJECTED),
}
TRIED = [[LIVE], [LIVE, RETRY], [LIVE, RETRY, BACKUP], [OFFLINE], [OFFLINE, OFFLINE]]
CASES = [
    pytest.param(error, tried, step, id=f"{error.__name__}-{'-'.join(tried)}")
    for error, steps in TABLE.items()
    for tried, step in zip(TRIED, steps, strict=True)
]


def made(error: type[Exception]) -> Exception:
    return error("what went wrong")


def kinds(root: type[e.ProviderError]) -> set[type[Exception]]:
    return {root, *(kind for child in root.__subclasses__() for kind in kinds(child))}


@pytest.mark.parametrize(("error", "tried", "step"), CASES)
def test_the_fallback_chain(error: type[Exception], tried: list[Strategy], step: Decision):
    assert next_step(made(error), tried) is step


def test_every_provider_error_is_in_the_table():
    ours = {kind for kind in kinds(e.ProviderError) if kind.__module__.startswith("voicecare.")}
    assert ours <= TABLE.keys()


@pytest.mark.parametrize(
    ("errors", "chain"),
    [
        ([], [LIVE]),
        ([e.Unreachable], [LIVE, RETRY]),
        ([e.Stalled, e.NoFirstByte], [LIVE, RETRY, BACKUP]),
        ([e.ServerError] * 3, [LIVE, RETRY, BACKUP, OFFLINE]),
        ([e.NotAudio] * 3 + [RuntimeError], [LIVE, RETRY, BACKUP, OFFLINE, OFFLINE]),
        ([e.ConnectionBroken] * 3 + [RuntimeError] * 2, [LIVE, RETRY, BACKUP, OFFLINE, OFFLINE, NO_VOICE]),
        ([e.VoiceUnavailable], [LIVE, BACKUP]),
        ([e.VoiceUnavailable, e.VoiceUnavailable], [LIVE, BACKUP, OFFLINE]),
        ([e.VoiceUnavailable, e.ServerError, e.ServerError], [LIVE, BACKUP, BACKUP, OFFLINE]),
        ([e.Stalled, e.VoiceUnavailable], [LIVE, RETRY, BACKUP]),
        ([e.AuthorizationError], [LIVE, OFFLINE]),
        ([e.ServerError, e.BadRequest, OSError], [LIVE, RETRY, OFFLINE, OFFLINE]),
        ([e.TextRejected], [LIVE, REJECTED]),
        ([e.Stalled, e.TextRejected], [LIVE, RETRY, REJECTED]),
        ([e.QuotaExceeded], [LIVE, QUOTA]),
        ([e.Stalled, e.QuotaExceeded], [LIVE, RETRY, QUOTA]),
        ([e.RateLimited, e.RateLimited], [LIVE, BUSY, LIVE, BUSY, LIVE]),
        ([e.RateLimited, e.Stalled, e.RateLimited, e.Stalled], [LIVE, BUSY, LIVE, RETRY, BUSY, RETRY, BACKUP]),
    ],
)
def test_whole_chains(errors: list[type[Exception]], chain: list[Decision]):
    """A chain as the pipeline makes it: one error after another. After a busy provider the same strategy follows."""
    tried, steps = [LIVE], [LIVE]
    for error in errors:
        step = next_step(made(error), tried)
        steps.append(step)
        if step is BUSY:
            step = tried[-1]
            steps.append(step)
        if isinstance(step, Strategy):
            tried.append(step)
    assert steps == chain


def test_a_segment_that_begins_in_the_backup_voice_is_retried_in_it_once():
    assert next_step(made(e.ServerError), [BACKUP]) is BACKUP
    assert next_step(made(e.ServerError), [BACKUP, BACKUP]) is OFFLINE
    assert next_step(made(e.ServerError), [LIVE, BACKUP]) is BACKUP  # the conversation's voice was gone
    assert next_step(made(e.ServerError), [LIVE, RETRY, BACKUP]) is OFFLINE
    assert next_step(made(e.VoiceUnavailable), [BACKUP]) is OFFLINE


def test_while_the_provider_is_down_the_offline_voice_has_two_attempts():
    assert next_step(OSError("gone"), [OFFLINE]) is OFFLINE
    assert next_step(OSError("gone"), [OFFLINE, OFFLINE]) is NO_VOICE


@pytest.mark.parametrize("error", TABLE)
def test_incidents(error: type[Exception]):
    kind = {e.AuthorizationError: "access", e.BadRequest: "request", e.VoiceUnavailable: "voice"}.get(error)
    assert incident_kind(made(error)) == kind


@pytest.mark.parametrize(
    ("strategy", "configured", "silence_s", "limit"),
    [
        (LIVE, 1.5, 0.0, 1.5),
        (RETRY, 1.5, 1.5, 1.0),
        (RETRY, 0.4, 0.4, 0.4),
        (BACKUP, 1.5, 0.1, 1.5),
        (BACKUP, 1.5, 2.0, 0.8),
        (BACKUP, 1.5, 2.5, 0.3),
        (BACKUP, 1.5, 60.0, 0.3),
        (BACKUP, 0.2, 60.0, 0.2),
        (OFFLINE, 1.5, 9.0, 1.5),
    ],
)
def test_the_timeout_for_the_first_byte(strategy: Strategy, configured: float, silence_s: float, limit: float):
    assert first_byte_limit(strategy, configured, silence_s) == pytest.approx(limit)


def test_a_provider_that_never_answers_costs_under_three_seconds():
    silence = 0.0
    for strategy in (LIVE, RETRY, BACKUP):
        silence += first_byte_limit(strategy, 1.5, silence)
    assert silence <= 2.8


def test_the_names_are_those_of_the_device_protocol():
    assert list(map(str, Strategy)) == ["live", "retry", "backup", "offline"]
    assert (str(REJECTED), str(NO_VOICE)) == ("text_rejected", "no_voice")
