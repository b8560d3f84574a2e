"""The concurrency limits of the provider's plans, from its documentation. Pure.

If the headers of a speech response have the limit, they are more reliable than this table.
"""

from collections.abc import Mapping

_STREAMS_BY_TIER: Mapping[str, int] = {
    "free": 2,
    "starter": 3,
    "creator": 5,
    "pro": 10,
    "scale": 15,
    "business": 15,
}
_MODELS_WITH_DOUBLE_LIMIT = ("flash", "turbo")


def concurrency_limit(tier: str, model: str) -> int | None:
    """Returns how many streams of a model a plan allows at the same time. None for an unknown plan."""
    streams = _STREAMS_BY_TIER.get(tier.lower())
    if streams is None:
        return None
    return streams * 2 if any(family in model for family in _MODELS_WITH_DOUBLE_LIMIT) else streams
