"""Error reports, as a server receives them."""

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.collector import Collector
from tests.voicecare.observability.test_logs import CANARY, SET_UP
from tests.voicecare.test_settings import run_code

START = """
from voicecare.observability import processes
processes.set_up()
"""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


def run(code: str, collector: Collector) -> "subprocess.CompletedProcess[str]":
    process = run_code(SET_UP + START + code, SENTRY_DSN=collector.environment["SENTRY_DSN"])
    assert CANARY not in process.stdout + process.stderr + collector.everything()
    return process


def only_report(collector: Collector) -> dict[str, Any]:
    (report,) = collector.reports()
    return report


def test_an_error_of_a_view_is_reported_with_its_route_and_its_frames(collector: Collector):
    code = """
import types
from django.test import Client, override_settings
from django.urls import path

def view(request, token):
    patient = CANARY
    fail()

urls = types.ModuleType("trial_urls")
urls.urlpatterns = [path("reset/<str:token>/", view)]
sys.modules["trial_urls"] = urls
with override_settings(ROOT_URLCONF="trial_urls", MIDDLEWARE=[], ALLOWED_HOSTS=["*"]):
    client = Client(raise_request_exception=False)
    sent = {"data": {"text": CANARY}, "headers": {"Authorization": CANARY, "Cookie": CANARY}}
    assert client.post(f"/reset/{CANARY}/?q={CANARY}", **sent).status_code == 500
"""
    run(code, collector)
    report = only_report(collector)
    assert report["transaction"] == "/reset/{token}/"
    cause, error = report["exception"]["values"]
    assert (cause["type"], error["type"], error["value"]) == ("ValueError", "RuntimeError", "")
    frames = error["stacktrace"]["frames"]
    assert [frame["function"] for frame in frames][-2:] == ["view", "fail"]
    assert not any("vars" in frame for frame in frames)
    assert report.keys().isdisjoint({"request", "user", "breadcrumbs", "contexts", "tags", "modules"})


def test_an_error_in_the_log_is_reported_with_its_event_and_its_fields(collector: Collector):
    run(
        """
try:
    fail()
except RuntimeError:
    log.exception("trial.failed", utterance_id="u1")
""",
        collector,
    )
    report = only_report(collector)
    assert report["logentry"] == {"message": "trial.failed"}
    assert report["extra"]["utterance_id"] == "u1"
    assert report["level"] == "error"
    assert [value["type"] for value in report["exception"]["values"]] == ["ValueError", "RuntimeError"]


def test_a_message_of_a_library_is_reported_without_its_arguments(collector: Collector):
    run('logging.getLogger("botocore").error("No answer of %s after %d s", CANARY, 3)', collector)
    assert only_report(collector)["logentry"] == {"message": "No answer of ... after 3 s"}


def test_a_thread_that_crashes_is_reported(collector: Collector):
    run("thread = threading.Thread(target=fail); thread.start(); thread.join()", collector)
    report = only_report(collector)
    assert report["logentry"] == {"message": "thread.crashed"}
    assert report["exception"]["values"][-1]["type"] == "RuntimeError"


def test_the_other_events_are_not_reported(collector: Collector):
    run('log.info("speech.finished", note=1); log.warning("quota.exhausted")', collector)
    assert collector.reports() == []


def test_the_end_of_a_process_prints_nothing(collector: Collector):
    process = run('log.error("trial.failed")', collector)
    assert (process.stdout, len(process.stderr.splitlines())) == ("", 1)


def test_without_the_variables_no_library_is_loaded():
    """They would add to the memory and the start of each process."""
    code = """
import sys
sys.modules["opentelemetry"] = None  # as without requirements-traces.txt; redis-py loads what is installed
import voicecare.asgi, voicecare.celery
voicecare.celery.set_up_logging(20)
print("sentry_sdk" in sys.modules)
"""
    process = run_code(code, SENTRY_DSN="", OTEL_EXPORTER_OTLP_ENDPOINT="")
    assert process.stdout == "False\n", process.stderr
