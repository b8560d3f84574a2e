"""How many streams a plan allows at a time, by the vendor's table; their reply headers, where there are any, know
better. Pure.
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
    """Of this model on this plan; None for a plan that the table does not know."""
    streams = _STREAMS_BY_TIER.get(tier.lower())
    if streams is None:
        return None
    return streams * 2 if any(family in model for family in _MODELS_WITH_DOUBLE_LIMIT) else streams
