"""One shape for every error under /api/: `{"detail", "code"}`, and for fields `{"field": ["..."]}`."""

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

_STATUS = {"idempotency_conflict": 409}  # of our own errors' codes; 400 is that of all others

_READ_ONLY_SQLSTATE = "25006"  # PostgreSQL's state for writing to a standby that has not taken over yet

log = structlog.get_logger(__name__)


def exception_handler(error: Exception, context: Mapping[str, Any]) -> Response:
    """DRF's EXCEPTION_HANDLER. What nobody expected is a 500 here already: Django's own answer would be a page."""
    if isinstance(error, VoicecareError):
        views.set_rollback()
        return Response(error.as_body(), _STATUS.get(error.code, 400))
    response = views.exception_handler(error, dict(context))
    if response is None:
        return _unexpected_error(error)
    if isinstance(error, ValidationError):
        response.data = _validation_body(response.data)
    else:
        code = error.get_codes() if isinstance(error, APIException) else _code(response.status_code)
        response.data = {"detail": response.data["detail"], "code": code}
    return response


def _validation_body(data: Any) -> Any:  # noqa: ANN401 - whatever DRF made of it
    whole = data if isinstance(data, list) else data.get(api_settings.NON_FIELD_ERRORS_KEY)
    return {"detail": " ".join(whole), "code": "invalid"} if whole else data


def _unexpected_error(error: Exception) -> Response:
    """Where it was raised is logged, never its message: a database's tells the values of the row."""
    place = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-8:]]
    log.error("rest.failed", error=type(error).__name__, place=place)
    views.set_rollback()
    status = 503 if _is_database_unavailable(error) else 500
    return Response(error_body(status), status)


def _is_database_unavailable(error: Exception) -> bool:
    """A database that is not there, or not there to be written to."""
    is_standby = getattr(error.__cause__, "sqlstate", None) == _READ_ONLY_SQLSTATE
    return is_standby or isinstance(error, OperationalError | InterfaceError)


def error_body(status: int) -> dict[str, str]:
    return {"detail": HTTPStatus(status).phrase + ".", "code": _code(status)}


def _code(status: int) -> str:
    return HTTPStatus(status).phrase.lower().replace(" ", "_")


class NotFoundView(views.APIView):
    """Every address under /api/ that is none."""

    authentication_classes = ()
    permission_classes = ()
    schema = None

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        raise NotFound("There is nothing here. Addresses end with a slash.")
