"""Voices that the provider will end. Administrators know early, and patients get the successor on the day."""

import uuid
from collections import Counter, defaultdict
from collections.abc import Collection

import structlog
from django.db.models import Count, Q
from django.utils import timezone

from usage.alerts import incidents
from usage.models import Incident
from voicecare.core import task_names, task_queue
from voicecare.core.batches import process_each, run_steps
from voicecare.patients.models import DefaultVoice, DefaultVoices, Patient, Voice
from voicecare.patients.models.default_voice import best_voice

Kind = incidents.Kind

_VOICES = ("voice__successor", "backup_voice__successor")  # what `DefaultVoices` reads of a patient

log = structlog.get_logger(__name__)


def check() -> None:
    """Propose successors, move patients away from voices that have ended, and update the incidents.

    Raises StepsFailed.
    """
    run_steps(_propose_successors, _move_away, _report)


def patients_by_voice() -> dict[Patient, Voice | None]:
    """The active patients, by name, and the voice of the next conversation of each."""
    defaults = DefaultVoices()
    patients = Patient.objects.active().select_related(*_VOICES)
    return {patient: defaults.for_patient(patient) for patient in patients.order_by("name", "pk")}


def count_patients(voices: Collection[Voice]) -> Counter[Voice]:
    """Count the active patients whose next conversation is in one of these voices, by this voice.

    Most patients have a voice that can be used, and the database counts them. The others are read by their voice,
    backup voice and language, with their number. At most five queries, two of them for `DefaultVoices`.
    """
    by_id = {voice.pk: voice for voice in voices}
    patients = Patient.objects.active().order_by()
    keeping = patients.keeping_voice()
    counted: Counter[Voice] = Counter()
    for voice_id, number in keeping.filter(voice__in=list(by_id)).values_list("voice").annotate(Count("pk")):
        counted[by_id[voice_id]] = number
    others = patients.exclude(pk__in=keeping.values("pk"))
    columns = ("voice", "backup_voice", "language", "backup_policy")
    groups = list(others.values_list(*columns).annotate(Count("pk")))
    if groups:
        defaults = DefaultVoices()
        known = Voice.objects.select_related("successor").in_bulk({key for group in groups for key in group[:2] if key})
        for voice_id, backup_id, language, policy, number in groups:
            one = Patient(
                voice=known.get(voice_id), backup_voice=known.get(backup_id), language=language, backup_policy=policy
            )
            voice = defaults.for_patient(one)
            if voice is not None and voice.pk in by_id:
                counted[voice] += number
    return counted


def voices_ending_on(day: str) -> set[Voice]:
    """The usable voices that end on this day, which is the key of an incident. None for a key that is no day."""
    ending = Voice.objects.filter(state=Voice.State.USABLE).exclude(ends_at=None)
    return {voice for voice in ending if _day_of(voice) == day}


def _day_of(voice: Voice) -> str:
    """The day on which the voice ends in UTC, as "2026-12-31"."""
    return f"{voice.ends_at:%Y-%m-%d}"


def _ending_voices() -> list[Voice]:
    """The usable voices with a known end that are a default voice, or the voice or backup voice of a patient."""
    patients = Patient.objects.active()
    chosen = {key for pair in patients.values_list("voice", "backup_voice") for key in pair if key is not None}
    ids = {voice.pk for voice in DefaultVoices().all()} | chosen
    usable = Voice.objects.filter(pk__in=ids, state=Voice.State.USABLE).exclude(ends_at=None)
    return list(usable.select_related("successor").order_by("name", "pk"))


def _propose_successors() -> None:
    """Replace successors that are gone, or that the provider never had, and propose the missing ones.

    A voice that was never read may be a wrong DEFAULT_VOICE_ID.
    """
    cannot_follow = ~Q(state=Voice.State.USABLE) | Q(read_at=None)
    Voice.objects.filter(successor__in=Voice.objects.filter(cannot_follow)).update(successor=None)
    without = [voice for voice in _ending_voices() if voice.successor is None]
    process_each("voices.propose_successor", without, _propose)


