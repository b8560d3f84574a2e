"""One of two hosts is cut off and dies. `python -m tests.chaos.two_hosts` does it with more devices, and for longer."""

import subprocess
import sys

import pytest

from tests.chaos.network import missing_tool
from tests.server import ROOT

pytestmark = [pytest.mark.services, pytest.mark.timeout(400)]


@pytest.mark.skipif(missing_tool() is not None, reason=str(missing_tool()))
def test_the_devices_of_a_host_that_fails_continue_on_the_other_one() -> None:
    seconds = ("--partition-s", "3", "--dead-s", "10", "--afterwards-s", "1")
    command = [sys.executable, "-m", "tests.chaos.two_hosts", "--devices", "6", *seconds]
    run = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
