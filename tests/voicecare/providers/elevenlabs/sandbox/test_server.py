"""The sandbox as a process: its start, its output and its stop."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.processes import child_processes
from tests.sandbox import ROOT, SandboxProcess
from tests.waiting import until

SPEECH = "/v1/text-to-speech/21m00Tcm4TlvDq8ikWAM/stream"


def speak(url: str, text: str = "Hello.") -> bytes:
    headers = {"xi-api-key": "any", "Content-Type": "application/json"}
    request = urllib.request.Request(url + SPEECH, json.dumps({"text": text}).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as reply:
        return reply.read()


@contextmanager
def listening_client(sandbox: SandboxProcess, text: str) -> Iterator[list[Exception]]:
    """Read speech in a thread during the block. The yielded list gets its exception."""
    failures: list[Exception] = []

    def listen() -> None:
        try:
            speak(sandbox.url, text)
        except Exception as error:
            failures.append(error)

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        yield failures
    finally:
        listener.join(30)


def wait_until_it_sends(sandbox: SandboxProcess) -> None:
    def sent() -> list[tuple[int, str, int]]:
        return [(request["status"], request["outcome"], request["bytes_sent"]) for request in sandbox.requests()]

    until(sent, wanted=lambda requests: any(bytes_sent for _, _, bytes_sent in requests))


@pytest.mark.parametrize("host", ["127.0.0.2", "localhost"])
def test_it_listens_on_the_host_of_the_settings(host: str) -> None:
    with SandboxProcess({"SANDBOX_HOST": host}) as sandbox:
        assert sandbox.url.startswith(f"http://{host}:")
        assert speak(sandbox.url)
        if host != "localhost":
            with pytest.raises(OSError, match="refused"):
                speak(sandbox.url.replace(host, "127.0.0.1"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_immediately_during_a_response(number: int) -> None:
    sandbox = SandboxProcess(None, "--first-byte-ms", "7")
    assert sandbox.settings()["first_byte_ms"] == 7
    sandbox.fault(kind="stall_middle", after_bytes=10)
    with listening_client(sandbox, "Hello.") as failures:
        wait_until_it_sends(sandbox)
        sandbox.process.send_signal(number)
        assert sandbox.process.wait(10) == 0
    assert len(failures) == 1
    assert sandbox.process.stdout.read() == ""  # the only line was read at the start


def test_a_port_in_use_is_reported(sandbox: SandboxProcess) -> None:
    port = sandbox.url.rpartition(":")[2]
    command = [sys.executable, "manage.py", "sandbox", "--port", port]
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 1
    assert second.stdout == ""
    assert f"cannot listen on port {port}" in second.stderr
    assert "Traceback" not in second.stderr


def test_it_survives_a_crash_of_the_espeak_worker(sandbox: SandboxProcess) -> None:
    sandbox.settings(first_byte_ms=0)
    # The sandbox still sends audio that was made before the crash, up to the window of 256 KiB. At this rate, the ten
    # minutes of audio are not complete before the crash, and the rest is sent in seconds.
    sandbox.fault(kind="slow", bytes_per_s=200_000, first=1)
    with listening_client(
        sandbox, text="A long text, of which not all is made when its maker is lost. " * 160
    ) as failures:
        wait_until_it_sends(sandbox)
        (child,) = child_processes(sandbox.process.pid)
        os.kill(child, signal.SIGKILL)
    assert isinstance(failures[0], http.client.IncompleteRead)
    assert [request["outcome"] for request in sandbox.wait_until_idle()] == ["failed"]
    assert len(speak(sandbox.url)) > 1000


def test_the_package_does_not_need_django() -> None:
    code = (
        "import sys; sys.modules['django'] = None; import voicecare.providers.elevenlabs.sandbox.server; "
        "print([name for name in sys.modules if name.startswith(('tts', 'usage', 'rest_framework'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
