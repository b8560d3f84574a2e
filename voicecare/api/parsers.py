"""Parser for request bodies: JSON in UTF-8 of a limited size."""

from collections.abc import Mapping
from typing import IO, Any

from rest_framework.exceptions import APIException, ParseError
from rest_framework.parsers import BaseParser

from voicecare.core import strict_json

MAX_BYTES = 256 * 1024  # four times the longest text with every character escaped


class BodyTooLarge(APIException):
    status_code = 413
    default_code = "too_large"
    default_detail = f"The body is larger than {MAX_BYTES} bytes."


class JSONParser(BaseParser):
    """Parses a JSON body. Raises BodyTooLarge (413) for more than MAX_BYTES, and ParseError (400) for an invalid body.

    DRF's own parser has no size limit, accepts other encodings than UTF-8, and fails on a deeply nested body.
    """

    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - DRF's signature
        body = stream.read(MAX_BYTES + 1)
        if len(body) > MAX_BYTES:
            raise BodyTooLarge
        try:
            return strict_json.decode(body.decode())
        except (ValueError, RecursionError) as error:
            raise ParseError("The body is not JSON in UTF-8.") from error
