"""The concurrency limits of the provider's plans, from its documentation. Pure.

The response headers of a speech request are more reliable, if they have the limit.
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
    """The number of concurrent streams for a model on a plan. None for an unknown plan."""
    streams = _STREAMS_BY_TIER.get(tier.lower())
    if streams is None:
        return None
    return streams * 2 if any(family in model for family in _MODELS_WITH_DOUBLE_LIMIT) else streams
