"""Parser for request bodies: JSON in UTF-8 of a limited size."""

import json
from collections.abc import Mapping
from typing import IO, Any

from rest_framework.exceptions import APIException, ParseError
from rest_framework.parsers import BaseParser

MAX_BYTES = 256 * 1024  # four times the longest text with every character escaped


class BodyTooLarge(APIException):
    status_code = 413
    default_code = "too_large"
    default_detail = f"The body is larger than {MAX_BYTES} bytes."


class JSONParser(BaseParser):
    """Unlike DRF's parser, limits the size, accepts UTF-8 only, and survives deep nesting and NaN."""

    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - DRF's signature
        body = stream.read(MAX_BYTES + 1)
        if len(body) > MAX_BYTES:
            raise BodyTooLarge
        try:
            return json.loads(body.decode(), parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise ParseError("The body is not JSON in UTF-8.") from error


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
