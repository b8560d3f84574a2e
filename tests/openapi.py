"""Validation of the sandbox's responses against the provider's OpenAPI description."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

SPEC = json.loads((Path(__file__).parent / "voicecare/providers/elevenlabs/openapi.json").read_text())


@cache
def _validator(schema: str) -> Draft202012Validator:
    # OpenAPI 3.1 uses JSON Schema 2020-12. A field that can be null has an `anyOf`.
    return Draft202012Validator({"$ref": f"#/components/schemas/{schema}", "components": SPEC["components"]})


def validate_schema(reply: Any, schema: str) -> Any:
    """Return the reply. Raises ValidationError, with the location, if it does not match the schema."""
    _validator(schema).validate(reply)
    return reply
