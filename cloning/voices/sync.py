"""Reads the provider's voices before the periodic check is due."""

import uuid
from dataclasses import dataclass

from cloning.gateway import provider_voices
from cloning.voices import audit
from voicecare.patients.models import Voice

State = Voice.State


@dataclass(frozen=True, slots=True)
class SyncResult:
    """The result of a synchronisation, as numbers of voices.

    `added`: new stock voices. `changed`: voices that were renamed, or are usable again. `gone`: voices that are no
    longer usable.
    """

    added: int
    changed: int
    gone: int


def sync_stock_voices() -> SyncResult:
    """Adds new stock voices, updates what is known of all voices, and audits which are usable. Idempotent.

    Raises ProviderError if the provider's list cannot be read. Then nothing is changed.
    """
    with provider_voices.account_client() as client:
        list(client.voices())  # the audit does not raise
    known, before = _all(), _usable()
    changed = audit.audit_voices()
    added, after = _all() - known, _usable()
    return SyncResult(len(added), changed + len(after - before - added), len(before - after))


def read_first_voices() -> None:
    """Reads the provider's voices if none was ever read (on a new installation), or if none of them can be used."""
    if not Voice.objects.exclude(read_at=None).exists() or Voice.objects.default() is None:
        audit.audit_voices()


def _all() -> set[uuid.UUID]:
    return set(Voice.objects.values_list("pk", flat=True))


def _usable() -> set[uuid.UUID]:
    return set(Voice.objects.filter(state=State.USABLE).values_list("pk", flat=True))
