"""Finds, creates and deletes voices at the provider. All functions raise `ProviderError` if the provider fails.

The provider has no idempotency keys. So each clone job has a unique voice name, and the provider's list is searched for
this name before a voice is created, and after an attempt whose response was lost. The list can lag behind, so a job may
nevertheless get several voices. Then the oldest one is kept, and the others are deleted.
"""

from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Self

import structlog
from django.conf import settings

from cloning.models import CloneJob
from usage.alerts import endings, incidents, lost_voices
from usage.provider_state import access
from voicecare.providers.elevenlabs import credentials
from voicecare.providers.elevenlabs.account import AccountClient, SampleFile
from voicecare.providers.elevenlabs.responses import Subscription, Voice
from voicecare.providers.errors import AuthorizationError, Cause, ProviderError, VoiceUnavailable

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


def account_client(timeout: tuple[float, float] = CALL_TIMEOUT_S) -> closing[AccountClient]:
    """Returns a client for the provider account, which closes its connections at the end of a `with` block.

    `timeout` is the time limit of each request: seconds to connect, and seconds to wait for data.
    """
    return closing(AccountClient(settings.ELEVENLABS_BASE_URL, credentials.api_key(), timeout=timeout))


def find_voices_of_job(client: AccountClient, job: CloneJob) -> list[Voice]:
    """Returns the provider's voices that have the name of this job, and the voice whose id is stored with the job.

    The oldest voice comes first. Raises ProviderError.
    """
    voice_id = job.voice.provider_id if job.voice else None
    found = [voice for voice in client.voices() if voice.name == job.provider_name or voice.voice_id == voice_id]
    # The list can lag behind, and it omits some voices.
    if voice_id and voice_id not in {voice.voice_id for voice in found}:
        unlisted = lost_voices.find(client, voice_id)
        found += [unlisted] if unlisted is not None else []
    return sorted(found, key=lambda voice: (voice.created_at_unix or 0, voice.voice_id))


def report_error(error: ProviderError) -> None:
    """Logs the error. Opens an incident if only administrators can fix the cause.

    A refused key also concerns speech, and the first call that is accepted resolves that incident. A missing permission
    or plan may concern clones only, so an administrator marks the incident as resolved.
    """
    log.warning("cloning.request_failed", error=type(error).__name__, particulars=error.support_details)
    if error.cause is Cause.KEY:
        access.report_refused(error)
    elif isinstance(error, AuthorizationError):
        incidents.open_incident(incidents.Kind.ACCESS, endings.CLONES, error.support_details)


def in_words(error: ProviderError) -> str:
    """Returns the error for administrators: what failed, and what they can do."""
    if error.cause is Cause.KEY:
        return "The speech provider refuses the API key. Check ELEVENLABS_API_KEY."
    if error.retryable:
        return f"{error.message} Try again later."
    return error.message


def delete_voice(client: AccountClient, voice_id: str) -> None:
    """Deletes the voice at the provider. Does nothing if the provider has no such voice, or does not let us delete it.

    The next comparison with the provider's list finds a voice that could not be deleted. Raises ProviderError for all
    other errors.
    """
    with suppress(VoiceUnavailable):
        client.delete_voice(voice_id)
        log.info("cloning.voice_deleted", voice=voice_id)


def find_existing(client: AccountClient, job: CloneJob) -> ProviderVoice | None:
    """Returns the voice that an earlier attempt of this job has created, or None. Deletes all other voices of the job.

    A job that is run again because the provider lost its voice already has a voice in our database. If the provider has
    that voice again and it is unchanged, that voice is returned. If it was changed, it is deleted as well.
    """
    lost_id = job.voice.provider_id if job.voice else None
    found = find_voices_of_job(client, job)
    changed = [voice for voice in found if voice.voice_id == lost_id and problem_of(job, voice) is not None]
    voices = sorted((voice for voice in found if voice not in changed), key=lambda voice: voice.voice_id != lost_id)
    for voice in [*changed, *voices[1:]]:
        delete_voice(client, voice.voice_id)
    return ProviderVoice.from_response(voices[0]) if voices else None


def problem_of(job: CloneJob, voice: Voice) -> str | None:
    """Compares a voice at the provider with its clone job.

    Returns what is wrong with the voice, or None if it is unchanged. A voice with a different name or category may no
    longer sound like the person who consented. A voice whose owner must be verified cannot be used.
    """
    if voice.name not in ("", job.provider_name) or voice.category not in ("", "cloned"):
        return "It was changed at the provider."
    if voice.needs_verification and not job.requires_verification:
        return "The provider now requires a verification of its owner."
    return None


def read_subscription(client: AccountClient) -> Subscription | None:
    """Returns the provider's subscription data, or None if it cannot be read.

    No error is raised, because the key may lack the permission for this request only. If the provider has another
    fault, the next request raises it.
    """
    try:
        return client.subscription()
    except ProviderError as error:
        log.warning("cloning.subscription_read_failed", particulars=error.support_details)
        return None


def create_voice(job: CloneJob, recording: bytes, renew_lease: Callable[[], None]) -> ProviderVoice:
    """Uploads the recording, so that the provider creates the voice. Raises ProviderError.

    `renew_lease` is called immediately before the upload. It raises an error if this worker no longer owns the job, and
    then nothing is uploaded.
    """
    sample: SampleFile = (job.provider_name + _FILE_EXTENSIONS.get(job.content_type, ""), recording, job.content_type)
    with account_client(UPLOAD_TIMEOUT_S) as client:
        renew_lease()
        created = client.add_voice(job.provider_name, [sample], remove_background_noise=job.remove_background_noise)
        log.info("cloning.voice_created", job=str(job.pk), voice=created.voice_id)
        existing = find_existing(client, job) if job.attempts > 1 else None
    return existing or ProviderVoice(created.voice_id, created.requires_verification)
