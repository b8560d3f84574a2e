"""`python -m tests.bench.phrases`: the characters that the phrase cache saves before and after taking its suggestions.

Generates what 200 companions say in two months. The suggestions come from the first month, by the rules of the admin
page: said at least MIN_TIMES times, and the cost of all clips in a month is less than what was paid. An administrator
takes those that were said to several patients. Then the second month is spoken with and without them. Nothing is
requested, and no database is used. The shares of the kinds of texts are assumptions, see `MIXES`.
"""

import itertools
import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import django

COMPANIONS, DAYS, SEGMENTS_A_DAY = 200, 31, 50
STOCK_VOICES, CLONES = 8, 20  # a clip of each phrase is needed in each of them
KNOWN, ROUTINE, OWN = 4, 400, 30  # texts: phrases that are installed, of a house, and of one companion
LENGTHS = {"known": (6, 20), "routine": (40, 110), "own": (40, 110), "unique": (40, 160)}  # characters of a segment
MIXES = {
    "few routine texts": {"known": 0.05, "routine": 0.25, "own": 0.10, "unique": 0.60},
    "as many as others": {"known": 0.05, "routine": 0.425, "own": 0.10, "unique": 0.425},
    "many routine texts": {"known": 0.05, "routine": 0.60, "own": 0.10, "unique": 0.25},
}


class Text(NamedTuple):
    """One text: `key` tells it from others of its kind, `length` are its characters."""

    kind: str
    key: int
    length: int


class Texts:
    """The texts that companions say. Repeated ones are said with the frequencies of Zipf's law (1 / rank)."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._known = [self._new("known", key) for key in range(KNOWN)]
        self._routine = [self._new("routine", key) for key in range(ROUTINE)]
        self._own = [[self._new("own", one * OWN + key) for key in range(OWN)] for one in range(COMPANIONS)]
        self._unique = itertools.count()

    def _new(self, kind: str, key: int) -> Text:
        return Text(kind, key, self._dice.randint(*LENGTHS[kind]))

    def month(self, mix: dict[str, float]) -> Iterator[tuple[int, Text]]:
        """Yield the companion and the text of each segment of a month."""
        sums = {
            number: list(itertools.accumulate(1 / rank for rank in range(1, number + 1))) for number in (ROUTINE, OWN)
        }
        for companion in range(COMPANIONS):
            kinds = self._dice.choices(list(mix), list(mix.values()), k=DAYS * SEGMENTS_A_DAY)
            for kind in kinds:
                if kind == "known":
                    yield companion, self._dice.choice(self._known)
                elif kind == "routine":
                    yield companion, self._dice.choices(self._routine, cum_weights=sums[ROUTINE])[0]
                elif kind == "own":
                    yield companion, self._dice.choices(self._own[companion], cum_weights=sums[OWN])[0]
                else:
                    yield companion, self._new("unique", next(self._unique))


def suggested(month: Iterable[tuple[int, Text]]) -> set[Text]:
    """Return the suggestions that were said to several patients."""
    from usage.reports.repeated_texts import MIN_TIMES
    from voicecare.admin.overview.phrase_suggestions import clip_characters

    times: Counter[Text] = Counter()
    listeners: dict[Text, set[int]] = defaultdict(set)
    for companion, text in month:
        if text.kind != "known":
            times[text] += 1
            listeners[text].add(companion)
    return {
        text
        for text, number in times.items()
        if number >= MIN_TIMES
        and number * text.length > clip_characters(text.length, STOCK_VOICES + CLONES)
        and len(listeners[text]) > 1
    }


def saved_share(month: Iterable[tuple[int, Text]], phrases: set[Text]) -> float:
    """Return the share of the spoken characters that the cache saves, less the characters of the clips."""
    from voicecare.admin.overview.phrase_suggestions import clip_characters

    spoken = saved = 0
    used = set()
    for _, text in month:
        spoken += text.length
        if text.kind == "known" or text in phrases:
            saved += text.length
            used.add(text)
    return (saved - sum(clip_characters(text.length, STOCK_VOICES + CLONES) for text in used | phrases)) / spoken


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "voicecare.settings")
    django.setup()
    print("| routine, own, known, new segments | suggestions taken | saved before | saved after |\n|---|---|---|---|")
    for name, mix in MIXES.items():
        texts = Texts(random.Random(2026))
        phrases = suggested(texts.month(mix))
        second = list(texts.month(mix))
        before, after = saved_share(second, set()), saved_share(second, phrases)
        shares = ", ".join(f"{mix[kind]:.0%}" for kind in ("routine", "own", "known", "unique"))
        print(f"| {name}: {shares} | {len(phrases)} | {before:.1%} | {after:.1%} |")


if __name__ == "__main__":
    main()
