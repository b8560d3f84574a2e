"""How far two counts of one day differ, and what explains it, in plain words (pure)."""

from dataclasses import dataclass

TRIFLE = 100  # fewer characters or credits are no drift, whatever share of a quiet day they are
SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Counts:
    """One figure of one day, in characters or credits, as the ledger and as the provider have it.

    `others`: of requests in the provider's history that this server did not make. `unbilled`: in the ledger, of
    requests that were cut off and are not in that history. `unknown`: of attempts that may have been billed. `edge`:
    of requests so near to midnight that the provider may count them to the neighbouring day.
    """

    unit: str
    ledger: int
    provider: int
    others: int = 0
    unbilled: int = 0
    unknown: int = 0
    edge: int = 0

    @property
    def difference(self) -> int:
        """Positive: the provider has more."""
        return self.provider - self.ledger

    @property
    def unexplained(self) -> int:
        rest = self.difference - self.others + self.unbilled
        if rest > 0:
            return max(rest - self.unknown - self.edge, 0)
        return min(rest + self.edge, 0)

    @property
    def drifts(self) -> bool:
        rest = abs(self.unexplained)
        return rest > TRIFLE and rest > SHARE * max(self.provider, self.ledger)


def explain(counts: Counts) -> str:
    unit = counts.unit
    if not counts.difference:
        return f"{unit.capitalize()}: {counts.ledger:,}, as the provider has it."
    told = [
        f"{unit.capitalize()}: {counts.ledger:,} in the ledger, {counts.provider:,} at the provider "
        f"({counts.difference:+,})."
    ]
    if counts.others:
        told.append(f"{counts.others:,} are of requests that this server did not make: others use the account.")
    if counts.unbilled:
        told.append(f"{counts.unbilled:,} are of requests that were cut off and that the provider has not billed.")
    return " ".join([*told, *_of_the_rest(counts)])


def _of_the_rest(counts: Counts) -> list[str]:
    rest = counts.difference - counts.others + counts.unbilled
    if not rest:
        return []
    if counts.drifts:
        return [f"{counts.unexplained:+,} are unexplained."]
    if counts.unexplained:
        return [f"The rest ({rest:+,}) is no more than rounding can make."]
    if rest > counts.edge:
        return [f"The rest ({rest:+,}) may be of attempts that are still unknown."]
    return [f"The rest ({rest:+,}) may be of requests around midnight."]
