"""Checks that the provider still has the voices that we use, and that it has no voices of ended jobs."""

import re
from collections.abc import Iterable
from contextlib import suppress

import structlog

from cloning.gateway import plan_limits, provider_voices
from cloning.jobs import runner
from cloning.models import PROVIDER_NAME_PREFIX, CloneJob
from usage.alerts import incidents
from voicecare.patients.models import Voice
from voicecare.providers.elevenlabs import responses
from voicecare.providers.elevenlabs.account import AccountClient
from voicecare.providers.errors import ProviderError, VoiceUnavailable

_CLONE_NAME = re.compile(PROVIDER_NAME_PREFIX + r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")

Status = CloneJob.Status

log = structlog.get_logger(__name__)


def audit_voices() -> None:
    """Compares all usable voices with the provider's list. Changes nothing if the list cannot be read."""
    try:
        with provider_voices.account_client() as client:
            subscription = provider_voices.read_subscription(client)
            listed = {voice.voice_id: voice for voice in client.voices()}
            for voice in Voice.objects.filter(state=Voice.State.USABLE).select_related("clone_job"):
                _check_voice(client, voice, listed.get(voice.provider_id))
            _delete_orphans(client, listed.values())
    except ProviderError as error:
        provider_voices.report_error(error)
        return
    if subscription is not None:
        plan_limits.update_incident(subscription)
    for job in CloneJob.objects.filter(requires_verification=True, status=Status.READY).select_related("voice"):
        listed_voice = listed.get(job.voice.provider_id) if job.voice else None
        if listed_voice is not None and not listed_voice.needs_verification:
            runner.complete_verification(job)


def _check_voice(client: AccountClient, voice: Voice, listed_voice: responses.Voice | None) -> None:
    job: CloneJob | None = getattr(voice, "clone_job", None)
    if listed_voice is None:  # the list can lag behind, and it omits some usable voices
        with suppress(VoiceUnavailable):
            listed_voice = client.voice(voice.provider_id)
    if listed_voice is None:
        problem = "It no longer exists at the provider."
    elif job is None:
        return
    # Somebody has changed the clone at the provider. It may no longer sound like the person who consented.
    elif listed_voice.name != job.provider_name or listed_voice.category != "cloned":
        problem = "It was changed at the provider."
    elif listed_voice.needs_verification and not job.requires_verification:
        problem = "The provider now requires a verification of its owner."
    else:
        return
    if Voice.objects.filter(pk=voice.pk, state=Voice.State.USABLE).update(state=Voice.State.GONE):
        log.warning("cloning.voice_lost", voice=str(voice.pk), problem=problem)
        hint = " Its recording is kept. Retry the clone to create it again." if job is not None and job.sample else ""
        incidents.open_incident(incidents.Kind.VOICE, str(voice.pk), f"Voice {voice.pk}: {problem}{hint}")


def _delete_orphans(client: AccountClient, listed: Iterable[responses.Voice]) -> None:
    """Deletes duplicate voices that the provider created after a lease had expired.

    They belong to jobs that have ended with another voice or with none. Voices of unknown jobs are not deleted, because
    they can belong to another server that uses the same account.
    """
    for voice in listed:
        match = _CLONE_NAME.fullmatch(voice.name)
        if match is None:
            continue
        ended = CloneJob.objects.filter(pk=match[1], status__in=[Status.READY, Status.FAILED, Status.WITHDRAWN])
        if ended.exclude(voice__provider_id=voice.voice_id, status=Status.READY).exists():
            log.warning("cloning.orphan_voice_found", voice=voice.voice_id)
            provider_voices.delete_voice(client, voice.voice_id)