def _propose(voice: Voice) -> None:
    """Propose a stock voice that resembles this one and lasts longer. An administrator may choose another one."""
    read = Voice.objects.default_candidates().exclude(read_at=None)
    lasting = read.filter(Q(ends_at=None) | Q(ends_at__gt=voice.ends_at))
    candidates = [candidate for candidate in lasting.exclude(pk=voice.pk) if candidate.is_dependable]
    voice.successor = best_voice(candidates, voice.languages.partition(" ")[0], like=voice)
    Voice.objects.filter(pk=voice.pk, successor=None).update(successor=voice.successor)


def _move_away() -> None:
    """Let the successors of ended voices take over. They stay if the provider keeps an ended voice after all."""
    choices = DefaultVoice.objects.filter(chosen_by=DefaultVoice.ChosenBy.SERVER)
    for choice in choices.select_related("voice__successor"):
        successor = choice.voice.or_successor()
        if choice.voice.has_ended and successor is not None:
            choices.filter(pk=choice.pk).update(voice=successor, chosen_at=timezone.now())
    process_each("voices.move_patients", [voice for voice in _ending_voices() if voice.has_ended], _move_patients)


def _move_patients(voice: Voice) -> None:
    """Give the patients of an ended voice its successor, their backup voice, or the default voice.

    They keep it if there is no other, or if they hear only their own voice.
    """
    defaults = DefaultVoices()
    patients = list(Patient.objects.filter(voice=voice, erased_at=None).select_related(*_VOICES))
    moved: dict[uuid.UUID | None, list[uuid.UUID]] = defaultdict(list)
    for patient in patients:
        following = defaults.for_patient(patient)
        if following != voice:
            is_chosen = following is not None and following in (voice.successor, patient.backup_voice)
            moved[following.pk if following and is_chosen else None].append(patient.pk)
    for successor, ids in moved.items():
        Patient.objects.filter(pk__in=ids, voice=voice).update(voice=successor)
        log.info("voices.patients_moved", voice=str(voice.pk), successor=str(successor), patients=len(ids))
    if moved and voice.successor is not None:
        task_queue.enqueue_on_commit(task_names.WARM_VOICE, voice.successor.pk)


def _report() -> None:
    """Update the incidents. A voice that has ended belongs to one as long as somebody hears it, for lack of another."""
    defaults, ending = DefaultVoices().all(), _ending_voices()
    heard = count_patients(ending)
    by_day: dict[str, list[Voice]] = defaultdict(list)
    for voice in ending:
        if not voice.has_ended or voice in defaults or heard[voice]:
            by_day[_day_of(voice)].append(voice)
    for day, voices in by_day.items():
        _report_day(day, voices, defaults, sum(heard[voice] for voice in voices))
    incidents.resolve(Incident.objects.filter(kind=Kind.VOICE_ENDING).exclude(key__in=by_day))


def _report_day(day: str, voices: list[Voice], defaults: set[Voice], patients: int) -> None:
    """Open the incident of this day, or update its numbers. It names stock voices, but no clone and no patient."""
    named = [
        f"{voice.name if voice.can_be_default else f'voice {voice.pk}'}"
        f"{' (default voice)' if voice in defaults else ''}, then "
        f"{voice.successor.name if voice.successor else 'no other voice' if voice in defaults else 'the default voice'}"
        for voice in sorted(voices, key=lambda voice: voice not in defaults)
    ]
    more = f"; and {len(named) - 3} more" if len(named) > 3 else ""
    detail = f"On {day}: {'; '.join(named[:3])}{more}. Patients who hear one of these voices: {patients}."[:300]
    incidents.open_incident(Kind.VOICE_ENDING, day, detail)
    Incident.objects.filter(kind=Kind.VOICE_ENDING, key=day, resolved_at=None).exclude(detail=detail).update(
        detail=detail
    )
