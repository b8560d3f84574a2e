"""Parses query parameters as the provider does, which uses FastAPI."""

from collections.abc import Mapping

from voicecare.providers.elevenlabs.sandbox.errors import validation_error

BOOLEANS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def boolean(query: Mapping[str, str], name: str, default: bool) -> bool:
    """Returns a boolean parameter of the query, or `default` if it is missing.

    Raises the 422 of FastAPI if it is invalid.
    """
    value = query.get(name)
    if value is None:
        return default
    if value.lower() not in BOOLEANS:
        raise validation_error(["query", name], "Input should be a valid boolean", "bool_parsing", value)
    return BOOLEANS[value.lower()]


def integer(query: Mapping[str, str], name: str, default: int | None) -> int | None:
    """Returns an integer parameter of the query, or `default` if it is missing.

    Raises the 422 of FastAPI if it is invalid.
    """
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
