"""A posted form reaches Django as it came: nobody reads it on the loop that live speech needs."""

import http.client
import json
import subprocess
import sys

import pytest

from tests.server import ROOT, ServerProcess

# Twisted refuses each of these by itself, with an empty body, if it reads forms.
UNREADABLE = ["multipart/form-data", f"multipart/form-data; boundary={'x' * 300}", "multipart/form-data; boundary=\xff"]


@pytest.mark.parametrize("kind", UNREADABLE, ids=["no boundary", "long boundary", "odd boundary"])
def test_a_form_that_nobody_can_read_is_answered_by_us(server: ServerProcess, kind: str):
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    client.request("POST", "/api/v1/auth/token/", b"--x--", {"Content-Type": kind})
    reply = client.getresponse()
    assert (reply.status, json.loads(reply.read())["code"]) == (415, "unsupported_media_type")
    client.close()


def test_under_another_server_there_is_nothing_to_do():
    code = (
        "from voicecare.infrastructure.daphne_patches import leave_unread; leave_unread(); "
        "import sys; print('twisted' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT).strip() == b"False"
