"""Known causes explain a difference. The rest is drift if it exceeds one per cent and the absolute tolerance."""

import pytest

from usage.reconciliation.explanation import Discrepancy, explain


def discrepancy(ledger: int, provider: int, **explained: int) -> Discrepancy:
    return Discrepancy("characters", ledger, provider, **explained)


@pytest.mark.parametrize(
    ("found", "unexplained", "drifts"),
    [
        (discrepancy(0, 0), 0, False),
        (discrepancy(10_000, 10_000), 0, False),
        (discrepancy(10_000, 10_200), 200, True),
        (discrepancy(10_200, 10_000), -200, True),
        (discrepancy(100_000, 100_999), 999, False),  # less than one per cent
        (discrepancy(100_000, 102_000), 2_000, True),
        (discrepancy(1_000, 1_100), 100, False),  # within the absolute tolerance
        (discrepancy(1_000, 1_101), 101, True),
        (discrepancy(0, 101), 101, True),
        (discrepancy(101, 0), -101, True),
        (discrepancy(10_000, 30_000, external=20_000), 0, False),
        (discrepancy(10_000, 30_000, external=19_000), 1_000, True),
        (discrepancy(10_000, 10_000, external=1_000), 0, False),  # the statistics leave others out
        (discrepancy(10_000, 9_500, external=1_000), -500, True),
        (discrepancy(10_000, 1_010_500, external=1_000_000), 500, True),  # five per cent of our own usage
        (discrepancy(10_000, 9_000, unbilled=1_000), 0, False),
        (discrepancy(10_000, 9_000, unbilled=400), -600, True),
        (discrepancy(10_000, 10_000, unbilled=1_000), 0, False),
        (discrepancy(10_000, 10_500, unknown=500), 0, False),
        (discrepancy(10_000, 10_500, unknown=1_000), 0, False),
        (discrepancy(10_000, 10_500, unknown=100), 400, True),
        (discrepancy(10_000, 9_500, unknown=1_000), -500, True),  # unknown attempts cannot explain a lower figure
        (discrepancy(10_000, 10_300, midnight_margin=300), 0, False),
        (discrepancy(10_000, 9_700, midnight_margin=300), 0, False),
        (discrepancy(10_000, 9_600, midnight_margin=100), -300, True),
    ],
)
def test_the_unexplained_part(found: Discrepancy, unexplained: int, drifts: bool):
    assert (found.unexplained, found.drifts) == (unexplained, drifts)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (discrepancy(1_000, 1_000), "Characters: 1,000 in the ledger and at the provider."),
        (
            discrepancy(10_000, 10_200),
            "Characters: 10,000 in the ledger, 10,200 at the provider (+200). Unexplained: +200.",
        ),
        (
            discrepancy(10_000, 12_000, external=2_000),
            "Characters: 10,000 in the ledger, 12,000 at the provider (+2,000). Other users of the account: 2,000 "
            "from requests that this server did not make.",
        ),
        (
            discrepancy(10_000, 9_960, unbilled=40),
            "Characters: 10,000 in the ledger, 9,960 at the provider (-40). Interrupted requests that the "
            "provider did not bill: 40.",
        ),
        (
            discrepancy(10_000, 10_040),
            "Characters: 10,000 in the ledger, 10,040 at the provider (+40). The remaining +40 are within the "
            "tolerance for rounding.",
        ),
        (
            discrepancy(10_000, 10_500, unknown=500),
            "Characters: 10,000 in the ledger, 10,500 at the provider (+500). The remaining +500 may come from "
            "attempts that are still unknown.",
        ),
        (
            discrepancy(10_000, 9_800, midnight_margin=200),
            "Characters: 10,000 in the ledger, 9,800 at the provider (-200). The remaining -200 may come from "
            "requests around midnight.",
        ),
    ],
)
def test_the_explanation(found: Discrepancy, words: str):
    assert explain(found) == words
