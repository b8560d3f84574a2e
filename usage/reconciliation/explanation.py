"""How far two counts of one day differ, and what explains it, in plain words (pure)."""

from dataclasses import dataclass

TOLERANCE_ABSOLUTE = 100  # fewer characters or credits are no drift, whatever share of a quiet day they are
TOLERANCE_RATIO = 0.01


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """One figure of one day, in characters or credits, as the ledger and as the provider have it.

    `others`: of requests in the provider's history that this server did not make. `unbilled`: in the ledger, of
    requests that were cut off and are not in that history. `unknown`: of attempts that may have been billed. `edge`:
    of requests so near to midnight that the provider may count them to the neighbouring day.
    """

    unit: str
    ledger: int
    provider: int
    external: int = 0
    unbilled: int = 0
    unknown: int = 0
    midnight_margin: int = 0

    @property
    def difference(self) -> int:
        """Positive: the provider has more."""
        return self.provider - self.ledger

    @property
    def residual(self) -> int:
        """What others and cut-off requests do not account for. They explain up to what they are: statistics may leave
        out what is in the history, as of another kind of speech."""
        if self.difference > 0:
            return max(self.difference - self.external, 0)
        return min(self.difference + self.unbilled, 0)

    @property
    def unexplained(self) -> int:
        if self.residual > 0:
            return max(self.residual - self.unknown - self.midnight_margin, 0)
        return min(self.residual + self.midnight_margin, 0)

    @property
    def drifts(self) -> bool:
        """Beyond a share of our own use: that of others, however large, makes no difference smaller."""
        rest = abs(self.unexplained)
        return rest > TOLERANCE_ABSOLUTE and rest > TOLERANCE_RATIO * max(self.provider - self.external, self.ledger)


def explain(discrepancy: Discrepancy) -> str:
    unit = discrepancy.unit
    if not discrepancy.difference:
        return f"{unit.capitalize()}: {discrepancy.ledger:,}, as the provider has it."
    sentences = [
        f"{unit.capitalize()}: {discrepancy.ledger:,} in the ledger, {discrepancy.provider:,} at the provider "
        f"({discrepancy.difference:+,})."
    ]
    if discrepancy.external:
        sentences.append(f"Others use the account: {discrepancy.external:,} of requests that this server did not make.")
    if discrepancy.unbilled:
        sentences.append(f"Cut off and not billed by the provider: {discrepancy.unbilled:,}.")
    return " ".join([*sentences, *_explain_residual(discrepancy)])


def _explain_residual(discrepancy: Discrepancy) -> list[str]:
    if discrepancy.drifts:
        return [f"Unexplained: {discrepancy.unexplained:+,}."]
    if discrepancy.unexplained:
        return [f"The rest ({discrepancy.unexplained:+,}) is no more than rounding can make."]
    if discrepancy.residual > discrepancy.midnight_margin:
        return [f"The rest ({discrepancy.residual:+,}) may be of attempts that are still unknown."]
    return [f"The rest ({discrepancy.residual:+,}) may be of requests around midnight."] if discrepancy.residual else []
