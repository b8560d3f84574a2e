"""System checks for production settings."""

import pytest
from django.db import connection
from django.test import override_settings

from voicecare.checks import check_production_settings


def warning_ids() -> set[str]:
    return {message.id for message in check_production_settings(None)}


@pytest.mark.parametrize("sandbox", [True, False])
def test_the_sandbox_in_production_is_a_warning(sandbox: bool):
    with override_settings(USE_SANDBOX=sandbox):
        assert ("voicecare.W001" in warning_ids()) == sandbox


def test_sqlite_in_production_is_a_warning():
    assert ("voicecare.W002" in warning_ids()) == (connection.vendor == "sqlite")
