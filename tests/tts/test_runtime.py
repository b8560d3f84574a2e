"""The runtime of a server process. tests/e2e and tests/chaos test starting and draining a real one."""

import pytest

from tts.runtime import Runtime


@pytest.mark.parametrize("part", ["dependencies", "registry"])
def test_nothing_is_built_before_start(part: str):
    with pytest.raises(RuntimeError, match="has not been started"):
        getattr(Runtime(), part)
