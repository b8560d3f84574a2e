"""The base class of errors, and its body for REST."""

from tts.conversations.lifecycle import UnknownConversation
from voicecare.core.errors import VoicecareError


class Refused(VoicecareError):
    code = "refused"
    retryable = True


def test_an_error_has_its_classs_code_and_verdict():
    error = Refused("Try again.")
    assert (error.code, error.message, error.retryable, str(error)) == ("refused", "Try again.", True, "Try again.")


def test_whoever_raises_it_may_know_a_better_code():
    assert (Refused("Try again.", code="busy").code, Refused.code) == ("busy", "refused")


def test_unless_said_otherwise_nothing_can_be_retried():
    assert VoicecareError("No.").retryable is False
    assert VoicecareError("No.").code == "error"


def test_the_body_of_a_rest_response_has_its_message_and_code():
    assert Refused("Try again.").as_body() == {"detail": "Try again.", "code": "refused"}


def test_a_conversation_that_is_not_there_has_the_contracts_code():
    assert UnknownConversation("There is none.").code == "unknown_id"
