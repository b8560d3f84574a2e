"""The systemd units."""

import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest

from tests.deploy.test_procfile import LINES
from tests.server import ROOT

UNITS = {path.name.removesuffix(".service").rstrip("@"): path for path in (ROOT / "deploy/systemd").iterdir()}


@pytest.mark.parametrize("name", LINES)
def test_each_line_of_the_procfile_has_a_unit(name: str):
    unit = ConfigParser(strict=False, interpolation=None)  # Environment may occur twice
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(UNITS[f"voicecare-{name}"])
    assert unit["Service"]["ExecStart"] == f"/opt/voicecare/deploy/run {name}"
    assert unit["Service"]["Restart"] == "always"


def test_systemd_accepts_the_units(tmp_path: Path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd is not installed")
    for path in UNITS.values():
        # systemd checks that the program exists.
        text = path.read_text().replace("/opt/voicecare/deploy/run", str(ROOT / "deploy/run"))
        (tmp_path / path.name.replace("@", "@8000")).write_text(text)
    units = [str(path) for path in tmp_path.iterdir()]
    verified = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")
