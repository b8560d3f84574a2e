"""The provider's own description of its replies, to hold an imitation against."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

SPEC = json.loads((Path(__file__).parent / "voicecare/providers/elevenlabs/openapi.json").read_text())


@cache
def _validator(schema: str) -> Draft202012Validator:
    # OpenAPI 3.1 is JSON Schema 2020-12: what may be null says so in its `anyOf`.
    return Draft202012Validator({"$ref": f"#/components/schemas/{schema}", "components": SPEC["components"]})


def validate_schema(reply: Any, schema: str) -> Any:
    """The reply itself; raises ValidationError, which names the place, where it is not of the named schema."""
    _validator(schema).validate(reply)
    return reply
