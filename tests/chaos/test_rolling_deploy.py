"""An upgrade of this version to itself while ten devices talk. `python -m tests.chaos.rolling_deploy` does more."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.chaos.rolling_deploy import run
from tests.server import HERE

pytestmark = [pytest.mark.services, pytest.mark.timeout(400)]


def test_an_upgrade_loses_no_sentence_and_every_device_comes_back(tmp_path: Path) -> None:
    with ExitStack() as stack:
        _, found = run(10, HERE, tmp_path, stack)
    assert not [check for check in found if not check.fits]
