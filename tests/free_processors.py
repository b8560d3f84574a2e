"""Whether the machine is free enough to judge a duration."""

import os
import subprocess
import sys

FREE_SHARE = 0.85
_WORK_S = 0.3
_MEASURE = f"""
import time
began, used = time.perf_counter(), time.process_time()
while time.process_time() - used < {_WORK_S}:
    pass
print({_WORK_S} / (time.perf_counter() - began))
"""


def free_processor_share() -> float:
    """Return the share of a processor that a program gets: 1 on a free machine.

    One process for each processor works for a moment. The one that gets least counts.
    """
    command = [sys.executable, "-c", _MEASURE]
    working = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(os.cpu_count() or 1)]
    return min(float(process.communicate()[0]) for process in working)
