"""The order of the tests: see `pytest_collection_modifyitems` in tests/conftest.py."""

import subprocess
import sys

SERVER = "tests/e2e/test_handshake.py"
NO_SERVER = "tests/tts/resilience/test_quota_gate.py"


def test_files_that_use_a_server_come_last() -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", SERVER, NO_SERVER]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    files = [line.partition("::")[0] for line in listed if "::" in line]
    assert list(dict.fromkeys(files)) == [NO_SERVER, SERVER]
