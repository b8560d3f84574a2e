"""Simulates that others use the account, for example on the provider's web site.

`POST /sandbox/sales` bills a request that voicecare did not send.
"""

import math
import time
from collections.abc import Mapping

from voicecare.providers.elevenlabs.sandbox.account.models import DEFAULT_MODEL, MODELS
from voicecare.providers.elevenlabs.sandbox.errors import ApiError
from voicecare.providers.elevenlabs.sandbox.faults.faults import InvalidControlRequest, reject_unknown_fields
from voicecare.providers.elevenlabs.sandbox.records import BilledRequest, new_provider_id
from voicecare.providers.elevenlabs.sandbox.state import Sandbox

FIELDS = ("text", "voice_id", "model_id", "unix", "kept")
DEFAULT_VOICE_ID = "21m00Tcm4TlvDq8ikWAM"


def bill(sandbox: Sandbox, body: object) -> BilledRequest:
    """Bills a text as if another user had requested its speech. `body` is the JSON of `POST /sandbox/sales`.

    Its field `unix` is the time of the request in seconds (default now). `kept` says whether the request is in the
    history (default true). Raises InvalidControlRequest for an unknown field, voice or model.
    """
    if not isinstance(body, Mapping) or not isinstance(body.get("text"), str):
        raise InvalidControlRequest(f"A sale must be an object with a `text`. Known: {', '.join(FIELDS)}.")
    reject_unknown_fields(body, FIELDS, "a sale")
    try:
        model = MODELS[body.get("model_id", DEFAULT_MODEL)]
        voice = sandbox.voices.get(body.get("voice_id", DEFAULT_VOICE_ID))
    except (KeyError, ApiError) as error:
        raise InvalidControlRequest("There is no such model or voice.") from error
    text, before = body["text"], sandbox.config.characters_used
    credits = math.ceil(len(text) * model.credits_per_character)
    billed = BilledRequest(
        unix=float(body.get("unix", time.time())),
        history_item_id=new_provider_id(),
        request_id=new_provider_id(),
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
        kept=body.get("kept", True) is True,
    )
    sandbox.config.characters_used = billed.after
    sandbox.account.billed_requests.append(billed)
    sandbox.account.billed_requests.sort(key=lambda request: request.unix)
    return billed
