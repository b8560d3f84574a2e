"""The check that a machine is free enough for tests that measure time."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.free_processors import FREE_SHARE, free_processor_share

BUSY = "while True: pass"


@contextmanager
def busy_machine() -> Iterator[None]:
    """Two processes for each processor work all the time."""
    with ExitStack() as stack:
        for _ in range(2 * (os.cpu_count() or 1)):
            process = stack.enter_context(subprocess.Popen([sys.executable, "-c", BUSY]))
            stack.callback(process.kill)
        yield


def test_a_busy_machine_is_not_free():
    with busy_machine():
        assert free_processor_share() < FREE_SHARE
