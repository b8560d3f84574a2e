"""Daphne passes posted forms to Django unparsed. Parsing would block the event loop that live speech needs."""

import http.client
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests.server import ROOT, ServerProcess
from voicecare.infrastructure import daphne_patches

# If Twisted parses forms, it refuses each of these itself with an empty body.
UNREADABLE = ["multipart/form-data", f"multipart/form-data; boundary={'x' * 300}", "multipart/form-data; boundary=\xff"]


@pytest.mark.parametrize("kind", UNREADABLE, ids=["no boundary", "long boundary", "odd boundary"])
def test_an_unreadable_form_is_answered_by_the_application(server: ServerProcess, kind: str):
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    client.request("POST", "/api/v1/auth/token/", b"--x--", {"Content-Type": kind})
    reply = client.getresponse()
    assert (reply.status, json.loads(reply.read())["code"]) == (415, "unsupported_media_type")
    client.close()


def test_under_another_server_daphne_is_not_imported():
    code = (
        "from voicecare.infrastructure.daphne_patches import disable_form_parsing; disable_form_parsing(); "
        "import sys; print('daphne' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT).strip() == b"False"


@pytest.mark.parametrize("has_option", [True, False])
def test_daphne_is_patched_only_if_it_has_the_option(monkeypatch: pytest.MonkeyPatch, has_option: bool):
    class Request:
        def __init__(self, **options: bool) -> None:
            self.options = options

    class RequestWithOption(Request):
        def __init__(self, parsePOSTFormSubmission: bool = True) -> None:  # noqa: N803 - Twisted's name
            super().__init__(parsePOSTFormSubmission=parsePOSTFormSubmission)

    base = RequestWithOption if has_option else Request
    daphne = SimpleNamespace(http=SimpleNamespace(Request=base), WebRequest=type("WebRequest", (base,), {}))
    monkeypatch.setitem(sys.modules, "daphne.http_protocol", daphne)
    daphne_patches.disable_form_parsing()
    daphne_patches.disable_form_parsing()
    assert daphne.WebRequest().options == ({"parsePOSTFormSubmission": False} if has_option else {})
