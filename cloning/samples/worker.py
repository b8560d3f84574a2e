"""The child process that inspects a recording: `python -m cloning.samples.worker`.

It reads the recording from stdin and writes its metrics to stdout as JSON. A malicious file can only harm this process.
The process has no Django, no settings, no secrets in its environment, and resource limits that the kernel enforces.
It must start fast, so its only import from voicecare is `audio.framing`, which loads no other package.
"""

import json
import os
import resource
import signal
import sys
from dataclasses import asdict

from cloning.samples.decoding import decode
from cloning.samples.formats import MAX_BYTES, UnreadableAudio
from cloning.samples.quality import analyze

TIME_LIMIT_S = 30
MEMORY_LIMIT = 640 << 20  # bytes of address space; three minutes of sound take 330 MB, fifteen minutes 375 MB

_LIMITS = (
    (resource.RLIMIT_AS, MEMORY_LIMIT),
    (resource.RLIMIT_CPU, TIME_LIMIT_S),
    (resource.RLIMIT_FSIZE, 0),
    (resource.RLIMIT_CORE, 0),
    (resource.RLIMIT_NOFILE, 16),
)


def apply_resource_limits() -> None:
    """Limits memory, processor time, files and wall-clock time of this process, and lowers its priority."""
    for limit, value in _LIMITS:
        resource.setrlimit(limit, (value, value))
    signal.alarm(TIME_LIMIT_S)  # the time limit also holds if the parent is killed
    os.nice(10)  # live speech has priority


def main() -> None:
    """Writes the metrics as a JSON object, or `{"unreadable": reason}`."""
    apply_resource_limits()
    try:
        result = asdict(analyze(decode(sys.stdin.buffer.read(MAX_BYTES + 1))))
    except UnreadableAudio as unreadable:
        result = {"unreadable": unreadable.reason}
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main()
