"""Exceptions without their texts. A text can repeat a value of a row, a spoken text or a token."""

import traceback


def describe(error: BaseException) -> str:
    """Return the frames and the type of an exception, after those of its causes. The result has several lines."""
    parts: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        frames = "".join(traceback.format_tb(current.__traceback__))
        parts.append(f"Traceback (most recent call last):\n{frames}{name(current)}")
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return "\nwhich led to\n".join(reversed(parts))


def name(error: BaseException) -> str:
    """Return the type of an exception, with the code of the operating system or the database if it has one."""
    code = getattr(error, "sqlstate", None) or getattr(error, "errno", None)
    return type(error).__qualname__ + (f" [{code}]" if isinstance(code, int | str) else "")
