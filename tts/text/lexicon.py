"""The lexicon: how words are said. Written forms are replaced by spoken forms. Pure.

Only whole words are replaced, in a single pass from left to right. What was put in is not looked at again, so an entry
that contains itself does not loop. The search looks up each word of the text in a dictionary. So its time does not
depend on the number of entries.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

_WORD = re.compile(r"\w+")
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Replacement:
    """A written form and how it is said. With `match_case`, upper and lower case must be the same."""

    written: str
    spoken: str
    match_case: bool = False


class LexiconLayer:
    """The replacements of one scope, for one language. Immutable, so that conversations can share it."""

    def __init__(self, replacements: Iterable[Replacement] = ()) -> None:
        by_word: defaultdict[str, list[tuple[tuple[str, ...], Replacement]]] = defaultdict(list)
        for one in replacements:
            written = _comparable(one.written)
            first = _WORD.match(written)
            if first:
                parts = tuple((written if one.match_case else written.lower()).split())
                by_word[first[0].lower()].append((parts, one))
        for found in by_word.values():
            found.sort(key=lambda entry: (-sum(map(len, entry[0])), not entry[1].match_case))
        self._by_word = dict(by_word)

    def __bool__(self) -> bool:
        return bool(self._by_word)

    def match(self, word: str, text: str, lower: str, start: int) -> tuple[int, Replacement] | None:
        """Return the end and the replacement of the longest written form at `start`, where `word` begins, or None."""
        for parts, one in self._by_word.get(word, ()):
            end = _end_of(parts, text if one.match_case else lower, start)
            if end is not None:
                return end, one
        return None


@dataclass(frozen=True, slots=True)
class Lexicon:
    """The layers that hold for a patient, the most specific first: patient, clinic, global.

    The longest written form is used, and of equal ones that of the first layer.
    """

    layers: tuple[LexiconLayer, ...] = field(default=())

    def parts(self, text: str) -> Iterator[tuple[str, bool]]:
        """Yield the parts of the text in order, each with whether it is a spoken form of the lexicon."""
        layers = [layer for layer in self.layers if layer]
        if not layers:
            yield text, False
            return
        text = unicodedata.normalize("NFC", text)
        comparable = _comparable(text)
        lower = comparable.lower()
        if len(lower) != len(text):  # "İ" has two characters in lower case
            lower = "".join(sign.lower() if len(sign.lower()) == 1 else sign for sign in comparable)
        done = position = 0
        while word := _WORD.search(lower, position):
            start, position = word.span()
            if start and _joins(text[start - 1]):
                continue
            found = [match for layer in layers if (match := layer.match(word[0], comparable, lower, start))]
            if found:
                end, one = max(found, key=lambda match: match[0])  # the first of equal ones
                if start > done:
                    yield text[done:start], False
                yield one.spoken, True
                done = position = end
        if done < len(text):
            yield text[done:], False


def _comparable(text: str) -> str:
    return unicodedata.normalize("NFC", text).replace("’", "'")


def _joins(sign: str) -> bool:
    """Whether the character belongs to the word beside it."""
    return sign.isalnum() or sign == "_" or unicodedata.category(sign)[0] == "M"


def _end_of(parts: tuple[str, ...], text: str, start: int) -> int | None:
    """Return the end of these words, which any white space separates, if they are at `start` as whole words."""
    position = start
    for number, part in enumerate(parts):
        if number:
            space = _SPACE.match(text, position)
            if space is None:
                return None
            position = space.end()
        if not text.startswith(part, position):
            return None
        position += len(part)
    if position < len(text) and _joins(text[position]) and _joins(text[position - 1]):
        return None
    return position
