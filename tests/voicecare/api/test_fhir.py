"""docs/fhir.md names every field of the resources that it maps, and no other."""

import json
import re

import pytest
from django.test import Client

from tests.server import ROOT
from tts.states import UtteranceState
from voicecare.audit.models import AuditEntry

TEXT = (ROOT / "docs/fhir.md").read_text()
TABLE = re.compile(r"Schema `(\w+)`[^|]*\n\n((?:\|[^\n]*\n)+)")


def first_column(table: str) -> set[str]:
    return {name for line in table.splitlines()[2:] for name in re.findall(r"`([\w.]+)`", line.split("|")[1])}


@pytest.mark.django_db
def test_every_field_is_mapped():
    schemas = json.loads(Client().get("/api/schema/").content)["components"]["schemas"]
    mapped = {name: first_column(table) for name, table in TABLE.findall(TEXT)}
    assert set(mapped) == {"Patient", "Clinic", "Device", "Spoken", "Conversation", "Clone"}
    assert mapped == {name: set(schemas[name]["properties"]) for name in mapped}


def test_every_status_of_an_utterance_is_mapped():
    (table,) = re.findall(r"\n\| `status` \| Communication \|\n(?:\|.*\n)+", TEXT)
    assert first_column(table.lstrip()) == {state.value for state in UtteranceState}


def test_every_field_of_the_audit_trail_is_mapped():
    (table,) = re.findall(r"\n\| field \| element of AuditEvent \|.*\n(?:\|.*\n)+", TEXT)
    assert first_column(table.lstrip()) == {field.attname for field in AuditEntry._meta.fields} - {"id"}
