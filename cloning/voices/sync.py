"""Copies the provider's stock voices into our database, so that clinicians can choose one of them."""

from dataclasses import dataclass

from cloning.gateway import provider_voices
from cloning.models import PROVIDER_NAME_PREFIX
from cloning.voices import audit
from usage.alerts import incidents
from voicecare.patients.models import Voice
from voicecare.providers.elevenlabs import responses

Source, State = Voice.Source, Voice.State


@dataclass(frozen=True, slots=True)
class SyncResult:
    """How many voices a synchronisation has changed."""

    added: int
    changed: int
    gone: int


def sync_stock_voices() -> SyncResult:
    """Adds new stock voices, updates names, and updates which voices are usable. Idempotent.

    Raises ProviderError if the list cannot be read. Then nothing is changed.
    """
    with provider_voices.account_client() as client:
        # A clone is the voice of one patient's relative, even if it was not created here. It is not offered to others.
        stock = [v for v in client.voices() if v.category != "cloned" and not v.name.startswith(PROVIDER_NAME_PREFIX)]
    known = set(Voice.objects.values_list("provider_id", flat=True))
    added = [
        Voice(provider_id=v.voice_id, name=_name(v), source=Source.STOCK) for v in stock if v.voice_id not in known
    ]
    Voice.objects.bulk_create(added, ignore_conflicts=True)
    changed = 0
    for voice in stock:
        rows = Voice.objects.filter(provider_id=voice.voice_id, source=Source.STOCK)
        renamed = rows.exclude(name=_name(voice)).update(name=_name(voice))
        returned = rows.filter(state=State.GONE).first()
        if returned is not None and rows.filter(state=State.GONE).update(state=State.USABLE):
            incidents.resolve_incident(incidents.Kind.VOICE, str(returned.pk))
        changed += bool(renamed or returned)
    usable = Voice.objects.filter(state=State.USABLE)
    usable_before = usable.count()
    audit.audit_voices()
    return SyncResult(len(added), changed, max(usable_before - usable.count(), 0))


def _name(voice: responses.Voice) -> str:
    return voice.name.strip()[:100] or voice.voice_id
