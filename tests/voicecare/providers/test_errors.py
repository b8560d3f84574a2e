"""The error classes: `retryable`, codes, messages and pickling."""

import pickle

import pytest

from voicecare.core.errors import VoicecareError
from voicecare.providers import errors as e

RETRYABLE = {
    e.Unreachable: True,
    e.NoFirstByte: True,
    e.Stalled: True,
    e.ConnectionBroken: True,
    e.NotAudio: True,
    e.AudioTooShort: True,
    e.ServerError: True,
    e.RateLimited: True,
    e.QuotaExceeded: False,
    e.VoiceUnavailable: False,
    e.AuthorizationError: False,
    e.TextRejected: False,
    e.BadRequest: False,
}


def test_the_docstring_lists_all_errors() -> None:
    ours = {kind for kind in e.ProviderError.__subclasses__() if kind.__module__ == e.__name__}
    assert ours == set(RETRYABLE)
    assert issubclass(e.ProviderError, VoicecareError)
    for kind in RETRYABLE:
        assert kind.__name__ in (e.__doc__ or "")


@pytest.mark.parametrize(("kind", "retryable"), RETRYABLE.items())
def test_each_class_has_its_own_code_and_message(kind: type[e.ProviderError], retryable: bool) -> None:
    error = kind()
    assert error.retryable is retryable
    assert error.message == str(error) == kind.default_message
    assert [
        other for other in RETRYABLE if (other.code, other.default_message) == (kind.code, kind.default_message)
    ] == [kind]
    assert (error.status, error.request_id, error.trace_id) == (None, None, None)


def test_the_code_and_ids_of_the_provider_are_kept() -> None:
    error = e.RateLimited("At most 5 at once.", code="system_busy", status=429, request_id="r", trace_id="t")
    assert error.as_body() == {"detail": "At most 5 at once.", "code": "system_busy"}
    assert (error.status, error.request_id, error.trace_id) == (429, "r", "t")
    assert e.RateLimited().code == "busy"


def test_errors_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(e.RateLimited("wait", code="system_busy", status=429, request_id="r")))
    assert (type(error), error.message, error.code, error.status, error.request_id) == (
        e.RateLimited,
        "wait",
        "system_busy",
        429,
        "r",
    )
