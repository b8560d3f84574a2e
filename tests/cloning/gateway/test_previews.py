"""The published sample of a voice: which addresses are trusted, and how it is read over a real socket."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from cloning.gateway import previews
from voicecare.providers import errors

API = "https://api.elevenlabs.io"
SAMPLE = b"ID3 a sample of a voice"


@pytest.mark.parametrize(
    "address",
    [
        "https://storage.googleapis.com/eleven-public-prod/premade/voices/v1/a.mp3",
        "https://api.elevenlabs.io/v1/voices/v1/preview?a=b",
        "https://elevenlabs.io/a.mp3",
        "https://api.eu.residency.elevenlabs.io:443/a.mp3",
    ],
)
def test_addresses_of_the_provider_are_trusted(address: str):
    assert previews.trusted_address(address, API) == address


@pytest.mark.parametrize(
    "address",
    [
        "",
        "no address",
        "/eleven-public-prod/a.mp3",
        "http://elevenlabs.io/a.mp3",
        "https://elevenlabs.io:8443/a.mp3",
        "https://elevenlabs.io",
        "https://elevenlabs.io:port/a.mp3",
        "https://[elevenlabs.io/a.mp3",
        "https://evil-elevenlabs.io/a.mp3",
        "https://elevenlabs.io.evil.test/a.mp3",
        "https://elevenlabs.io@evil.test/a.mp3",
        "https://elevenlabs.io\\@evil.test/a.mp3",
        "https://storage.googleapis.com/another-bucket/a.mp3",
        "https://storage.googleapis.com/eleven-public-prod/../another-bucket/a.mp3",
        "https://169.254.169.254/latest/meta-data",
        "http://127.0.0.1:8000/admin/",
        "file:///etc/passwd",
    ],
)
def test_other_addresses_are_not(address: str):
    assert previews.trusted_address(address, API) is None


def test_user_names_and_fragments_are_left_out():
    assert previews.trusted_address("https://a:b@elevenlabs.io/a.mp3#x", API) == "https://elevenlabs.io/a.mp3"


def test_the_host_of_the_api_is_trusted_with_its_own_scheme_and_port():
    sandbox = "http://127.0.0.1:8101"
    assert previews.trusted_address(f"{sandbox}/a.mp3", sandbox) == f"{sandbox}/a.mp3"
    for other in ("http://127.0.0.1:6379/a.mp3", "https://127.0.0.1:8101/a.mp3", "http://localhost:8101/a.mp3"):
        assert previews.trusted_address(other, sandbox) is None


class _Handler(BaseHTTPRequestHandler):
    """Answers by its path. `requested` has all paths."""

    requested: ClassVar[list[str]] = []
    headers_seen: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.requested.append(self.path)
        self.headers_seen.extend(self.headers)
        status = {"/moved.mp3": 302, "/missing.mp3": 404}.get(self.path, 200)
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if self.path == "/page.mp3" else "audio/mpeg")
        self.send_header("Location", "/secret.mp3")
        self.end_headers()
        self.wfile.write(bytes(4_000_000) if self.path == "/long.mp3" else SAMPLE)

    def log_message(self, format: str, *args: object) -> None:
        """Prints nothing."""


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_sample_is_read_without_the_key(host: str):
    assert previews.read(f"{host}/a.mp3") == SAMPLE
    assert "xi-api-key" not in map(str.lower, _Handler.headers_seen)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/moved.mp3", errors.BadRequest),
        ("/missing.mp3", errors.BadRequest),
        ("/page.mp3", errors.NotAudio),
        ("/long.mp3", errors.ServerError),
    ],
)
def test_anything_but_a_short_recording_is_an_error(host: str, path: str, error: type[Exception]):
    with pytest.raises(error):
        previews.read(host + path)
    assert "/secret.mp3" not in _Handler.requested


def test_a_host_that_does_not_answer_is_an_error():
    with pytest.raises(errors.Unreachable):
        previews.read("http://127.0.0.1:1/a.mp3")
