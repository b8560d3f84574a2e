"""The provider's endpoints for voices: list, search, read, clone, edit and delete."""

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web
from aiohttp.web_request import FileField

from voicecare.providers.elevenlabs.sandbox.account.voices import SETTINGS, Sample, Voice
from voicecare.providers.elevenlabs.sandbox.api.middleware import json_endpoint
from voicecare.providers.elevenlabs.sandbox.api.query import boolean, integer
from voicecare.providers.elevenlabs.sandbox.errors import preset_error, validation_error
from voicecare.providers.elevenlabs.sandbox.state import Sandbox

MAX_FILE_BYTES = 11 * 1024 * 1024
MAX_FILES = 25
MAX_PAGE = 100
# The first bytes of audio files: ID3, MP3 frame, RIFF, Ogg, FLAC, Matroska. MP4 has `ftyp` at its fifth byte.
AUDIO_BEGINNINGS = (b"ID3", b"\xff", b"RIFF", b"OggS", b"fLaC", b"\x1aE\xdf\xa3")

Form = Mapping[str, Any]


async def v1_list(sandbox: Sandbox, _request: web.Request) -> dict[str, Any]:
    return {"voices": [voice.to_json() for voice in sandbox.voices.all()]}


async def v2_list(sandbox: Sandbox, request: web.Request) -> dict[str, Any]:
    """Returns the JSON that the provider's schema calls `GetVoicesV2ResponseModel`: one page of the matching voices.

    The token of the next page is an index in the sorted list.
    """
    query = request.query
    size = integer(query, "page_size", 10) or 0
    if not 1 <= size <= MAX_PAGE:
        raise preset_error("invalid_page_size", f"page_size must be between 1 and {MAX_PAGE}.", param="page_size")
    sort_by = query.get("sort", "created_at_unix")
    if sort_by not in ("created_at_unix", "name"):
        raise preset_error("invalid_parameters", "sort must be 'created_at_unix' or 'name'.", param="sort")
    descending = query.get("sort_direction", "desc" if sort_by == "created_at_unix" else "asc") == "desc"
    voices = [voice for voice in sandbox.voices.all() if _matches(voice, request)]
    voices.sort(key=lambda voice: getattr(voice, sort_by), reverse=descending)
    start, token = 0, query.get("next_page_token")
    if token is not None:
        try:
            start = int(base64.urlsafe_b64decode(token).removeprefix(b"place:"))
        except ValueError:
            raise preset_error("invalid_cursor", param="next_page_token") from None
    end = start + size
    more = end < len(voices)
    return {
        "voices": [voice.to_json() for voice in voices[start:end]],
        "has_more": more,
        "total_count": len(voices) if boolean(query, "include_total_count", True) else 0,
        "next_page_token": base64.urlsafe_b64encode(f"place:{end}".encode()).decode() if more else None,
    }


def _matches(voice: Voice, request: web.Request) -> bool:
    query = request.query
    ids = query.getall("voice_ids", [])
    kind = query.get("voice_type")
    is_default = voice.category == "premade"
    searched = (voice.name, voice.description or "", voice.category, *voice.labels.values())
    words = query.get("search", "").casefold()
    return (
        (not ids or voice.voice_id in ids)
        and query.get("category") in (None, voice.category)
        and any(words in text.casefold() for text in searched)
        and (kind is None or kind == "saved" or (kind == "default") == is_default)
        and kind != "community"
    )


async def read(sandbox: Sandbox, request: web.Request) -> dict[str, Any]:
    return sandbox.voices.get(request.match_info["voice_id"]).to_json()


async def settings(sandbox: Sandbox, request: web.Request) -> dict[str, Any]:
    sandbox.voices.get(request.match_info["voice_id"])
    return dict(SETTINGS)


async def delete(sandbox: Sandbox, request: web.Request) -> dict[str, Any]:
    sandbox.voices.remove(request.match_info["voice_id"])
    return {"status": "ok"}


