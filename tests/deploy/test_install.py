"""The commands of docs/install.md, without running them. `make install-test` runs those of "Without containers"."""

import re
import subprocess

import pytest

from tests.deploy.install import script, steps
from tests.server import ROOT

PAGES = ("docs/install.md", "docs/backup.md", "docs/operation.md", "README.md", "CONTRIBUTING.md")


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_valid_shell(page: str):
    blocks = re.findall(r"^```sh\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)


def test_the_install_test_finds_all_steps():
    assert [step.title[0] for step in steps()] == ["1", "2", "3", "4", "5"]
    assert all(step.lines for step in steps())


def test_the_install_test_answers_setup_and_passes_its_token_on():
    assert "manage setup </root/answers\n" in script()
    assert "--token TOKEN" not in script()
    assert "METRICS_TOKEN=" in script()
