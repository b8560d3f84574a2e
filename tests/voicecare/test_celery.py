"""The Celery application: the modules that load it, and its registered tasks."""

import ast
import os
import subprocess
import sys

import pytest

from tests.server import ROOT
from tests.services import SecureRedisProcess
from tests.test_layers import PACKAGES
from voicecare.celery import app
from voicecare.core import task_names
from voicecare.infrastructure.schedule import SCHEDULE


def output(*command: str) -> str:
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "voicecare.settings", "REDIS_URL": ""}
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()


@pytest.mark.parametrize("module", ["voicecare", "voicecare.audio.formats", "voicecare.core.errors"])
def test_a_leaf_module_imports_neither_celery_nor_django(module: str):
    loaded = output("-c", f"import sys, {module}; print({{'celery', 'kombu', 'django'}} & set(sys.modules))")
    assert loaded == "set()"


def test_a_web_process_uses_the_projects_celery_application():
    assert output("-c", "import django; django.setup(); import celery; print(celery.current_app.main)") == "voicecare"


def test_the_celery_command_finds_the_application_by_package_name():
    assert "folder://" in output("-m", "celery", "-A", "voicecare", "report")


@pytest.fixture(scope="module")
def registered_tasks() -> set[str]:
    app.loader.import_default_modules()  # a worker does this when it starts
    return set(app.tasks)


def test_every_task_name_constant_is_registered(registered_tasks: set[str]):
    names = {value for name, value in vars(task_names).items() if name.isupper()}
    assert names
    assert names <= registered_tasks


def test_every_scheduled_task_is_registered(registered_tasks: set[str]):
    assert {entry["task"] for entry in SCHEDULE.values()} <= registered_tasks


def test_tasks_are_enqueued_only_with_task_name_constants():
    """The other tests check only the constants, so a literal name would be unchecked."""
    calls = [
        node
        for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "enqueue_on_commit"
    ]
    assert calls
    assert {ast.unparse(call.args[0]).partition(".")[0] for call in calls} == {"task_names"}


CONNECT = """
from voicecare.celery import app
with app.connection_for_write() as connection:
    connection.ensure_connection(max_retries=1, interval_start=0)
    connection.default_channel.client.ping()
    print("connected")
"""


def test_the_worker_verifies_the_certificate_of_redis():
    with SecureRedisProcess() as redis:

        def connect(query: str) -> str:
            url = redis.url.partition("?")[0] + query
            environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "voicecare.settings", "REDIS_URL": url}
            process = subprocess.run(
                [sys.executable, "-c", CONNECT], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
            )
            return process.stdout + process.stderr

        assert "CERTIFICATE_VERIFY_FAILED" in connect("")
        assert connect(f"?ssl_ca_certs={redis.certificate}") == "connected\n"
        assert connect("?ssl_cert_reqs=none") == "connected\n"
