"""Error responses of the URLs under /api/.

The body is `{"detail": ..., "code": ...}`. For invalid fields it also has the messages of each field, as
`{"field": ["message", ...]}`, and `errors`, a list of `{"field": ..., "code": ..., "detail": ...}`.
"""

import traceback
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

import structlog
from django.db import InterfaceError, OperationalError
from rest_framework import views
from rest_framework.exceptions import APIException, NotFound, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.settings import api_settings

from voicecare.core.errors import VoicecareError

_STATUS = {
    "idempotency_conflict": 409,
    "secret_already_shown": 409,
    "voice_not_usable": 409,
    "inspection_failed": 503,
    "storage_unavailable": 503,
}  # by the code of a VoicecareError; all other codes get 400

_READ_ONLY_SQLSTATE = "25006"  # PostgreSQL: a write to a standby that is not the primary yet

log = structlog.get_logger(__name__)


def exception_handler(error: Exception, context: Mapping[str, Any]) -> Response:
    """Returns the response for an exception in a view (DRF's setting EXCEPTION_HANDLER).

    An unexpected exception becomes a JSON response, because Django would send an HTML page. Its status is 503 if the
    database is unavailable or read-only, otherwise 500.
    """
    if isinstance(error, VoicecareError):
        views.set_rollback()
        return Response(error.as_body(), _STATUS.get(error.code, 400))
    response = views.exception_handler(error, dict(context))
    if response is None:
        # The log has the place of the error and not its message, because messages of databases contain values of rows.
        place = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-8:]]
        log.error("rest.failed", error=type(error).__name__, place=place)
        views.set_rollback()
        is_standby = getattr(error.__cause__, "sqlstate", None) == _READ_ONLY_SQLSTATE
        status = 503 if is_standby or isinstance(error, OperationalError | InterfaceError) else 500
        return Response(error_body(status), status)
    if isinstance(error, ValidationError):
        response.data = _validation_body(error)
    else:
        code = error.get_codes() if isinstance(error, APIException) else error_body(response.status_code)["code"]
        response.data = {"detail": response.data["detail"], "code": code}
    return response


def _validation_body(error: ValidationError) -> dict[str, Any]:
    """Returns the body for invalid values of fields, or for an error of the whole request."""
    found: Any = error.detail
    general = found.get(api_settings.NON_FIELD_ERRORS_KEY) if isinstance(found, dict) else found
    if general:
        return {"detail": " ".join(general), "code": "invalid"}
    errors = list(_field_errors(found))
    detail = " ".join(f"{each['field']}: {each['detail']}" for each in errors)
    return {**found, "detail": detail, "code": "invalid", "errors": errors}


def _field_errors(found: Any, path: str = "") -> Iterator[dict[str, str]]:  # noqa: ANN401 - DRF's nested details
    """Yields the errors of all fields. The name of a nested field has dots, for example `events.0`."""
    if isinstance(found, dict):
        for name, inner in found.items():
            yield from _field_errors(inner, f"{path}.{name}" if path else str(name))
        return
    for message in found:
        if isinstance(message, dict | list):
            yield from _field_errors(message, path)
        else:
            yield {"field": path, "code": message.code, "detail": str(message)}


def error_body(status: int) -> dict[str, str]:
    """Returns the body for an error of which only the HTTP status is known.

    Example: `{"detail": "Not Found.", "code": "not_found"}`.
    """
    phrase = HTTPStatus(status).phrase
    return {"detail": f"{phrase}.", "code": phrase.lower().replace(" ", "_")}


class NotFoundView(views.APIView):
    """Answers every unknown URL under /api/ with status 404 and a JSON body."""

    authentication_classes = ()
    permission_classes = ()
    schema = None

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        raise NotFound("Not found. URLs end with a slash.")
