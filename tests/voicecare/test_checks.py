import pytest
from django.db import connection
from django.test import override_settings

from voicecare.checks import check_production_settings


def ids() -> set[str]:
    return {message.id for message in check_production_settings(None)}


@pytest.mark.parametrize("sandbox", [True, False])
def test_patients_must_not_hear_the_sandbox(sandbox: bool):
    with override_settings(USE_SANDBOX=sandbox):
        assert ("voicecare.W001" in ids()) == sandbox


def test_one_sqlite_file_is_not_enough_for_patients():
    assert ("voicecare.W002" in ids()) == (connection.vendor == "sqlite")
