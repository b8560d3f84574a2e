"""Voices that the provider no longer has: found by their id, marked as gone, reported as one incident, and restored.

A refused request does not prove that the voice is gone. The plan or the API key may be the reason, and the provider's
list of voices can lag behind, be cut off or be empty. So a voice is marked as gone only if the provider, asked for this
voice, answers that it does not exist. If nearly all voices are missing together, the key belongs to another workspace:
then no voice is marked, and an `access` incident says so.
"""

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from usage.alerts import incidents
from usage.alerts.endings import REFUSED
from usage.alerts.voices import default_voice
from usage.models import Incident
from voicecare.core import task_names, task_queue
from voicecare.patients.models import DefaultVoices, Patient, Voice
from voicecare.providers.elevenlabs import credentials, responses
from voicecare.providers.elevenlabs.account import AccountClient
from voicecare.providers.errors import BadRequest, Cause, ProviderError, ServerError, VoiceUnavailable
from voicecare.webhooks import events
from voicecare.webhooks.events import Subject
from voicecare.webhooks.models import EventType

OTHER_WORKSPACE = "workspace"
"""The key of the incident for a provider key that belongs to another workspace."""

NEARLY_ALL = 0.9  # part of the voices, or of the clones, that cannot have been deleted at the same time
TOGETHER = timedelta(minutes=10)  # voices that are lost within this time have been lost for the same reason
CALL_TIMEOUT_S = (2.0, 3.0)  # connect, read

Kind = incidents.Kind
State = Voice.State

log = structlog.get_logger(__name__)


@dataclass
class Survey:
    """Which of our voices the provider has. If its answer about a voice was unclear, the voice is in neither
    collection.

    `listed` is the provider's list of voices, by the provider's id. `found` pairs our voices with the provider's.
    `missing` has only voices that are not yet marked as gone.
    """

    listed: dict[str, responses.Voice]
    found: list[tuple[Voice, responses.Voice]] = field(default_factory=list)
    missing: list[Voice] = field(default_factory=list)

    def is_other_workspace(self, known_since: datetime | None = None) -> bool:
        """Whether so many voices are missing that the API key must belong to another workspace.

        Stock voices exist in every workspace. So it is enough if nearly all voice clones are missing. Voices that were
        added after `known_since`, the time when another workspace was noticed, are its own and prove nothing.
        """
        there = [voice for voice, _ in self.found if known_since is None or voice.created_at < known_since]
        return _is_nearly_all(self.missing, there) or _is_nearly_all(_clones(self.missing), _clones(there))


def survey(client: AccountClient, voices: Iterable[Voice], doubted: Collection[uuid.UUID] = ()) -> Survey:
    """Find out which of these voices the provider has.

    A voice that is in the provider's list exists. The others are requested one by one, and so are the voices whose ids
    are in `doubted` and those that are marked as gone. Raises ProviderError if the list cannot be read, or if a request
    fails for a reason that does not concern its voice alone.
    """
    result = Survey({voice.voice_id: voice for voice in client.voices()})
    for voice in voices:
        provider_voice = result.listed.get(voice.provider_id)
        if provider_voice is None or voice.pk in doubted or voice.state == State.GONE:
            try:
                provider_voice = find(client, voice.provider_id)
            except (VoiceUnavailable, ServerError, BadRequest) as error:  # an answer about this voice alone
                log.warning("voices.lookup_failed", voice=str(voice.pk), particulars=error.support_details)
                continue
        if provider_voice is not None:
            result.found.append((voice, provider_voice))
        elif voice.state == State.USABLE:
            result.missing.append(voice)
    return result


def find(client: AccountClient, provider_id: str) -> responses.Voice | None:
    """Return the provider's voice with this id, or None if the provider says clearly that it does not exist.

    Raises ProviderError if the provider gives no clear answer.
    """
    try:
        return client.voice(provider_id)
    except VoiceUnavailable as error:
        if error.cause is Cause.VOICE_MISSING:
            return None
        raise


def is_other_workspace_known() -> bool:
    """Whether the incident about an API key of another workspace is open. With such a key, a refusal proves nothing."""
    return _other_workspace_since() is not None


def _other_workspace_since() -> datetime | None:
    known = Incident.objects.filter(kind=Kind.ACCESS, key=OTHER_WORKSPACE, resolved_at=None)
    return known.values_list("opened_at", flat=True).first()


