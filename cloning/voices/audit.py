"""Whether the provider still has the voices that patients hear, and nothing of those that they shall not hear."""

import re
from collections.abc import Iterable
from contextlib import suppress

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
    job: CloneJob | None = getattr(voice, "clone_job", None)
    if found is None:  # the list may lag behind, and leaves out some that may be used
        with suppress(VoiceUnavailable):
            found = client.voice(voice.provider_id)
    if found is None:
        trouble = "It is not there any more."
    elif job is None:
        return
    # What somebody has done to a copied voice there: it may not sound like the person who consented.
    elif found.name != job.provider_name or found.category != "cloned":
        trouble = "It was changed at the provider."
    elif found.needs_verification and not job.requires_verification:
        trouble = "The provider now wants its owner to be verified."
    else:
        return
    if Voice.objects.filter(pk=voice.pk, state=Voice.State.USABLE).update(state=Voice.State.GONE):
        log.warning("cloning.voice_lost", voice=str(voice.pk), trouble=trouble)
        kept = " Its recording is kept: retry the clone to make it again." if job is not None and job.sample else ""
        incidents.open_incident(incidents.Kind.VOICE, str(voice.pk), f"Voice {voice.pk}: {trouble}{kept}")


def _remove_strays(client: AccountClient, there: Iterable[responses.Voice]) -> None:
    """What a provider that was slower than a lease has made besides: of jobs that have ended, in another voice or in
    none. Jobs that this database does not know belong to another server on the same account.
    """
    for voice in there:
        named = _OURS.fullmatch(voice.name)
        if named is None:
            continue
        ended = CloneJob.objects.filter(pk=named[1], status__in=[Status.READY, Status.FAILED, Status.WITHDRAWN])
        if ended.exclude(voice__provider_id=voice.voice_id, status=Status.READY).exists():
            log.warning("cloning.stray_voice", voice=voice.voice_id)
            provider_voices.remove(client, voice.voice_id)