async def add(sandbox: Sandbox, request: web.Request) -> dict[str, Any]:
    """Creates an instant voice clone, which is usable immediately. Its sound does not depend on the recording."""
    form = await request.post()
    name = _name(form)
    samples = _samples(form)
    if not samples:
        raise validation_error(["body", "files"], "Field required", "missing")
    labels = _labels(form)
    if not sandbox.config.can_clone:
        raise preset_error("can_not_use_instant_voice_cloning")
    used, limit = sandbox.voices.slots_used, sandbox.config.voice_limit
    if used >= limit:
        raise preset_error(
            "voice_limit_reached",
            f"You have reached your maximum amount of custom voices ({used} / {limit}). "
            "You can upgrade your subscription to increase your custom voice limit.",
        )
    sandbox.account.count_voice_edit()
    voice = sandbox.voices.clone(name, samples, labels, _text(form, "description"))
    return {"voice_id": voice.voice_id, "requires_verification": False, "library_voice_match": None}


async def edit(sandbox: Sandbox, request: web.Request) -> dict[str, Any]:
    voice = sandbox.voices.get(request.match_info["voice_id"])
    form = await request.post()
    name, samples, labels = _name(form), _samples(form), _labels(form)
    sandbox.account.count_voice_edit()
    voice.name = name
    voice.samples += samples
    voice.labels = labels or voice.labels
    voice.description = _text(form, "description") or voice.description
    return {"status": "ok"}


def _text(form: Form, name: str) -> str | None:
    value = form.get(name)
    return value if isinstance(value, str) else None


def _name(form: Form) -> str:
    name = _text(form, "name")
    if name is None:
        raise validation_error(["body", "name"], "Field required", "missing")
    if not name.strip():
        raise preset_error("invalid_parameters", "The name must not be empty.", param="name")
    return name


def _labels(form: Form) -> dict[str, str]:
    """Returns the labels of the voice, which are JSON text in a form field. Raises ApiError if they are invalid.

    The official clients send `null` if there are no labels.
    """
    try:
        labels = json.loads(_text(form, "labels") or "null")
    except ValueError:
        raise preset_error("invalid_parameters", "labels must be JSON text.", param="labels") from None
    if labels is None:
        return {}
    if not isinstance(labels, dict) or not all(isinstance(value, str) for value in labels.values()):
        raise preset_error("invalid_parameters", "labels must be a JSON object with string values.", param="labels")
    return labels


def _samples(form: Form) -> list[Sample]:
    """Returns the metadata of the uploaded recordings. The form field is named `files` or `files[]`.

    Raises ApiError for files that are not audio, too large, duplicate or too many.
    """
    parts = [value for name, value in form.items() if name in ("files", "files[]")]
    if len(parts) > MAX_FILES:
        raise preset_error("invalid_parameters", f"No more than {MAX_FILES} files.", param="files")
    samples = []
    for place, part in enumerate(parts):
        if not isinstance(part, FileField):
            raise validation_error(["body", "files", place], "Value error, Expected UploadFile", "value_error")
        audio = part.file.read()
        if len(audio) > MAX_FILE_BYTES:
            raise preset_error("request_too_large", f"A file is limited to {MAX_FILE_BYTES} bytes.", param="files")
        if not (audio.startswith(AUDIO_BEGINNINGS) or audio[4:8] == b"ftyp"):
            raise preset_error("invalid_audio", param="files")
        digest = hashlib.sha256(audio).hexdigest()[:32]
        samples.append(Sample(part.filename, part.content_type, len(audio), digest))
    if len({sample.hash for sample in samples}) < len(samples):
        raise preset_error("duplicate_files")
    return samples


def add_routes(router: web.UrlDispatcher) -> None:
    router.add_get("/v1/voices", json_endpoint(v1_list))
    router.add_get("/v2/voices", json_endpoint(v2_list))
    router.add_post("/v1/voices/add", json_endpoint(add))
    router.add_get("/v1/voices/{voice_id}", json_endpoint(read))
    router.add_delete("/v1/voices/{voice_id}", json_endpoint(delete))
    router.add_get("/v1/voices/{voice_id}/settings", json_endpoint(settings))
    router.add_post("/v1/voices/{voice_id}/edit", json_endpoint(edit))