def mark_missing(result: Survey, former: Mapping[str, Voice] | None = None) -> None:
    """Mark the missing voices as gone, and report them as one incident.

    `former` is `DefaultVoices.by_language` before the survey changed any row, by default that of now.
    If the API key belongs to another workspace, it marks none and opens an `access` incident.
    """
    if result.is_other_workspace(_other_workspace_since()):
        _mark_missing_in_workspace(result.missing, former)
        count, total = len(result.missing), len(result.missing) + len(result.found)
        log.error("voices.other_workspace", missing=count, of=total)
        detail = (
            f"{count} of {total} voices are missing at the provider. The key probably belongs to another "
            "workspace or region. No voice was marked as gone: patients with these voices hear the default voice "
            "or the offline voice until the provider has them again."
        )
        incidents.open_incident(Kind.ACCESS, OTHER_WORKSPACE, detail)
        return
    incidents.resolve_incident(Kind.ACCESS, OTHER_WORKSPACE)
    mark_gone(result.missing, "It no longer exists at the provider.", former)


@transaction.atomic
def _mark_missing_in_workspace(voices: Iterable[Voice], former: Mapping[str, Voice] | None) -> None:
    """Let another voice be the default voice while the key belongs to another workspace."""
    former = DefaultVoices().by_language() if former is None else former
    missing = [voice for voice in voices if voice.can_be_default and not voice.refusal]
    Voice.objects.filter(pk__in=[voice.pk for voice in missing]).update(refusal=Voice.Refusal.MISSING)
    default_voice.report_takeovers(former, missing, "It is not in the workspace of the key.")


@transaction.atomic  # a voice that is marked without a report would never be reported
def mark_gone(voices: Iterable[Voice], problem: str, former: Mapping[str, Voice] | None = None) -> None:
    """Mark these voices as gone, and report those that were not marked yet and that patients have as one incident.

    A default voice has an incident of its own, which names the voice that has taken over. `problem` is a sentence for
    the administrators. `former` is `DefaultVoices.by_language` before the loss, by default that of now.
    """
    former = DefaultVoices().by_language() if former is None else former
    in_order = sorted(voices, key=lambda voice: voice.pk)  # two processes that mark the same voices must not deadlock
    lost = [
        voice for voice in in_order if Voice.objects.filter(pk=voice.pk, state=State.USABLE).update(state=State.GONE)
    ]
    for voice in lost:
        log.warning("cloning.voice_lost", voice=str(voice.pk), problem=problem)
    emit_gone(lost)
    replaced = default_voice.report_takeovers(former, lost, problem)
    used = _ids_in_use()
    lost = [voice for voice in lost if voice not in replaced and voice.pk in used]
    if len(lost) == 1:
        job = getattr(lost[0], "clone_job", None)
        hint = " Its recording is kept. Retry the clone to create it again." if job is not None and job.sample else ""
        _report(lost[0], f"Voice {lost[0].pk}: {problem}{hint}")
    elif lost:
        _report_lost(problem)


def emit_gone(voices: Iterable[Voice]) -> None:
    """Emit an event for integrators for each of these voices, in the transaction that marks them as gone."""
    subjects = (
        Subject(voice.pk, voice.patient_id, {"id": voice.pk, "source": voice.source, "state": State.GONE.value})
        for voice in voices
    )
    events.emit(EventType.VOICE_GONE, subjects)


@transaction.atomic
def restore(voice: Voice) -> None:
    """Make a voice usable again that was marked as gone, or as missing in the workspace.

    Resolves its incident and generates its phrases again.
    """
    marked = Voice.objects.filter(Q(state=State.GONE) | Q(refusal=Voice.Refusal.MISSING), pk=voice.pk)
    if marked.update(state=State.USABLE, refusal=""):
        log.info("voices.restored", voice=str(voice.pk))
        resolve(voice)
        task_queue.enqueue_on_commit(task_names.WARM_VOICE, voice.pk)


@transaction.atomic
def resolve(voice: Voice) -> None:
    """Resolve the incident of a voice that can be used again.

    If no voice is gone now, the incident about several voices is resolved, too.
    """
    incidents.resolve_incident(Kind.VOICE, str(voice.pk))
    default_voice.resolve_takeover(voice)
    # Locked before the check. Otherwise two transactions that restore the last two voices would both see a gone voice.
    shared = Incident.objects.select_for_update().filter(kind=Kind.VOICE, key="", resolved_at=None).first()
    if shared is not None and not Voice.objects.filter(state=State.GONE).exists():
        incidents.resolve_incident(Kind.VOICE)


