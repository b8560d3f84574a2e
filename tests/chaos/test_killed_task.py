"""A periodic task whose worker process is killed again and again is reported to administrators."""

import os
import signal
import time

import pytest

from tests.chaos.cluster import Cluster
from tests.chaos.test_outages import ADD_PHRASE, is_generating_a_phrase
from tests.processes import child_processes
from tests.waiting import until
from tts.resilience.concurrency import LEASE_S
from usage.alerts.periodic_tasks import FAILURES_BEFORE_INCIDENT

pytestmark = [pytest.mark.services, pytest.mark.timeout(180)]

FAILURES = "SELECT failures FROM usage_taskfailure WHERE name = 'tts.warm_due'"
INCIDENTS = "SELECT key, resolved_at IS NULL FROM usage_incident WHERE kind = 'task'"


def kill_worker_processes(cluster: Cluster) -> None:
    """Kill the child processes of the worker, as the kernel does when memory is short. The worker starts others."""
    for child in child_processes(cluster.workers[-1].pid):
        os.kill(child, signal.SIGKILL)


def test_a_task_that_is_killed_three_times_opens_an_incident(cluster: Cluster) -> None:
    cluster.seed(1)
    cluster.start_worker()
    for number in range(FAILURES_BEFORE_INCIDENT):
        cluster.sandbox.reset()
        cluster.sandbox.fault(kind="slow", bytes_per_s=2_000, match={"text": "^This phrase"})
        cluster.execute(ADD_PHRASE, f"This phrase, number {number}, is being made when its maker is killed.")
        cluster.enqueue_task("tts.warm_due")
        until(lambda: is_generating_a_phrase(cluster), 60)
        kill_worker_processes(cluster)
        until(lambda: cluster.query(FAILURES), 30, wanted=lambda rows, wanted=number + 1: rows == [(wanted,)])
        time.sleep(LEASE_S)  # the killed process has the only slot for background work until then
    assert cluster.query(INCIDENTS) == [("tts.warm_due", True)]
    cluster.sandbox.clear_faults()
    cluster.enqueue_task("tts.warm_due")
    until(lambda: cluster.query(INCIDENTS), 60, wanted=lambda rows: rows == [("tts.warm_due", False)])
