"""Makes the sandbox provider fail, for the command `sandbox_fault` and for the buttons of the device console."""

from contextlib import closing

import requests
from django.conf import settings

from usage.alerts import lost_voices
from voicecare.patients.models import Voice
from voicecare.providers.elevenlabs.account import AccountClient
from voicecare.providers.elevenlabs.sandbox.scenarios import OFF

TIMEOUT_S = (1, 5)
READ_TIMEOUT_S = 1  # a page waits for it


class SandboxError(Exception):
    """The fault could not be chosen. The message says why, and what to do."""


def active() -> str:
    """The failure that was chosen last. Empty if it is not known, for example because the sandbox does not run."""
    try:
        reply = requests.get(f"{settings.ELEVENLABS_BASE_URL}/sandbox/scenario", timeout=READ_TIMEOUT_S)
        return str(reply.json()["name"])
    except (requests.RequestException, ValueError, KeyError, TypeError):
        return ""


def choose(name: str, url: str) -> None:
    """Makes this failure the only active one, in the sandbox with this address. Raises SandboxError.

    With OFF, voices that voicecare has marked as gone, and that the sandbox has, are usable again.
    """
    if not settings.USE_SANDBOX:
        raise SandboxError(
            "The real provider is in use (ELEVENLABS_API_KEY or ELEVENLABS_API_KEY_FILE is set). Faults only work "
            "with the sandbox."
        )
    try:
        reply = requests.post(f"{url}/sandbox/scenario", {"name": name}, timeout=TIMEOUT_S, allow_redirects=False)
    except requests.RequestException as error:
        raise SandboxError(
            f"The sandbox does not run at {url}. Start it with `make run`, or set SANDBOX_PORT to its port."
        ) from error
    if reply.status_code != requests.codes.see_other:
        raise SandboxError(f"The server at {url} is not the sandbox: HTTP {reply.status_code}.")
    if name == OFF:
        with closing(AccountClient(url, "sandbox")) as client:
            existing = [voice.voice_id for voice in client.voices()]
        for voice in Voice.objects.filter(state=Voice.State.GONE, provider_id__in=existing):
            lost_voices.restore(voice)
