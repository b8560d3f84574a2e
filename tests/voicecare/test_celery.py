"""The Celery application: who loads it, and which tasks it has."""

import os
import subprocess
import sys

import pytest

from tests.server import ROOT


def output(*command: str) -> str:
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "voicecare.settings", "REDIS_URL": ""}
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()


@pytest.mark.parametrize("module", ["voicecare", "voicecare.audio.formats", "voicecare.core.errors"])
def test_a_leaf_module_loads_neither_celery_nor_django(module: str):
    loaded = output("-c", f"import sys, {module}; print({{'celery', 'kombu', 'django'}} & set(sys.modules))")
    assert loaded == "set()"


def test_a_web_process_uses_the_projects_celery_application():
    assert output("-c", "import django; django.setup(); import celery; print(celery.current_app.main)") == "voicecare"


def test_the_celery_command_finds_the_application_by_the_name_of_the_package():
    assert "folder://" in output("-m", "celery", "-A", "voicecare", "report")
