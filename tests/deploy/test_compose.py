"""compose.yaml: read by Docker Compose if it is installed, and the rules that hold in any case.

Its services are not started here: their images are those of other projects.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.server import ROOT

SECRETS = ("SECRET_KEY", "POSTGRES_PASSWORD", "S3_PASSWORD")
OURS = {"migrate", "web", "worker", "beat", "sandbox"}


@pytest.fixture
def services() -> dict[str, dict[str, Any]]:
    loaded: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    return loaded


def compose() -> list[str]:
    """Returns the command of Docker Compose, version 2 or 1."""
    if (
        shutil.which("docker")
        and not subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode
    ):
        return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    pytest.skip("Docker Compose is not installed")


def config(folder: Path, *settings: str) -> "subprocess.CompletedProcess[str]":
    """Reads compose.yaml in the folder, with deploy/compose.env and these settings as .env."""
    command = compose()
    shutil.copy(ROOT / "compose.yaml", folder)
    (folder / ".env").write_text("\n".join([(ROOT / "deploy/compose.env").read_text(), *settings]))
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    return subprocess.run(
        [*command, "config"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_compose_reads_it(tmp_path: Path):
    read = config(tmp_path, *(f"{name}=secret" for name in SECRETS), "DOMAIN=voice.example.org")
    assert read.returncode == 0, read.stderr
    services = yaml.safe_load(read.stdout)["services"]
    assert set(services) >= OURS, "deploy/compose.env starts the sandbox"
    environment = services["web"]["environment"]
    assert environment["PUBLIC_URL"] == "https://voice.example.org"
    assert environment["DATABASE_URL"] == "postgres://voicecare:secret@postgres:5432/voicecare"


@pytest.mark.parametrize("missing", SECRETS)
def test_compose_refuses_a_missing_secret(tmp_path: Path, missing: str):
    read = config(tmp_path, *(f"{name}=secret" for name in SECRETS if name != missing))
    assert read.returncode != 0
    assert missing in read.stderr


def test_the_processes_run_from_one_image_without_privileges(services: dict[str, dict[str, Any]]):
    assert set(services) >= OURS
    assert {services[name]["image"] for name in OURS} == {"${VOICECARE_IMAGE:-voicecare}"}
    for name in OURS:
        service = services[name]
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["tmpfs"] == ["/tmp"]
        assert "data:/data" in service["volumes"]
    assert [services[name]["command"] for name in ("web", "worker", "beat")] == ["web", "worker", "beat"]
    assert services["web"]["deploy"]["replicas"] == 2
    assert "deploy" not in services["beat"]


def test_the_migration_comes_first_and_ends(services: dict[str, dict[str, Any]]):
    for name in ("web", "worker", "beat"):
        assert services[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    assert services["migrate"]["restart"] == "on-failure"


def test_only_the_proxy_can_be_reached_from_outside(services: dict[str, dict[str, Any]]):
    assert [name for name, service in services.items() if "ports" in service] == ["proxy"]


def test_images_of_others_have_a_version(services: dict[str, dict[str, Any]]):
    images = [service["image"] for name, service in services.items() if name not in OURS]
    assert all(image.rpartition(":")[2][0].isdigit() for image in images), images
