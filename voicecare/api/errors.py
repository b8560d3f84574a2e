"""Error responses under /api/: `{"detail": ..., "code": ...}`. Invalid fields are `{"field": ["message", ...]}`."""

import traceback
from collections.abc import Mapping
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

_STATUS = {"idempotency_conflict": 409}  # by the code of a VoicecareError; all other codes get 400

_READ_ONLY_SQLSTATE = "25006"  # PostgreSQL: a write to a standby that is not the primary yet

log = structlog.get_logger(__name__)


def exception_handler(error: Exception, context: Mapping[str, Any]) -> Response:
    """DRF's EXCEPTION_HANDLER. Unexpected errors become 500 here, because Django would answer with an HTML page."""
    if isinstance(error, VoicecareError):
        views.set_rollback()
        return Response(error.as_body(), _STATUS.get(error.code, 400))
    response = views.exception_handler(error, dict(context))
    if response is None:
        return _unexpected_error(error)
    if isinstance(error, ValidationError):
        general = response.data
        if isinstance(response.data, dict):
            general = response.data.get(api_settings.NON_FIELD_ERRORS_KEY)
        if general:
            response.data = {"detail": " ".join(general), "code": "invalid"}
    else:
        code = error.get_codes() if isinstance(error, APIException) else _code(response.status_code)
        response.data = {"detail": response.data["detail"], "code": code}
    return response


def _unexpected_error(error: Exception) -> Response:
    """503 for a database that is unavailable or read-only, else 500.

    The log contains the place of the error and not its message: messages of databases contain values of the row.
    """
    place = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-8:]]
    log.error("rest.failed", error=type(error).__name__, place=place)
    views.set_rollback()
    is_standby = getattr(error.__cause__, "sqlstate", None) == _READ_ONLY_SQLSTATE
    status = 503 if is_standby or isinstance(error, OperationalError | InterfaceError) else 500
    return Response(error_body(status), status)


def error_body(status: int) -> dict[str, str]:
    """The body for an error without details, for example `{"detail": "Not Found.", "code": "not_found"}`."""
    return {"detail": HTTPStatus(status).phrase + ".", "code": _code(status)}


def _code(status: int) -> str:
    return HTTPStatus(status).phrase.lower().replace(" ", "_")


class NotFoundView(views.APIView):
    """404 as JSON for every unknown URL under /api/."""

    authentication_classes = ()
    permission_classes = ()
    schema = None

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        raise NotFound("Not found. URLs end with a slash.")
