"""Somebody else who uses the same account, e.g. on the provider's own site: `POST /sandbox/sales`."""

import math
import time
from collections.abc import Mapping
from typing import Any

from voicecare.providers.elevenlabs.sandbox.account.models import DEFAULT_MODEL, MODELS
from voicecare.providers.elevenlabs.sandbox.errors import ApiError
from voicecare.providers.elevenlabs.sandbox.faults.faults import BadRequest, known
from voicecare.providers.elevenlabs.sandbox.records import Sale, provider_id
from voicecare.providers.elevenlabs.sandbox.state import Sandbox

FIELDS = ("text", "voice_id", "model_id", "unix", "kept")
SOME_VOICE = "21m00Tcm4TlvDq8ikWAM"


def sell(sandbox: Sandbox, wanted: object) -> Sale:
    """Bills that text, as if it had been asked for at `unix` (seconds; now); raises BadRequest for anything unknown.

    `kept`: whether it is in the history (true). Sales are told in the order of their times, whenever they are added.
    """
    if not isinstance(wanted, Mapping) or not isinstance(wanted.get("text"), str):
        raise BadRequest(f"A sale is an object with a `text`. Known: {', '.join(FIELDS)}.")
    known(wanted, FIELDS, "a sale")
    sale = _sale(sandbox, wanted)
    sandbox.knobs.characters_used = sale.after
    sandbox.account.sales.append(sale)
    sandbox.account.sales.sort(key=lambda sale: sale.unix)
    return sale


def _sale(sandbox: Sandbox, wanted: Mapping[str, Any]) -> Sale:
    try:
        model = MODELS[wanted.get("model_id", DEFAULT_MODEL)]
        voice = sandbox.voices.get(wanted.get("voice_id", SOME_VOICE))
    except (KeyError, ApiError) as error:
        raise BadRequest("There is no such model or voice.") from error
    text, before = wanted["text"], sandbox.knobs.characters_used
    credits = math.ceil(len(text) * model.rate)
    return Sale(
        unix=float(wanted.get("unix", time.time())),
        history_item_id=provider_id(),
        request_id=provider_id(),
        voice_id=voice.voice_id,
        voice_name=voice.name,
        voice_category=voice.category,
        model_id=model.model_id,
        text=text,
        characters=len(text),
        credits=credits,
        before=before,
        after=before + credits,
        content_type="audio/mpeg",
        kept=wanted.get("kept", True) is True,
    )
