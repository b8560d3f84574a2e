"""The process that listens: `python -m cloning.samples.worker`, a recording on stdin, its figures as JSON on stdout.

What the decoder makes of a hostile file ends here, in a process that has no Django, no settings, no secrets in its
environment, and limits that the kernel keeps. Of voicecare it imports `audio.framing` alone, which loads nothing else.
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
MEMORY_LIMIT = 640 << 20  # of address space: three minutes take 330 MB, a quarter of an hour 375

_LIMITS = (
    (resource.RLIMIT_AS, MEMORY_LIMIT),
    (resource.RLIMIT_CPU, TIME_LIMIT_S),
    (resource.RLIMIT_FSIZE, 0),
    (resource.RLIMIT_CORE, 0),
    (resource.RLIMIT_NOFILE, 16),
)


def apply_resource_limits() -> None:
    for limit, value in _LIMITS:
        resource.setrlimit(limit, (value, value))
    signal.alarm(TIME_LIMIT_S)  # a parent that is killed cannot end us
    os.nice(10)  # live speech goes first


def main() -> None:
    apply_resource_limits()
    try:
        result = asdict(analyze(decode(sys.stdin.buffer.read(MAX_BYTES + 1))))
    except UnreadableAudio as unreadable:
        result = {"unreadable": unreadable.reason}
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main()
