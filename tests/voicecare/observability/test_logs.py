"""The log: one format for everything, and no texts of exceptions or arguments of libraries."""

import json
import subprocess
from typing import Any

import pytest

from tests.voicecare.test_settings import run_code
from voicecare.observability.logs import library_message

CANARY = "xylophone-canary"
SET_UP = f"""
import logging, sys, threading, warnings
import django
django.setup()
import structlog
from voicecare.observability import logs
log = structlog.get_logger("voicecare.trial")
CANARY = {CANARY!r}

def fail():
    try:
        raise ValueError("cause " + CANARY)
    except ValueError as error:
        raise RuntimeError("error " + CANARY) from error
"""


def written(code: str, **env: str) -> "subprocess.CompletedProcess[str]":
    return run_code(SET_UP + code, **env)


def events(code: str, **env: str) -> list[dict[str, Any]]:
    """Run the code with LOG_FORMAT=json and return its events."""
    process = written(code, LOG_FORMAT="json", **env)
    assert CANARY not in process.stdout + process.stderr
    return [json.loads(line) for line in process.stderr.splitlines()]


def test_json_has_one_object_for_each_event_with_its_fields():
    (event,) = events('log.info("speech.finished", utterance_id="u1", characters=12, first_chunk_ms=None)')
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "level": "info",
        "event": "speech.finished",
        "utterance_id": "u1",
        "characters": 12,
        "first_chunk_ms": None,
    }
    assert list(event)[:2] == ["level", "event"]


def test_plain_lines_have_the_same_facts():
    process = written('log.info("speech.finished", characters=12); logging.getLogger("celery.beat").info("Starting")')
    ours, theirs = process.stderr.splitlines()
    assert "[info" in ours
    assert "speech.finished" in ours
    assert "characters=12" in ours
    assert "Starting" in theirs
    assert "[celery.beat]" in theirs


@pytest.mark.parametrize(("level", "expected"), [("info", ["b", "c"]), ("debug", ["a", "b", "c"]), ("warning", ["c"])])
def test_the_level_applies_to_our_events(level: str, expected: list[str]):
    found = events('log.debug("a"); log.info("b"); log.warning("c")', LOG_LEVEL=level)
    assert [event["event"] for event in found] == expected


def test_debug_does_not_show_the_queries_of_django():
    query = 'logging.getLogger("django.db.backends").debug("SELECT %s", CANARY)'
    assert events(query, LOG_LEVEL="debug", DEBUG="1") == []


def test_standard_output_is_left_to_the_command():
    process = written('log.warning("a"); print("data")')
    assert process.stdout == "data\n"


def test_an_exception_is_logged_with_its_frames_and_without_its_text():
    code = """
try:
    fail()
except RuntimeError:
    log.exception("trial.failed")
"""
    (event,) = events(code)
    described = event["exception"]
    assert described.count("Traceback") == 2
    assert described.index("ValueError") < described.index("which led to") < described.index("RuntimeError")
    assert "in fail" in described
    plain = written(code)
    assert CANARY not in plain.stderr
    assert "RuntimeError" in plain.stderr


def test_an_error_of_a_view_is_logged_with_its_route_and_without_its_path():
    code = """
import types
from django.test import Client, override_settings
from django.urls import path
urls = types.ModuleType("trial_urls")
urls.urlpatterns = [path("reset/<str:token>/", lambda request, token: fail())]
sys.modules["trial_urls"] = urls
with override_settings(ROOT_URLCONF="trial_urls", MIDDLEWARE=[], ALLOWED_HOSTS=["*"]):
    client = Client(raise_request_exception=False)
    assert client.get(f"/reset/{CANARY}/?q={CANARY}").status_code == 500
"""
    (event,) = events(code, DEBUG="0")
    assert (event["logger"], event["level"], event["status"]) == ("django.request", "error", 500)
    assert event["route"] == "reset/<str:token>/"
    assert "RuntimeError" in event["exception"]


def test_uncaught_errors_and_warnings_are_events_without_their_texts():
    code = """
logs.log_uncaught_errors()
thread = threading.Thread(target=fail)
thread.start()
thread.join()

class Ignored:
    def __del__(self):
        fail()

Ignored()
warnings.warn("the configuration is old", UserWarning)
fail()
"""
    thread, ignored, warning, crashed = events(code)
    assert (thread["event"], ignored["event"], crashed["event"]) == (
        "thread.crashed",
        "error.ignored",
        "process.crashed",
    )
    assert all("RuntimeError" in event["exception"] for event in (thread, ignored, crashed))
    assert warning["level"] == "warning"
    assert "the configuration is old" in warning["event"]


def test_a_log_call_with_wrong_arguments_prints_its_template():
    (event,) = events('logging.getLogger("botocore").warning("%d of %s", CANARY, 1)')
    assert event["event"] == "%d of %s"


@pytest.mark.parametrize(
    ("logger", "template", "arguments", "message"),
    [
        ("daphne.server", "Listening on TCP address %s:%s", ("0.0.0.0", 8000), "Listening on TCP address 0.0.0.0:8000"),
        (
            "daphne.server",
            "Exception inside application: %s",
            (ValueError(CANARY),),
            "Exception inside application: ValueError",
        ),
        (
            "celery.beat",
            "Sending due task %s (%s)",
            ("heartbeat", "usage.heartbeat"),
            "Sending due task heartbeat (usage.heartbeat)",
        ),
        (
            "celery.app.trace",
            "Task %(name)s[%(id)s] raised unexpected: %(exc)s",
            {"name": "tts.warm_patient", "id": "1", "exc": repr(CANARY), "args": [CANARY]},
            "Task tts.warm_patient[1] raised unexpected: ...",
        ),
        (
            "celery.worker",
            "Task handler raised error: %r",
            (ValueError(CANARY),),
            "Task handler raised error: ValueError",
        ),
        ("django.request", "%s: %s", ("Not Found", f"/{CANARY}"), "...: ..."),
        ("celeryx", "%s", (CANARY,), "..."),
        ("botocore.retries", "Retry %d of %s", (2, CANARY), "Retry 2 of ..."),
        ("asyncio", f"Task exception was never retrieved\nfuture: {CANARY}", (), "Task exception was never retrieved"),
        ("urllib3", "%s\n%s", (CANARY, CANARY), "%s"),
        ("other", "50 % of %s", (), "50 % of %s"),
        ("other", OSError(111, CANARY), (), "ConnectionRefusedError [111]"),
    ],
)
def test_of_a_message_of_a_library_only_what_is_safe_is_kept(
    logger: str, template: object, arguments: object, message: str
):
    assert library_message(logger, template, arguments) == message
