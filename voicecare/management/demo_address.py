"""Where `make run` serves. It keeps that in the data directory, so that other commands need not be told again."""

import json
import os
from dataclasses import asdict, dataclass

from django.conf import settings

FILE = "demo-address.json"
DEFAULT_PORT = 8000


@dataclass(frozen=True)
class DemoAddress:
    """The host is one that connects from this machine. The sandbox is on the same machine."""

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    sandbox_port: int = DEFAULT_PORT + 1

    @property
    def socket(self) -> str:
        return f"ws://{self.host}:{self.port}/ws/device/"


def write(address: DemoAddress) -> None:
    (settings.DATA_DIR / FILE).write_text(json.dumps(asdict(address)))


def read() -> DemoAddress:
    """Return the address of the latest `make run`. Ports in the environment (PORT, SANDBOX_PORT) come first."""
    try:
        known = json.loads((settings.DATA_DIR / FILE).read_text())
    except (OSError, ValueError):
        known = {}
    given = {name: int(os.environ[name.upper()]) for name in ("port", "sandbox_port") if os.environ.get(name.upper())}
    return DemoAddress(**{**known, **given})


def sandbox_url() -> str:
    """Return the URL of the sandbox: of the latest `make run`, unless the environment says where it is."""
    if os.environ.get("SANDBOX_PORT") or not (settings.DATA_DIR / FILE).exists():
        return settings.ELEVENLABS_BASE_URL
    return f"http://{settings.SANDBOX_HOST}:{read().sandbox_port}"
