"""The sandbox as a child process, for tests that need a provider on a real socket.

with SandboxProcess() as sandbox:
    sandbox.fault(kind="cut", after_bytes=1000, first=1)
    ...  # speak against sandbox.url
    assert sandbox.requests()[0]["outcome"] == "cut"
"""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent
ANNOUNCEMENT = "sandbox: "


class SandboxProcess:
    """A running sandbox. The constructor returns when it listens. `url` is its base URL without a slash at the end.

    `env` is added to the environment. Further arguments go to the command, for example "--first-byte-ms", "0".
    """

    def __init__(self, env: Mapping[str, str] | None = None, *arguments: str) -> None:
        command = [sys.executable, str(ROOT / "manage.py"), "sandbox", "--port", "0", *arguments]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **(env or {})}, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith(ANNOUNCEMENT):
            self.process.kill()
            raise RuntimeError(f"The sandbox did not start (exit code {self.process.wait()}): {line!r}")
        self.url = line.removeprefix(ANNOUNCEMENT).strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def reset(self) -> None:
        """Restore the initial account, voices, settings, faults and records."""
        self._call("POST", "/sandbox/reset")

    def fault(self, **fields: Any) -> dict[str, Any]:
        """Add a fault after the existing ones. Raises ValueError with the sandbox's message for an invalid field."""
        return self._call("POST", "/sandbox/faults", fields)

    def clear_faults(self) -> None:
        self._call("DELETE", "/sandbox/faults")

    def faults(self) -> list[dict[str, Any]]:
        """All faults, each with `seen`, `hits` and `spent`."""
        return self._call("GET", "/sandbox/faults")

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Change the named settings, if any. Returns all settings."""
        return self._call("PUT", "/sandbox/settings", changes)

    def requests(self) -> list[dict[str, Any]]:
        """All speech requests since the start or the last reset, in order of arrival."""
        return self._call("GET", "/sandbox/requests")

    def wait_until_idle(self, timeout_s: float = 5) -> list[dict[str, Any]]:
        """Wait until no request is in progress, and return all requests. Raises TimeoutError.

        This call blocks. In a coroutine, call it in a thread, so that a client on the same event loop can finish.
        """
        deadline = time.monotonic() + timeout_s
        while (requests := self.requests()) and "open" in {request["outcome"] for request in requests}:
            if time.monotonic() > deadline:
                raise TimeoutError(f"still in progress: {requests}")
            time.sleep(0.01)
        return requests

    def account(self) -> dict[str, Any]:
        """The billed `requests`, `characters` and `credits`, `in_flight`, and the fields of the subscription."""
        return self._call("GET", "/sandbox/account")

    def add_external_usage(self, text: str, **fields: Any) -> dict[str, Any]:
        """Bill a text as if another user of the account had requested it, at `unix` or now."""
        return self._call("POST", "/sandbox/sales", {"text": text, **fields})

    def add_voice(self, name: str, **fields: Any) -> dict[str, Any]:
        """Add a voice to the account: `category`, `labels`, `rate`, `needs_plan`. Returns it as the provider does."""
        return self._call("POST", "/sandbox/voices", {"name": name, **fields})

    def retire_voice(self, voice_id: str, in_days: float = 0) -> dict[str, Any]:
        """Let a voice end in this many days, with notice, or at once."""
        return self._call("POST", "/sandbox/voices/retire", {"voice_id": voice_id, "in_days": in_days})

    def stop(self) -> int:
        """Send SIGTERM. Returns the exit code, which is 0 after a clean stop."""
        self.process.terminate()
        assert self.process.stdout is not None
        self.process.stdout.close()
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            raise ValueError(json.load(error)["error"]) from error
