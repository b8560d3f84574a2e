"""Parsing of query parameters, as at the provider."""

from collections.abc import Mapping

from voicecare.providers.elevenlabs.sandbox.errors import validation_error

BOOLEANS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def boolean(query: Mapping[str, str], name: str, default: bool) -> bool:
    """Parse a boolean like FastAPI. Raises its 422."""
    value = query.get(name)
    if value is None:
        return default
    if value.lower() not in BOOLEANS:
        raise validation_error(["query", name], "Input should be a valid boolean", "bool_parsing", value)
    return BOOLEANS[value.lower()]


def integer(query: Mapping[str, str], name: str, default: int | None) -> int | None:
    """Parse an integer. Raises the 422 of FastAPI."""
    value = query.get(name)
    if value is None:
        return default
    try:
        return int(value)
    except ValueError:
        raise validation_error(
            ["query", name],
            "Input should be a valid integer, unable to parse string as an integer",
            "int_parsing",
            value,
        ) from None
