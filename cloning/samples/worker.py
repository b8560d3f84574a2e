"""The child process that inspects a recording: `python -m cloning.samples.worker`.

It reads the recording from stdin. It writes the metrics of the recording to stdout as JSON, followed by the audio file
that the provider gets, if this is not the recording itself. A malicious file can only harm this process, which has no
Django, no settings, no secrets in its environment, and resource limits that the kernel enforces. It must start fast, so
its only import from voicecare is `audio.framing`, which loads no other package.
"""

import json
import os
import resource
import signal
import sys
from contextlib import suppress
from dataclasses import asdict

from cloning.samples.conversion import media_type, replacement
from cloning.samples.decoding import decode
from cloning.samples.formats import MAX_BYTES, UnreadableAudio
from cloning.samples.quality import analyze
from cloning.samples.repair import plan

TIME_LIMIT_S = 30  # of processor time
WALL_TIME_LIMIT_S = 60  # a busy machine gives this process half of a processor or less
MEMORY_LIMIT = 1024 << 20  # bytes of address space; fifteen minutes of eight channels take 700 MB

_LIMITS = (
    (resource.RLIMIT_CPU, TIME_LIMIT_S),
    (resource.RLIMIT_FSIZE, 0),
    (resource.RLIMIT_CORE, 0),
    (resource.RLIMIT_NOFILE, 16),
)


def apply_resource_limits() -> None:
    """Limits memory, processor time, files and wall-clock time of this process, and lowers its priority."""
    with suppress(ValueError, OSError):  # macOS has no such limit; the time limit and the limit of the input still hold
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    for limit, value in _LIMITS:
        resource.setrlimit(limit, (value, value))
    signal.alarm(WALL_TIME_LIMIT_S)  # the time limit also holds if the parent is killed
    os.nice(10)  # live speech has priority


def main() -> None:
    """Inspects the recording on stdin.

    Writes one line with a JSON object to stdout, and then the file for the provider. The object has `media_type` and
    `metrics`, or `unreadable` with the reason if the file cannot be decoded. No file follows if the provider can get
    the recording itself.
    """
    apply_resource_limits()
    replaced = b""
    try:
        sample = decode(sys.stdin.buffer.read(MAX_BYTES + 1))
        metrics = analyze(sample)
        repairs = plan(metrics)
        result = {"media_type": media_type(sample, repairs), "metrics": asdict(metrics)}
        replaced = replacement(sample, repairs)
    except UnreadableAudio as unreadable:
        result = {"unreadable": unreadable.reason}
    sys.stdout.buffer.write(json.dumps(result).encode() + b"\n" + replaced)


if __name__ == "__main__":
    main()
