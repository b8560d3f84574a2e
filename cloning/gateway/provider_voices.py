"""Finds, creates and deletes voices at the provider. All errors are raised as `ProviderError`.

The provider has no idempotency keys. So a voice is searched by its name before it is created, and after an attempt
whose response was lost. The list of voices can lag behind. If several voices of one job exist, the oldest one is kept.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Self

import structlog
from django.conf import settings

from cloning.models import CloneJob
from usage.alerts import incidents
from voicecare.providers.elevenlabs.account import AccountClient, SampleFile
from voicecare.providers.elevenlabs.responses import Subscription, Voice
from voicecare.providers.errors import AuthorizationError, ProviderError, VoiceUnavailable

CALL_TIMEOUT_S = (3.05, 20.0)  # connect, read
# requests applies the connect timeout also to the upload of a body in memory: 10 MB at 1.4 Mbit/s take 60 s.
UPLOAD_TIMEOUT_S = (60.0, 20.0)
_FILE_EXTENSIONS = {"audio/mpeg": ".mp3", "audio/wav": ".wav", "audio/mp4": ".m4a"}

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ProviderVoice:
    """The voice that the provider holds for a clone job, after duplicates were removed."""

    provider_id: str
    requires_verification: bool

    @classmethod
    def from_response(cls, voice: Voice) -> Self:
        return cls(voice.voice_id, voice.needs_verification)


@contextmanager
def account_client(timeout: tuple[float, float] = CALL_TIMEOUT_S) -> Iterator[AccountClient]:
    client = AccountClient(settings.ELEVENLABS_BASE_URL, settings.ELEVENLABS_API_KEY or "sandbox", timeout=timeout)
    try:
        yield client
    finally:
        client.close()


def find_voices_of_job(client: AccountClient, job: CloneJob) -> list[Voice]:
    """Returns the provider's voices that have this job's name, plus the one whose id is stored with the job.

    The oldest voice comes first.
    """
    voice_id = job.voice.provider_id if job.voice else None
    found = [voice for voice in client.voices() if voice.name == job.provider_name or voice.voice_id == voice_id]
    # The list can lag behind, and it omits some voices.
    if voice_id and voice_id not in {voice.voice_id for voice in found}:
        with suppress(VoiceUnavailable):
            found.append(client.voice(voice_id))
    return sorted(found, key=lambda voice: (voice.created_at_unix or 0, voice.voice_id))


def report_error(error: ProviderError) -> None:
    """Logs the error. Opens an incident if only administrators can fix the cause."""
    log.warning("cloning.request_failed", error=type(error).__name__, particulars=error.support_details)
    if isinstance(error, AuthorizationError):
        incidents.open_incident(incidents.Kind.ACCESS, "", error.support_details)


def delete_voice(client: AccountClient, voice_id: str) -> None:
    """Deletes the voice. A missing voice counts as deleted. The next check detects a voice that we may not delete."""
    with suppress(VoiceUnavailable):
        client.delete_voice(voice_id)
        log.info("cloning.voice_deleted", voice=voice_id)


def find_existing(client: AccountClient, job: CloneJob) -> ProviderVoice | None:
    """Returns the voice that an earlier attempt has created, or None. Deletes all other voices of this job.

    If the job already has a voice in our database, that voice was lost or changed. It is deleted and not returned.
    """
    lost_id = job.voice.provider_id if job.voice else None
    voices = [voice for voice in find_voices_of_job(client, job) if voice.voice_id != lost_id]
    if lost_id is not None:
        delete_voice(client, lost_id)
    for voice in voices[1:]:
        delete_voice(client, voice.voice_id)
    return ProviderVoice.from_response(voices[0]) if voices else None


def read_subscription(client: AccountClient) -> Subscription | None:
    """Returns None if the subscription cannot be read, because the key may lack this permission.

    If the cause is another one, the next call to the provider raises it.
    """
    try:
        return client.subscription()
    except ProviderError as error:
        log.warning("cloning.subscription_read_failed", particulars=error.support_details)
        return None


def create_voice(job: CloneJob, recording: bytes, renew_lease: Callable[[], None]) -> ProviderVoice:
    """Creates the voice. Calls `renew_lease` just before; it raises if another worker owns the job."""
    sample: SampleFile = (job.provider_name + _FILE_EXTENSIONS.get(job.content_type, ""), recording, job.content_type)
    with account_client(UPLOAD_TIMEOUT_S) as client:
        renew_lease()
        created = client.add_voice(job.provider_name, [sample], remove_background_noise=job.remove_background_noise)
        log.info("cloning.voice_created", job=str(job.pk), voice=created.voice_id)
        existing = find_existing(client, job) if job.attempts > 1 else None
    return existing or ProviderVoice(created.voice_id, created.requires_verification)
