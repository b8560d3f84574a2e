"""The header `Idempotency-Key`: a repeated call creates nothing again.

The response is not stored, only the id of the created row, so that no second copy of a patient's data or of a secret
exists. `tts.outbox.store` has the same rules for texts, whose rows contain their own keys.
"""

import json
import re
import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.db.models.functions import Now
from django.urls import resolve
from django.utils.crypto import salted_hmac
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework.exceptions import APIException
from rest_framework.request import Request

from voicecare.accounts.models import IdempotentCall
from voicecare.api.schema import ErrorSerializer
from voicecare.core.errors import IdempotencyConflict, VoicecareError

LIFETIME = timedelta(hours=24)  # at least; an hourly task deletes older keys
MAX_LENGTH = 255

HEADER = OpenApiParameter(
    "Idempotency-Key",
    str,
    OpenApiParameter.HEADER,
    description="Makes a retry safe: the same key with the same body has an effect only once within 24 hours.",
)
CONFLICT = OpenApiResponse(
    ErrorSerializer, "`idempotency_conflict`: the user has sent the key with another body before."
)
CONFLICT_OR_SECRET = OpenApiResponse(
    ErrorSerializer,
    f"{CONFLICT.description} `secret_already_shown`: the first call with this key has succeeded, and its token or "
    "secret is not shown again. `id` is the id of the device or endpoint.",
)

_SALT = "voicecare.api.idempotency"
_KEY = re.compile(rf"[\x20-\x7e]{{1,{MAX_LENGTH}}}")


class InvalidIdempotencyKey(APIException):
    status_code = 400
    default_code = "bad_idempotency_key"
    default_detail = f"`Idempotency-Key` must have 1 to {MAX_LENGTH} printable ASCII characters."


class SecretAlreadyShown(VoicecareError):
    """The repeated call has created a secret, which was only in the first response. REST status 409."""

    code = "secret_already_shown"

    def __init__(self, object_id: uuid.UUID, hint: str) -> None:
        super().__init__(f"The first call with this Idempotency-Key has succeeded. {hint}")
        self._object_id = object_id

    def as_body(self) -> dict[str, object]:
        return {**super().as_body(), "id": str(self._object_id)}


def key_of(request: Request) -> str:
    """Returns the key of the request, empty if there is none. Raises InvalidIdempotencyKey."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return ""
    if not _KEY.fullmatch(key) or not key.strip():
        raise InvalidIdempotencyKey
    return key


def find(request: Request, values: Any) -> uuid.UUID | None:  # noqa: ANN401 - any JSON
    """Returns the id of the row that an earlier call with this key has created. None for a new key, or without a key.

    `values` are the body of the request, or what stands for it. Raises IdempotencyConflict if the earlier call had
    other ones or another path, and InvalidIdempotencyKey.
    """
    key = key_of(request)
    call = IdempotentCall.objects.filter(**_identity(request, key)).first() if key else None
    return _object_id(call, request, values) if call else None


def begin(request: Request, values: Any) -> IdempotentCall | None:  # noqa: ANN401
    """Claims the key of the request in the current transaction. Returns None without a key.

    If an earlier call had this key, the `object_id` of the result is the id of the row that it created. Otherwise it is
    None, and the caller creates the row and calls `finish` in the same transaction. Concurrent calls with the same key
    wait until this transaction ends. If it is rolled back, the key is free. Raises as `find` does.
    """
    key = key_of(request)
    if not key:
        return None
    call, is_new = IdempotentCall.objects.get_or_create(
        **_identity(request, key), defaults={"request_digest": _request_digest(request, values)}
    )
    if not is_new:
        _object_id(call, request, values)
    return call


def finish(call: IdempotentCall | None, object_id: uuid.UUID) -> None:
    """Stores the id of the created row for `call`, the result of `begin`."""
    if call is not None:
        IdempotentCall.objects.filter(pk=call.pk).update(object_id=object_id)


def delete_expired() -> None:
    """Deletes keys that are older than LIFETIME."""
    IdempotentCall.objects.filter(made_at__lt=Now() - LIFETIME).delete()


def _identity(request: Request, key: str) -> Mapping[str, Any]:
    return {"user": request.user, "route": resolve(request.path_info).view_name, "key_digest": _digest(key)}


def _request_digest(request: Request, values: Any) -> str:  # noqa: ANN401
    return _digest(json.dumps([request.path_info, values], sort_keys=True, default=str))


def _digest(text: str) -> str:
    return salted_hmac(_SALT, text, algorithm="sha256").hexdigest()


def _object_id(call: IdempotentCall, request: Request, values: Any) -> uuid.UUID | None:  # noqa: ANN401
    if call.request_digest != _request_digest(request, values):
        raise IdempotencyConflict
    return call.object_id
