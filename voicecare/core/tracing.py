"""Spans of our own work, for OpenTelemetry. Nothing is recorded until `voicecare.observability.traces` calls `enable`.

An attribute must not contain a text, a name or a token.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

Attributes = dict[str, str | int | float | None]

_tracer: Any = None


def enable(tracer: Any) -> None:  # noqa: ANN401 - a type of a library that is loaded only if it is configured
    """Record spans from now on with a tracer of OpenTelemetry."""
    global _tracer  # noqa: PLW0603 - set once, when a process starts
    _tracer = tracer


@contextmanager
def span(name: str, attributes: Attributes) -> Iterator[Attributes]:
    """Record the block as a span. Yields the attributes: those that are set when the block ends are recorded.

    An exception that leaves the block is recorded as its type, without its text.
    """
    if _tracer is None:
        yield attributes
        return
    with _tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False) as current:
        try:
            yield attributes
        except BaseException as error:
            attributes["error.type"] = type(error).__name__
            raise
        finally:
            current.set_attributes({key: value for key, value in attributes.items() if value is not None})
