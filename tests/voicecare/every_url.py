"""Every URL of the URL configuration, with the ids of given rows in place of the parameters."""

import asyncio
import itertools
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib import admin
from django.db.models import Model
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone

from cloning.models import CloneJob
from tts.models import Conversation, Utterance
from voicecare.patients.models import Patient, Voice

GUESSES = ("nothing", "00000000-0000-4000-8000-000000000000")
CHARTS = ("days", "cost", "clinics", "patients", "voices", "unknown")
MODELS = {  # of parameters
    "patient_id": Patient,
    "voice_id": Voice,
    "job_id": CloneJob,
    "conversation_id": Conversation,
    "utterance_id": Utterance,
}
_PARAMETER = re.compile(r"<(?:(?P<converter>\w+):)?(?P<name>\w+)>")
_APP_LABEL = re.compile(r"\^\(\?P<app_label>([\w|]+)\)/\$")
_OTHER_EXPRESSIONS = {"(?P<url>.*)$": "no-such-page/", "^api(/|$)": "api/no-such-call/"}


@dataclass(frozen=True)
class Address:
    """The path of one request. `names_row` says whether it contains the id of one of the rows."""

    path: str
    name: str
    names_row: bool


def every_address(rows: Sequence[Model]) -> Iterator[Address]:
    """Yield the addresses of all URL patterns. A parameter that is a UUID gets the id of every row in turn.

    Raises AssertionError for a parameter whose values are not known here.
    """
    ids = {str(row.pk) for row in rows}
    for route, name in _patterns(get_resolver()):
        found = list(_PARAMETER.finditer(route))
        for values in itertools.product(*(_values(match, route, rows) for match in found)):
            path = route
            for match, value in zip(found, values, strict=True):
                path = path.replace(match[0], value, 1)
            yield Address(f"/{path}", name, not ids.isdisjoint(values))


def _patterns(resolver: URLResolver, prefix: str = "", namespace: str = "") -> Iterator[tuple[str, str]]:
    for pattern in resolver.url_patterns:
        if isinstance(pattern, URLResolver):
            yield from _patterns(pattern, prefix + str(pattern.pattern), pattern.namespace or namespace)
            continue
        assert isinstance(pattern, URLPattern)
        name = f"{namespace}:{pattern.name}" if namespace else str(pattern.name)
        part = str(pattern.pattern)
        if choices := _APP_LABEL.fullmatch(part):
            yield from ((f"{prefix}{label}/", name) for label in choices[1].split("|"))
        else:
            yield prefix + _OTHER_EXPRESSIONS.get(part, part), name


def _values(match: re.Match[str], route: str, rows: Sequence[Model]) -> list[str]:
    today = timezone.localdate()
    converter, name = match["converter"], match["name"]
    if converter == "uuid":
        model = MODELS.get(name, Model)
        return [str(row.pk) for row in rows if isinstance(row.pk, uuid.UUID) and isinstance(row, model)] + [GUESSES[-1]]
    if name in ("object_id", "id"):
        model = _model_of(route)
        return [*(str(row.pk) for row in rows if model in (None, type(row))), *GUESSES]
    known: Mapping[str, Sequence[str]] = {
        "uidb64": ["MQ"],  # of a password reset; the wrong token is in the session
        "token": ["wrong"],
        "year": [str(today.year)],
        "month": [f"{today.month:02}"],
        "name": CHARTS,
        "subject": CHARTS[-4:],
        "fault_name": ["explode"],  # of the sandbox
    }
    assert name in known, f"Say which values <{name}> of {route} has, so that the URL is requested."
    return [*known[name]]


def _model_of(route: str) -> type[Model] | None:
    """The model of an admin page such as admin/patients/patient/<path:object_id>/."""
    labels = route.split("/")[1:3]
    models = (model for model in admin.site._registry if [model._meta.app_label, model._meta.model_name] == labels)
    return next(models, None)


def body_of(response: Any) -> bytes:
    """Return the whole body, also of a streamed response."""
    if not response.streaming:
        return response.content  # type: ignore[no-any-return]

    async def read() -> bytes:
        return b"".join([part async for part in response])

    return asyncio.run(read()) if response.is_async else b"".join(response)