def check_refused(voice_id: uuid.UUID, error: ProviderError) -> None:
    """Find out why the provider refused to speak in this voice, and report it as an incident.

    Runs in a background task, because it may send one request for each voice. `error` is the refusal.
    """
    voice = Voice.objects.filter(pk=voice_id, state=State.USABLE).first()
    if voice is None or is_other_workspace_known():
        return
    problem = f"The provider refuses to speak in it ({error.support_details})."
    if error.cause is not Cause.VOICE_MISSING and _mark_refused(voice, problem):
        return
    if error.cause is Cause.PLAN:
        _report_refused(f"Voice {voice.pk}: {problem} The plan does not include it. Nothing is wrong with the voice.")
        return
    try:
        base_url, api_key = settings.ELEVENLABS_BASE_URL, credentials.api_key()
        with closing(AccountClient(base_url, api_key, timeout=CALL_TIMEOUT_S)) as client:
            if find(client, voice.provider_id) is None:
                mark_missing(survey(client, Voice.objects.filter(state=State.USABLE), doubted=[voice.pk]))
                return
        found = "The provider still has it."
    except ProviderError as failure:
        found = f"It is not known whether the provider still has it ({failure.support_details})."
    is_repeated = Incident.objects.filter(kind=Kind.VOICE, key=str(voice.pk), resolved_at=None).exists()
    if not (is_repeated and _mark_refused(voice, problem)):
        _report(voice, f"Voice {voice.pk}: {problem} {found}")


@transaction.atomic  # another process with the same refusal waits at the row, and finds the incident
def _mark_refused(voice: Voice, problem: str) -> bool:
    """Do not use this stock voice as the default voice. If it was, report which voice has taken over.

    Returns whether the takeover is reported, now or before. The patients who have chosen the voice keep it.
    """
    if not voice.can_be_default:
        return False
    former = DefaultVoices().by_language()
    if Voice.objects.filter(pk=voice.pk, refusal="").update(refusal=Voice.Refusal.REFUSED):
        return bool(default_voice.report_takeovers(former, [voice], problem))
    return Incident.objects.filter(kind=Kind.DEFAULT_VOICE, key=str(voice.pk), resolved_at=None).exists()


def _report(voice: Voice, detail: str) -> None:
    """Open the incident of one voice. Further voices share one incident, so that many voices cause few alerts."""
    if not Incident.objects.filter(kind=Kind.VOICE, resolved_at=None).exclude(key=str(voice.pk)).exists():
        incidents.open_incident(Kind.VOICE, str(voice.pk), detail)
    elif Voice.objects.filter(pk=voice.pk, state=State.GONE).exists():
        _report_lost(detail)
    else:
        _report_refused(detail)


def _report_lost(latest: str) -> None:
    """Open the incident about several lost voices, or update its numbers. Its page in the admin names the patients.

    The open incident of a single voice that was lost shortly before becomes the one about all. `latest` is a sentence
    about the voice that was lost last.
    """
    gone = list(Voice.objects.filter(state=State.GONE).order_by("name", "pk").values_list("pk", flat=True))
    still_open = Incident.objects.filter(kind=Kind.VOICE, resolved_at=None)
    if not still_open.filter(key="").exists():
        recent = still_open.filter(key__in=map(str, gone), opened_at__gt=Now() - TOGETHER)
        still_open.filter(pk__in=recent.order_by("-opened_at").values_list("pk", flat=True)[:1]).update(key="")
    affected = Patient.objects.remaining().filter(voice__state=State.GONE).count()
    named = ", ".join(map(str, gone[:2])) + (f" and {len(gone) - 2} more" if len(gone) > 2 else "")
    counts = f"{len(gone)} voices are gone ({named}). {affected} patients have one of them."
    _report_several("", f"{counts} {latest}")


def _report_refused(latest: str) -> None:
    """Open the incident about several voices that exist, but are refused. `latest` is a sentence about the last one."""
    _report_several(REFUSED, f"Voices are refused. {latest}")


def _report_several(key: str, detail: str) -> None:
    incidents.open_incident(Kind.VOICE, key, detail)
    Incident.objects.filter(kind=Kind.VOICE, key=key, resolved_at=None).update(detail=detail[:300])


def resolve_settled() -> None:
    """Resolve the incidents about lost voices that no patient has any longer. The list of voices shows their loss."""
    gone = set(Voice.objects.filter(state=State.GONE).values_list("pk", flat=True))
    used = gone & _ids_in_use()
    incidents.resolve(Incident.objects.filter(kind=Kind.VOICE, key__in=map(str, gone - used)))
    if not used:
        incidents.resolve_incident(Kind.VOICE)


def _ids_in_use() -> set[uuid.UUID]:
    """The voices that patients have as their voice or backup voice."""
    chosen = Patient.objects.remaining().values_list("voice", "backup_voice")
    return {voice for pair in chosen for voice in pair if voice is not None}


def _is_nearly_all(missing: Sequence[Voice], there: Sequence[Voice]) -> bool:
    """Whether the missing voices are nearly all of our voices. A single missing voice is never enough."""
    return len(missing) > 1 and len(missing) >= NEARLY_ALL * (len(missing) + len(there))


def _clones(voices: Iterable[Voice]) -> list[Voice]:
    return [voice for voice in voices if voice.source == Voice.Source.CLONED]
