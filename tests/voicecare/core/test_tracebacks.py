"""Descriptions of exceptions have the frames and the types, and no texts."""

import errno

import psycopg

from voicecare.core.tracebacks import describe, name

CANARY = "xylophone-canary"


def raised(how: str) -> BaseException:
    """Return the exception of a statement that runs while a KeyError is handled."""
    try:
        try:
            raise KeyError(CANARY)
        except KeyError:
            exec(how, {"CANARY": CANARY})
    except RuntimeError as error:
        return error
    raise AssertionError


def test_the_cause_comes_first_and_no_text_is_kept():
    described = describe(raised("raise RuntimeError(CANARY) from ValueError(CANARY)"))
    assert described.index("ValueError") < described.index("which led to") < described.index("RuntimeError")
    assert "in raised" in described
    assert CANARY not in described
    assert "KeyError" not in described.replace("raise KeyError", "")


def test_without_a_cause_the_context_is_described_unless_it_is_hidden():
    assert "KeyError" in describe(raised("raise RuntimeError(CANARY)"))
    assert "which led to" not in describe(raised("raise RuntimeError(CANARY) from None"))


def test_an_endless_chain_of_causes_ends():
    error = ValueError()
    error.__cause__ = error
    assert describe(error).endswith("ValueError")


def test_the_name_has_the_code_of_the_system_or_the_database():
    assert name(ConnectionRefusedError(errno.ECONNREFUSED, CANARY)) == f"ConnectionRefusedError [{errno.ECONNREFUSED}]"
    assert name(psycopg.errors.UniqueViolation(CANARY)) == "UniqueViolation [23505]"
    assert name(KeyError(CANARY)) == "KeyError"
