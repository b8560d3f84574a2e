"""What cloning asks of the provider. All that can go wrong raises `ProviderError`.

Nothing there is idempotent, so a voice is looked for by its name before it is made, and after an attempt whose answer
was not seen. A list may lag behind what was made: whoever finds several copies keeps the oldest.
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
# requests sends a body that is in memory within the limit for the connection: 10 MB at 1.4 Mbit/s take 60 s.
UPLOAD_TIMEOUT_S = (60.0, 20.0)
_FILE_EXTENSIONS = {"audio/mpeg": ".mp3", "audio/wav": ".wav", "audio/mp4": ".m4a"}

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ProviderVoice:
    """The one voice that the provider now has of a job."""

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
    """All that the provider has of this job, the oldest first: under its name, and the one that our row names."""
    voice_id = job.voice.provider_id if job.voice else None
    found = [voice for voice in client.voices() if voice.name == job.provider_name or voice.voice_id == voice_id]
    if voice_id and voice_id not in {voice.voice_id for voice in found}:  # the list may lag, and leaves some out
        with suppress(VoiceUnavailable):
            found.append(client.voice(voice_id))
    return sorted(found, key=lambda voice: (voice.created_at_unix or 0, voice.voice_id))


def report_error(error: ProviderError) -> None:
    """Administrators are told of what nobody but them can mend."""
    log.warning("cloning.request_failed", error=type(error).__name__, particulars=error.support_details)
    if isinstance(error, AuthorizationError):
        incidents.open_incident(incidents.Kind.ACCESS, "", error.support_details)


def delete_voice(client: AccountClient, voice_id: str) -> None:
    """One that is not there is removed; whether one that may not be removed is there, whoever looks again sees."""
    with suppress(VoiceUnavailable):
        client.delete_voice(voice_id)
        log.info("cloning.voice_removed", voice=voice_id)


def find_existing(client: AccountClient, job: CloneJob) -> ProviderVoice | None:
    """The voice that an earlier attempt has made, as the only one of this job.

    A job that has a voice already is made anew because that one is lost or changed: it is removed, not found.
    """
    lost_id = job.voice.provider_id if job.voice else None
    voices = [voice for voice in find_voices_of_job(client, job) if voice.voice_id != lost_id]
    if lost_id is not None:
        delete_voice(client, lost_id)
    for voice in voices[1:]:
        delete_voice(client, voice.voice_id)
    return ProviderVoice.from_response(voices[0]) if voices else None


def read_subscription(client: AccountClient) -> Subscription | None:
    """None where it cannot be read: a key may lack the permission, and the next call says what is wrong."""
    try:
        return client.subscription()
    except ProviderError as error:
        log.warning("cloning.subscription_unread", particulars=error.support_details)
        return None


def create_voice(job: CloneJob, recording: bytes, renew_lease: Callable[[], None]) -> ProviderVoice:
    """Makes the voice. `renew_lease` is called just before, and raises if somebody else has the job."""
    sample: SampleFile = (job.provider_name + _FILE_EXTENSIONS.get(job.content_type, ""), recording, job.content_type)
    with account_client(UPLOAD_TIMEOUT_S) as client:
        renew_lease()
        created = client.add_voice(job.provider_name, [sample], remove_background_noise=job.remove_background_noise)
        log.info("cloning.voice_made", job=str(job.pk), voice=created.voice_id)
        existing = find_existing(client, job) if job.attempts > 1 else None
    return existing or ProviderVoice(created.voice_id, created.requires_verification)
