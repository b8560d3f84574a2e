"""The client package stands alone: device makers install it without the server."""

import ast
import sys

import pytest

from tests.server import ROOT

PACKAGE = ROOT / "clients/python/voicecare_client"
ALLOWED = {*sys.stdlib_module_names, "websockets", "voicecare_client"}


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.name)
def test_it_imports_nothing_but_websockets(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        assert {name.split(".")[0] for name in names} <= ALLOWED


def test_it_has_its_type_marker():
    assert (PACKAGE / "py.typed").exists()
