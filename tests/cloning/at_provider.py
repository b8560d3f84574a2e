"""Reads and changes the cloned voices of the sandbox directly, without voicecare."""

from typing import Any

import requests

from tests.sandbox import SandboxProcess

KEY = {"xi-api-key": "test"}


def clones(sandbox: SandboxProcess) -> list[dict[str, Any]]:
    page = requests.get(f"{sandbox.url}/v1/voices", headers=KEY, timeout=5).json()
    return [voice for voice in page["voices"] if voice["category"] == "cloned"]


def ids(sandbox: SandboxProcess) -> list[str]:
    return [voice["voice_id"] for voice in clones(sandbox)]


def add(sandbox: SandboxProcess, name: str) -> str:
    sample = ("a.mp3", b"ID3 made by somebody else", "audio/mpeg")
    reply = requests.post(
        f"{sandbox.url}/v1/voices/add", headers=KEY, data={"name": name}, files={"files": sample}, timeout=5
    )
    voice_id: str = reply.json()["voice_id"]
    return voice_id


def remove(sandbox: SandboxProcess, voice_id: str) -> None:
    assert requests.delete(f"{sandbox.url}/v1/voices/{voice_id}", headers=KEY, timeout=5).ok


def rename(sandbox: SandboxProcess, voice_id: str, name: str) -> None:
    edit = f"{sandbox.url}/v1/voices/{voice_id}/edit"
    assert requests.post(edit, headers=KEY, files={"name": (None, name)}, timeout=5).ok
