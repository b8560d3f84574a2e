"""The measurements as tables. p50 and CPU are medians over the rounds, p95 is over the utterances of all rounds."""

from collections.abc import Sequence
from statistics import median

from tests.bench.load import DIRECT
from tests.bench.scenarios import Block, Cache, Fresh, HungUp, Round

STREAM_HEADS = (
    "situation",
    "target",
    "first byte p50/p95 ms",
    "added p50 ms",
    "added p95 ms",
    "CPU-s per 1000",
    "reads",
    "late",
    "wrong",
)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = [heads, ["-" * width for width in widths], *rows]
    return "\n".join(f"| {' | '.join(map(str.ljust, line, widths))} |" for line in lines)


def streams(situations: dict[str, list[Round]]) -> str:
    """Return a table with a row for each target in each situation."""
    rows = [_stream_row(name, rounds, target) for name, rounds in situations.items() for target in rounds[0]]
    return table(STREAM_HEADS, rows)


def ratios(situations: dict[str, list[Round]]) -> str:
    """Return a table of the ratios to the bare relay, with the lowest and the highest round in brackets."""
    rows = [
        _ratio_row(name, rounds, target)
        for name, rounds in situations.items()
        for target in rounds[0]
        if target not in (DIRECT, "bare")
    ]
    return table(("divided by bare", "target", "added p50", "added p95", "CPU"), rows)


def _stream_row(name: str, rounds: list[Round], target: str) -> list[str]:
    blocks = [one[target] for one in rounds]
    count = sum(len(block.utterances) for block in blocks)
    relayed = target != DIRECT
    return [
        name,
        target,
        f"{median(block.p50 for block in blocks):.2f} / {p95(rounds, target):.2f}",
        f"{median(added_p50(rounds, target)):.2f}" if relayed else "",
        f"{added_p95(rounds, target):.2f}" if relayed else "",
        f"{median(cpu(rounds, target)):.2f}",
        f"{median(block.reads for block in blocks):.0f}",
        f"{sum(block.late for block in blocks)} of {count}",
        f"{sum(block.wrong for block in blocks)}",
    ]


def _ratio_row(name: str, rounds: list[Round], target: str) -> list[str]:
    added, bare = added_p95(rounds, target), added_p95(rounds, "bare")
    return [
        name,
        target,
        _ratio(added_p50(rounds, target), added_p50(rounds, "bare")),
        f"{added / bare:.2f}" if bare > 0 else "-",
        _ratio(cpu(rounds, target), cpu(rounds, "bare")),
    ]


def _ratio(ours: list[float], bare: list[float]) -> str:
    each = sorted(a / b for a, b in zip(ours, bare, strict=True) if b > 0)
    if not each:
        return "-"
    return f"{median(ours) / median(bare):.2f} ({each[0]:.2f} to {each[-1]:.2f})"


def added_p50(rounds: list[Round], target: str) -> list[float]:
    """Return the added milliseconds compared with the direct path, for each round."""
    return [one[target].p50 - one[DIRECT].p50 for one in rounds]


def added_p95(rounds: list[Round], target: str) -> float:
    return p95(rounds, target) - p95(rounds, DIRECT)


def p95(rounds: list[Round], target: str) -> float:
    """Return p95 over all utterances. A single round has too few for it."""
    return Block([heard for one in rounds for heard in one[target].utterances], 0).p95


def cpu(rounds: list[Round], target: str) -> list[float]:
    """Return the processor seconds for 1000 utterances. For the direct path they are those of the upstream."""
    return [one[target].cpu_s / len(one[target].utterances) * 1000 for one in rounds]


def fresh(measured: dict[str, list[Fresh]]) -> str:
    rows = [
        [
            target,
            *(f"{median(getattr(one, name) for one in each):.1f}" for name in ("first", "later", "at_speed")),
            f"{median(one.first / one.later for one in each):.2f} ({max(one.first / one.later for one in each):.2f})",
            f"{median(one.first / one.at_speed for one in each):.2f}",
        ]
        for target, each in measured.items()
    ]
    titles = ("first speech ms", "later ms", "at full speed ms", "first / later (worst)", "first / at full speed")
    return table(("fresh process", *titles), rows)


def memory(idle: dict[str, float], stuck: dict[str, int]) -> str:
    rows = [[target, f"{idle[target]:.0f}", f"{stuck[target]}"] for target in idle]
    return table(("memory of", "KB for an idle connection", "KB for a stuck device"), rows)


def cache(measured: Sequence[Cache]) -> str:
    rows = [
        [one.layer, f"{one.hit:.2f}", f"{one.echo:.2f}", f"{one.hit - one.echo:.2f}", f"{one.hits}"] for one in measured
    ]
    return table(("cache hit from", "first byte ms", "echo ms", "difference ms", "hits"), rows)


def hung_up(measured: HungUp) -> str:
    row = [f"{measured.speakers}", f"{measured.cancelled}", f"{measured.seconds * 1000:.0f}"]
    return table(("devices that hung up", "replies dropped at the provider", "after ms"), [row])
