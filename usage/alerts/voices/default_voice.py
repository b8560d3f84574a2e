"""The incidents of the default voice: another voice has taken over, or the provider has no usable voice at all."""

from collections.abc import Collection, Mapping

import structlog

from usage.alerts import incidents
from usage.models import Incident
from voicecare.core import languages, task_names, task_queue
from voicecare.patients.models import DefaultVoice, DefaultVoices, Patient, Voice

Kind = incidents.Kind

log = structlog.get_logger(__name__)


def report_takeovers(former: Mapping[str, Voice], lost: Collection[Voice], problem: str) -> list[Voice]:
    """Report which of the `former` default voices are lost, and which voices have taken over. One incident for each.

    Call it after the lost voices were marked. `former` is `DefaultVoices.by_language` from before. `problem` is a
    sentence. Returns those that were default voices.
    """
    replaced = [voice for voice in lost if voice in former.values()]
    for voice in replaced:
        defaults = DefaultVoices()
        spoken = sorted(language for language, default in former.items() if default == voice)
        successors = [defaults.for_language(language) for language in spoken]
        names = list(dict.fromkeys(successor.name for successor in successors if successor not in (None, voice)))
        chosen = Patient.objects.remaining().filter(voice=voice).count()
        log.warning("voices.default_replaced", voice=str(voice.pk), successors=len(names))
        if names:
            also = f" Patients who have chosen {voice.name} for themselves: {chosen}." if chosen else ""
            scope = "" if "" in spoken else f" for {', '.join(languages.LANGUAGES.get(tag, tag) for tag in spoken)}"
            detail = f"The default voice{scope} was {voice.name}: {problem} Now it is {', '.join(names)}.{also}"
            incidents.open_incident(Kind.DEFAULT_VOICE, str(voice.pk), detail)
            for successor in filter(None, successors):
                task_queue.enqueue_on_commit(task_names.WARM_VOICE, successor.pk)
    if replaced:
        check()
    return replaced


def resolve_takeover(voice: Voice) -> None:
    """Resolve the incident of a default voice that can be used again."""
    incidents.resolve_incident(Kind.DEFAULT_VOICE, str(voice.pk))


def is_missing() -> bool:
    """Whether the offline voice speaks for lack of a default voice. Only reads, for probes.

    Either the incident that the provider has no usable voice is open, or all stock voices are refused or missing.
    """
    if Incident.objects.filter(kind=Kind.NO_USABLE_VOICE, resolved_at=None).exists():
        return True
    stock = Voice.objects.default_candidates()
    return stock.exclude(refusal="").exists() and not stock.filter(refusal="").exists()


def check() -> None:
    """Open or resolve the incident that the provider has no usable voice. Resolve takeovers that somebody has settled.

    A takeover is settled when the former default voice can be used, or when an administrator has chosen a default voice
    since. A choice for another language settles none: then the former voice is still chosen for its language.
    """
    default = Voice.objects.default()
    if default is None:
        detail = "The account has no stock voice that can be used, or its voices were not read yet."
        incidents.open_incident(Kind.NO_USABLE_VOICE, detail=detail)
    elif default.refusal == Voice.Refusal.REFUSED:
        incidents.open_incident(Kind.NO_USABLE_VOICE, detail=f"The provider refuses all voices, also {default.name}.")
    elif not default.refusal:  # a voice of another workspace is reported by the incident of the key
        incidents.resolve_incident(Kind.NO_USABLE_VOICE)
    for incident in Incident.objects.filter(kind=Kind.DEFAULT_VOICE, resolved_at=None):
        former = Voice.objects.filter(pk=incident.key).first()
        chosen = DefaultVoice.objects.filter(chosen_by=DefaultVoice.ChosenBy.ADMINISTRATOR)
        is_decided = (
            chosen.filter(chosen_at__gt=incident.opened_at).exists() and not chosen.filter(voice=former).exists()
        )
        if is_decided or former is None or former.is_dependable:
            incidents.resolve_incident(Kind.DEFAULT_VOICE, incident.key)
