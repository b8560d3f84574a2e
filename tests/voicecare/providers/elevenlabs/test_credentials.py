"""The API key from a file that changes while the server runs."""

import os
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from voicecare.providers.elevenlabs import credentials
from voicecare.providers.elevenlabs.credentials import MAX_KEY_BYTES, SETTLE_S, KeyFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "key"


def write(path: Path, content: bytes, *, age_s: float = SETTLE_S + 1) -> None:
    """Write the file so that it seems to have been written `age_s` seconds ago."""
    path.write_bytes(content)
    os.utime(path, (time.time() - age_s,) * 2)


def test_white_space_around_the_key_is_ignored(path: Path):
    write(path, b"  sk_one\r\n")
    assert KeyFile(path).read() == "sk_one"


def test_a_changed_file_is_read_again(path: Path):
    key = KeyFile(path)
    write(path, b"sk_one\n", age_s=100)
    assert (key.read(), key.changed_at) == ("sk_one", None)
    write(path, b"sk_two\n")
    assert key.read() == "sk_two"
    assert key.changed_at is not None


def test_a_replaced_file_with_the_same_key_is_no_change(path: Path):
    key = KeyFile(path)
    write(path, b"sk_one\n", age_s=100)
    key.read()
    write(path, b"sk_one")
    assert (key.read(), key.changed_at) == ("sk_one", None)


@pytest.mark.parametrize(
    "content",
    [b"", b" \n", b"sk_one\nsk_two", b"sk one", b"\xff\xfe", "schlüssel".encode(), b"k" * (MAX_KEY_BYTES + 1)],
    ids=["empty", "white space", "two lines", "with a space", "binary", "not ASCII", "too long"],
)
def test_a_file_without_a_key_leaves_the_last_key_in_use(path: Path, content: bytes):
    key = KeyFile(path)
    write(path, b"sk_one", age_s=100)
    key.read()
    write(path, content)
    with capture_logs() as logs:
        assert [key.read(), key.read()] == ["sk_one", "sk_one"]
    assert [(line["event"], line["reason"]) for line in logs] == [("provider.key_file_unusable", "no_key")]
    write(path, b"sk_two", age_s=50)
    assert key.read() == "sk_two"


def test_a_missing_file_leaves_the_last_key_in_use(path: Path):
    key = KeyFile(path)
    write(path, b"sk_one")
    key.read()
    path.unlink()
    assert key.read() == "sk_one"


def test_without_a_first_key_the_result_is_empty(path: Path):
    key = KeyFile(path)
    with capture_logs() as logs:
        assert [key.read(), key.read()] == ["", ""]
    assert [line["reason"] for line in logs] == ["FileNotFoundError"]
    path.mkdir()
    assert key.read() == ""


def test_a_file_that_may_be_half_written_is_read_when_it_has_settled(path: Path):
    key = KeyFile(path)
    write(path, b"sk_one", age_s=100)
    key.read()
    write(path, b"sk_t", age_s=0)
    assert key.read() == "sk_one"
    write(path, b"sk_two")
    assert key.read() == "sk_two"


def test_the_first_key_is_used_at_once(path: Path):
    path.write_bytes(b"sk_one")
    assert KeyFile(path).read() == "sk_one"


def test_no_log_line_has_a_key(path: Path):
    key = KeyFile(path)
    with capture_logs() as logs:
        for content in (b"sk_secret_1", b"sk_secret_2", b"sk_secret_3 x"):
            write(path, content, age_s=len(logs) + 5)
            key.read()
    assert [line["event"] for line in logs] == ["provider.key_changed", "provider.key_file_unusable"]
    assert "secret" not in str(logs)


def test_the_setting_decides(path: Path, settings):
    write(path, b"sk_file")
    settings.ELEVENLABS_API_KEY = "sk_variable"
    assert credentials.api_key() == "sk_variable"
    settings.ELEVENLABS_API_KEY, settings.ELEVENLABS_API_KEY_FILE = "", str(path)
    assert (credentials.api_key(), credentials.key_changed_at()) == ("sk_file", None)
    settings.ELEVENLABS_API_KEY_FILE = ""
    assert credentials.api_key() == "sandbox"
