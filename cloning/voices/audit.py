"""Checks that the provider still has the voices of our database, and no voices that are left from ended clone jobs."""

import re
from collections.abc import Iterable, Mapping

import structlog

from cloning.gateway import plan_limits, provider_voices
from cloning.jobs import runner
from cloning.models import PROVIDER_NAME_PREFIX, CloneJob
from cloning.voices import facts
from usage.alerts import lost_voices
from usage.alerts.voices import default_voice
from voicecare.patients.models import DefaultVoices, Voice
from voicecare.providers.elevenlabs import responses
from voicecare.providers.elevenlabs.account import AccountClient
from voicecare.providers.errors import ProviderError

_CLONE_NAME = re.compile(PROVIDER_NAME_PREFIX + r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")

State, Status = Voice.State, CloneJob.Status

log = structlog.get_logger(__name__)


def audit_voices() -> int:
    """Compares the voices of our database with the provider's list. Returns how many voices have other facts now.

    Voices that the provider has lost or changed are marked as gone, which opens an incident. Voices that exist again
    are marked as usable. New stock voices get a row. Voices left from ended clone jobs are deleted. A clone is
    activated if its owner has been verified. Changes nothing if the provider's list cannot be read.
    """
    try:
        with provider_voices.account_client() as client:
            subscription = provider_voices.read_subscription(client)
            voices = Voice.objects.filter(state__in=[State.USABLE, State.GONE]).select_related("clone_job")
            survey = lost_voices.survey(client, voices)
            former = DefaultVoices().by_language()
            # The order: a voice that ends now must not take over from a lost one, and new voices of another workspace
            # must not make it look like ours.
            changed = facts.update_voices(survey.found)
            lost_voices.mark_missing(survey, former)
            facts.add_stock_voices(survey.listed.values())
            _report_ended(former)
            _check_found(survey.found)
            default_voice.check()  # there may be a usable voice for the first time
            _delete_orphans(client, survey.listed.values())
    except ProviderError as error:
        provider_voices.report_error(error)
        return 0
    if subscription is not None:
        plan_limits.update_incident(subscription)
    for job in CloneJob.objects.filter(requires_verification=True, status=Status.READY).select_related("voice"):
        listed_voice = survey.listed.get(job.voice.provider_id) if job.voice else None
        if listed_voice is not None and not listed_voice.needs_verification:
            runner.complete_verification(job)
    return changed


def _report_ended(former: Mapping[str, Voice]) -> None:
    """Reports which of the `former` default voices end at once. No incident has announced these ends.

    `former` has rows from before the facts were updated, by language.
    """
    lasting = [voice.pk for voice in former.values() if not voice.has_ended]
    ended = [voice for voice in Voice.objects.filter(pk__in=lasting, state=State.USABLE) if voice.has_ended]
    default_voice.report_takeovers(former, ended, "The provider has ended it, or ends it within an hour.")


def _check_found(found: Iterable[tuple[Voice, responses.Voice]]) -> None:
    """Marks clones as gone if they were changed at the provider.

    Marks voices as usable if they were gone and exist again. `found` has pairs: the voice in our database, and the same
    voice at the provider.
    """
    changed: dict[str, list[Voice]] = {}
    for voice, provider_voice in found:
        job: CloneJob | None = getattr(voice, "clone_job", None)
        problem = None if job is None else provider_voices.problem_of(job, provider_voice)
        if voice.state == State.USABLE and problem is not None:
            changed.setdefault(problem, []).append(voice)
        elif (
            (voice.state == State.GONE or voice.refusal == Voice.Refusal.MISSING)
            and problem is None
            and (job is None or job.status == Status.READY)
        ):
            lost_voices.restore(voice)
    for problem, voices in changed.items():
        lost_voices.mark_gone(voices, problem)


def _delete_orphans(client: AccountClient, listed: Iterable[responses.Voice]) -> None:
    """Deletes duplicate voices at the provider.

    The provider has created them for a clone job after the lease of the attempt had expired, so the job has ended with
    another voice or without any. Voices with the id of an unknown job are not deleted, because they can belong to
    another server that uses the same account.
    """
    for voice in listed:
        match = _CLONE_NAME.fullmatch(voice.name)
        if match is None:
            continue
        ended = CloneJob.objects.filter(pk=match[1], status__in=[Status.READY, Status.FAILED, Status.WITHDRAWN])
        if ended.exclude(voice__provider_id=voice.voice_id, status=Status.READY).exists():
            log.warning("cloning.orphan_voice_found", voice=voice.voice_id)
            provider_voices.delete_voice(client, voice.voice_id)
