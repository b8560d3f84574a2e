"""Explains the difference between the ledger's and the provider's figure of one day, in sentences. Pure."""

from dataclasses import dataclass
from functools import partial

TOLERANCE_ABSOLUTE = 100  # characters or credits; a smaller difference is never drift, even on a quiet day
TOLERANCE_RATIO = 0.01


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """One figure of one day in the ledger and at the provider, in characters or credits (`unit`).

    A cost is in hundredths of `currency`, and its `unit` is "cost". Other figures have no currency.

    `external` comes from requests in the provider's history that this server did not make. `unbilled` comes from
    interrupted requests that are in the ledger, but not in the history. `unknown` comes from attempts that may have
    been billed. `midnight_margin` comes from requests close to midnight, which the provider may count for the adjacent
    day.
    """

    unit: str
    ledger: int
    provider: int
    external: int = 0
    unbilled: int = 0
    unknown: int = 0
    midnight_margin: int = 0
    currency: str = ""

    def words(self, figure: int, sign: str = "") -> str:
        """Return the figure as it is displayed. With the sign "+", a positive one has it, too."""
        return f"{figure / 100:{sign},.2f} {self.currency}" if self.currency else f"{figure:{sign},}"

    @property
    def difference(self) -> int:
        """The provider's figure minus the ledger's."""
        return self.provider - self.ledger

    @property
    def residual(self) -> int:
        """The part of the difference that is not explained by other users of the account or by interrupted requests.

        `external` and `unbilled` can reduce the difference to zero. They never reverse its sign. They come from the
        provider's history, which may contain requests that the provider's statistics leave out.
        """
        if self.difference > 0:
            return max(self.difference - self.external, 0)
        return min(self.difference + self.unbilled, 0)

    @property
    def unexplained(self) -> int:
        """The part of the residual that is explained neither by unknown attempts nor by requests around midnight."""
        if self.residual > 0:
            return max(self.residual - self.unknown - self.midnight_margin, 0)
        return min(self.residual + self.midnight_margin, 0)

    @property
    def drifts(self) -> bool:
        """Whether the unexplained part exceeds both tolerances, TOLERANCE_ABSOLUTE and TOLERANCE_RATIO.

        The ratio is applied to our own usage, so that a large usage by others does not hide a difference.
        """
        rest = abs(self.unexplained)
        return rest > TOLERANCE_ABSOLUTE and rest > TOLERANCE_RATIO * max(self.provider - self.external, self.ledger)


def explain(discrepancy: Discrepancy) -> str:
    """Return sentences for administrators: the two figures and the known causes of their difference."""
    unit, words, signed = discrepancy.unit, discrepancy.words, partial(discrepancy.words, sign="+")
    if not discrepancy.difference:
        return f"{unit.capitalize()}: {words(discrepancy.ledger)} in the ledger and at the provider."
    sentences = [
        f"{unit.capitalize()}: {words(discrepancy.ledger)} in the ledger, {words(discrepancy.provider)} at the "
        f"provider ({signed(discrepancy.difference)})."
    ]
    if discrepancy.external:
        sentences.append(
            f"Other users of the account: {words(discrepancy.external)} from requests that this server did not make."
        )
    if discrepancy.unbilled:
        sentences.append(f"Interrupted requests that the provider did not bill: {words(discrepancy.unbilled)}.")
    if discrepancy.drifts:
        sentences.append(f"Unexplained: {signed(discrepancy.unexplained)}.")
    elif discrepancy.unexplained:
        sentences.append(f"The remaining {signed(discrepancy.unexplained)} are within the tolerance for rounding.")
    elif discrepancy.residual > discrepancy.midnight_margin:
        sentences.append(f"The remaining {signed(discrepancy.residual)} may come from attempts that are still unknown.")
    elif discrepancy.residual:
        sentences.append(f"The remaining {signed(discrepancy.residual)} may come from requests around midnight.")
    return " ".join(sentences)
