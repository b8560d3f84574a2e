"""Whether the provider still has the voices that patients hear, and nothing of those that they shall not hear."""

import re
import uuid
from collections.abc import Iterable

import structlog

from cloning.gateway import plan_limits, provider_voices
from cloning.jobs import runner
from cloning.models import PROVIDER_PREFIX, CloneJob
from usage.alerts import incidents
from voicecare.patients.models import Voice
from voicecare.providers.elevenlabs import responses
from voicecare.providers.elevenlabs.account import AccountClient
from voicecare.providers.errors import ProviderError, VoiceUnavailable

_OURS = re.compile(PROVIDER_PREFIX + r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")

Status = CloneJob.Status

log = structlog.get_logger(__name__)


def check() -> None:
    """Compares all usable voices with the provider's list, once. If that cannot be read, nothing is changed."""
    try:
        with provider_voices.account() as client:
            subscription = provider_voices.subscription(client)
            there = {voice.voice_id: voice for voice in client.voices()}
            for voice in Voice.objects.filter(state=Voice.State.USABLE).select_related("clone_job"):
                _check_voice(client, voice, there.get(voice.provider_id))
            _remove_strays(client, there.values())
    except ProviderError as error:
        provider_voices.report(error)
        return
    if subscription is not None:
        plan_limits.note(subscription)
    for job in CloneJob.objects.filter(requires_verification=True, status=Status.READY).select_related("voice"):
        found = there.get(job.voice.provider_id) if job.voice else None
        if found is not None and not found.needs_verification:
            runner.verified(job)


def _check_voice(client: AccountClient, voice: Voice, found: responses.Voice | None) -> None:
    if found is None:
        found = _asked_for(client, voice)
    trouble = "It is not there any more." if found is None else _change(voice, found)
    if trouble and Voice.objects.filter(pk=voice.pk, state=Voice.State.USABLE).update(state=Voice.State.GONE):
        log.warning("cloning.voice_lost", voice=str(voice.pk), trouble=trouble)
        incidents.open_incident(incidents.Kind.VOICE, str(voice.pk), f"Voice {voice.pk}: {trouble}{_help(voice)}")


def _asked_for(client: AccountClient, voice: Voice) -> responses.Voice | None:
    """By its id: the list may lag behind, and leaves out some that may be used."""
    try:
        return client.voice(voice.provider_id)
    except VoiceUnavailable:
        return None


def _change(voice: Voice, found: responses.Voice) -> str:
    """What somebody has done to a copied voice at the provider: it may not sound like the person who consented."""
    job: CloneJob | None = getattr(voice, "clone_job", None)
    if job is None:
        return ""
    if found.name != job.provider_name or found.category != "cloned":
        return "It was changed at the provider."
    unverified = found.needs_verification and not job.requires_verification
    return "The provider now wants its owner to be verified." if unverified else ""


def _help(voice: Voice) -> str:
    job: CloneJob | None = getattr(voice, "clone_job", None)
    return " Its recording is kept: retry the clone to make it again." if job is not None and job.sample else ""


def _remove_strays(client: AccountClient, there: Iterable[responses.Voice]) -> None:
    """What a provider that was slower than a lease has made besides: of jobs that have ended, in another voice or in
    none. Jobs that this database does not know belong to another server on the same account.
    """
    for voice in there:
        named = _OURS.fullmatch(voice.name)
        if named and _ended_otherwise(uuid.UUID(named[1]), voice.voice_id):
            log.warning("cloning.stray_voice", voice=voice.voice_id)
            provider_voices.remove(client, voice.voice_id)


def _ended_otherwise(job: uuid.UUID, voice_id: str) -> bool:
    ended = CloneJob.objects.filter(pk=job, status__in=[Status.READY, Status.FAILED, Status.WITHDRAWN])
    return ended.exclude(voice__provider_id=voice_id, status=Status.READY).exists()
