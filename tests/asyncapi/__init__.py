"""Frames of the device protocol, checked against docs/asyncapi.yaml.

`schema-3.0.0.json` is the official JSON Schema of AsyncAPI documents: `schemas/3.0.0-without-$id.json` of the npm
package @asyncapi/specs 6.11.1, without its spaces. LICENSE is its licence.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft7Validator, FormatChecker

DOCUMENT = yaml.safe_load((Path(__file__).resolve().parents[2] / "docs/asyncapi.yaml").read_text())
FROM_DEVICE, TO_DEVICE = "fromDevice", "toDevice"


def check_frame_to_device(frame: Mapping[str, Any]) -> None:
    """Raise an error if the document does not describe this frame of the server.

    The document lets the server add fields later. Here, a field that the document does not name is an error.
    """
    _validator(TO_DEVICE, frame["type"]).validate(frame)


def check_frame_from_device(frame: Mapping[str, Any]) -> None:
    """Raise an error if the document does not describe this frame of a device, or one of its fields."""
    _validator(FROM_DEVICE, frame["type"]).validate(frame)


def message_names(operation: str) -> list[str]:
    """Return the names of the messages of an operation. Those of JSON frames are the `type` of the frame."""
    return [message["$ref"].rpartition("/")[2] for message in DOCUMENT["operations"][operation]["messages"]]


@cache
def _validator(operation: str, frame_type: str) -> Draft7Validator:
    assert frame_type in message_names(operation), f"docs/asyncapi.yaml has no {frame_type} in {operation}"
    payload = DOCUMENT["components"]["messages"][frame_type]["payload"]
    return Draft7Validator({**_closed(payload), "components": DOCUMENT["components"]}, format_checker=FormatChecker())


def _closed(schema: Any) -> Any:
    """Return the schema without objects that may have other fields."""
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(value) for name, value in schema.items()}
    return {**closed, "additionalProperties": False} if schema.get("type") == "object" else closed
