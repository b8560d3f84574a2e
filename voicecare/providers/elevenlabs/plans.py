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


def concurrency_limit(tier: str, group: str) -> int | None:
    """Returns how many streams of a concurrency group a plan allows at the same time. None for an unknown plan.

    The group `turbo` has twice the limit of `standard`.
    """
    streams = _STREAMS_BY_TIER.get(tier.lower())
    return streams * 2 if streams is not None and group == "turbo" else streams
