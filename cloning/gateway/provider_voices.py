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

CALL_S = (3.05, 20.0)  # connect, read
# requests sends a body that is in memory within the limit for the connection: 10 MB at 1.4 Mbit/s take 60 s.
UPLOAD_S = (60.0, 20.0)
_ENDINGS = {"audio/mpeg": ".mp3", "audio/wav": ".wav", "audio/mp4": ".m4a"}

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Made:
    """The one voice that the provider now has of a job."""

    provider_id: str
    requires_verification: bool

    @classmethod
    def of(cls, voice: Voice) -> Self:
        return cls(voice.voice_id, voice.needs_verification)


@contextmanager
def account(timeout: tuple[float, float] = CALL_S) -> Iterator[AccountClient]:
    client = AccountClient(settings.ELEVENLABS_BASE_URL, settings.ELEVENLABS_API_KEY or "sandbox", timeout=timeout)
    try:
        yield client
    finally:
        client.close()


def copies(client: AccountClient, job: CloneJob) -> list[Voice]:
    """All that the provider has of this job, the oldest first: under its name, and the one that our row names."""
    ours = job.voice.provider_id if job.voice else None
    found = [voice for voice in client.voices() if voice.name == job.provider_name or voice.voice_id == ours]
    if ours and ours not in {voice.voice_id for voice in found}:  # the list may lag, and leaves some out
        with suppress(VoiceUnavailable):
            found.append(client.voice(ours))
    return sorted(found, key=lambda voice: (voice.created_at_unix or 0, voice.voice_id))


def report(error: ProviderError) -> None:
    """Administrators are told of what nobody but them can mend."""
    log.warning("cloning.request_failed", error=type(error).__name__, particulars=error.support_details)
    if isinstance(error, AuthorizationError):
        incidents.open_incident(incidents.Kind.ACCESS, "", error.support_details)


def remove(client: AccountClient, voice_id: str) -> None:
    """One that is not there is removed; whether one that may not be removed is there, whoever looks again sees."""
    with suppress(VoiceUnavailable):
        client.delete_voice(voice_id)
        log.info("cloning.voice_removed", voice=voice_id)


def existing(client: AccountClient, job: CloneJob) -> Made | None:
    """The voice that an earlier attempt has made, as the only one of this job.

    A job that has a voice already is made anew because that one is lost or changed: it is removed, not found.
    """
    lost = job.voice.provider_id if job.voice else None
    made = [voice for voice in copies(client, job) if voice.voice_id != lost]
    if lost is not None:
        remove(client, lost)
    for voice in made[1:]:
        remove(client, voice.voice_id)
    return Made.of(made[0]) if made else None


def subscription(client: AccountClient) -> Subscription | None:
    """None where it cannot be read: a key may lack the permission, and the next call says what is wrong."""
    try:
        return client.subscription()
    except ProviderError as error:
        log.warning("cloning.subscription_unread", particulars=error.support_details)
        return None


def add(job: CloneJob, recording: bytes, hold: Callable[[], None]) -> Made:
    """Makes the voice. `hold` is called just before, and raises if somebody else has the job."""
    sample: SampleFile = (job.provider_name + _ENDINGS.get(job.content_type, ""), recording, job.content_type)
    with account(UPLOAD_S) as client:
        hold()
        added = client.add_voice(job.provider_name, [sample], remove_background_noise=job.remove_background_noise)
        log.info("cloning.voice_made", job=str(job.pk), voice=added.voice_id)
        again = existing(client, job) if job.attempts > 1 else None
    return again or Made(added.voice_id, added.requires_verification)
