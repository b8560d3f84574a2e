"""Text into segments (the contract, section 2, rules 1 and 2): pure, exact, and in time linear in the text.

Every decision waits for the first letter or digit that could change it and looks at nothing behind that one. So the
segments are the same however the text was cut into pieces, a complete sentence comes out with the first letter of the
next one, and no segment is without anything to speak. Where a writer pauses, a sentence need not wait for that letter.

`sentence_stream` is not used: it gives the sentences back rewritten (asterisks and spaces go), joins "Yes. How are
you?" as if "Yes." were an abbreviation, so that a phrase would be missed, and reads its whole buffer again for every
piece (seconds for 5,000 dots that come one by one).
"""

import re
import unicodedata
from collections.abc import Container, Iterator

from tts.text.abbreviations import ABBREVIATIONS, BEFORE_DIGITS, DOT_MAKES_ORDINAL

MIN_LENGTH = 40
MAX_LENGTH = 300

_SPACES = "".join(filter(str.isspace, map(chr, range(0x3001))))
_QUOTES = "\"'“”‘’«»‹›*_"
_OPENERS = _SPACES + "\"'“‘«‹„‚*_([{¿¡<「『（《【〔〈#-–—•"
_SOFT = ".!?…‼⁇⁈⁉"  # end a sentence before white space and no small letter
_HARD = "。！？｡।॥؟۔።။"  # always end one: they have no other use

_HARD_SET = frozenset(_HARD)

_SPOKEN = re.compile(r"[^\W_]")
_WHITE = re.compile(r"\s")
_SPACE = re.compile(r"\s*")
_MARK = re.compile(rf"[{_SOFT}{_HARD}\n]")
_END = re.compile(rf"[{_SOFT}{_HARD}]+")
_CLOSERS = re.compile(rf"[{re.escape(_QUOTES)})\]}}]*")
_HARD_CLOSERS = re.compile(r"[\"'”’»*_)\]}」』）》】〕〉]*")
_LAST_CLAUSE = re.compile(r"(?s).*(?:[,;:!?…–—،؛)\]][\"'”’»)\]]*\s|\s-\s|[—、，；：，؛،。！？｡؟।॥۔])")
_LAST_SPACE = re.compile(r"(?s).*\s")

_MAY_BE_DECIMAL = re.compile(r"\d[.,]\Z")
_UNKNOWN_NEXT = " 1"  # before a digit more full stops belong to their words than before a letter

_WORD = re.compile(r"[\w.]+\Z")
_WORD_REACH = 24
_DOTTED = re.compile(r"[^\W\d_]{1,2}(?:\.[^\W\d_]{1,2})+|[^\W\d_]")  # "e.g", "z.B", "Ph.D", "J"


_JOINS_FORMER = re.compile(
    "[\u200c\u200d\u0e33\u0eb3\u1160-\u11ff\ud7b0-\ud7fb\uff9e\uff9f\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]"
)
_JOINS_NEXT = re.compile("[\u200d\u1100-\u115f\ua960-\ua97c]")
_FLAG_LETTERS = "".join(map(chr, range(0x1F1E6, 0x1F200)))
_VIRAMA_CLASS = 9


def normalise(text: str) -> str:
    """The form in which a segment is compared with known phrases (rule 2)."""
    return " ".join(unicodedata.normalize("NFC", text).split()).replace("’", "'")


def split(text: str, language: str, phrases: Container[str]) -> list[str]:
    """The segments of a whole text; joined they are the text, to the character.

    The same as feeding it to a `Segmenter` in any pieces, with one exception: a whole text that equals a known phrase
    of several sentences is one segment here, while a text still being written cannot wait for that.
    """
    if normalise(text) in phrases:
        return [text]
    segmenter = Segmenter(language, phrases)
    return segmenter.feed(text) + segmenter.finish()


class Segmenter:
    """Cuts a text that is still being written.

    `language` is a BCP 47 tag, `phrases` holds the known phrases in normal form. A segment has at least `MIN_LENGTH`
    characters, save a known phrase, what stands before one, and the last of the text; it has at most `MAX_LENGTH`
    from its first letter or digit to its last. Signs and white space around those go with a neighbour, so a text
    without any letter or digit is one segment.
    """

    def __init__(self, language: str, phrases: Container[str]) -> None:
        self._language = language.replace("_", "-").partition("-")[0].lower()
        self._phrases = phrases
        self._text = ""  # what is in no segment yet; the next two are places in it
        self._sentence_start = 0  # where the last sentence begins; sentences too short to stand alone are before it
        self._scanned = 0  # up to here no sentence ends
        self._has_output = False  # a segment has come out

    def feed(self, piece: str) -> list[str]:
        """Take the next piece of the text; return the segments that are complete now."""
        self._text += piece
        if _SPOKEN.search(piece) is None:
            return []  # only a letter or digit decides anything
        return list(self._complete_segments())

    def pause(self) -> list[str]:
        """The writer has stopped for a moment: return the last sentence too, if it looks ended and may stand alone."""
        text = self._text
        if _MAY_BE_DECIMAL.search(text):
            return []
        mark = _MARK.search(text, max(self._scanned, _first_spoken(text, self._sentence_start)))
        end = mark and _next_sentence(text + _UNKNOWN_NEXT, mark.start(), len(text) + 1, self._language)
        return list(self._end_sentence(min(end, len(text)))) if end and self._stands_alone(end) else []

    def finish(self) -> list[str]:
        """The text is complete: return the rest of it, save mere signs after a pause. A second call returns nothing."""
        segments = list(self._end_sentence(len(self._text)))
        if self._text and not (self._has_output and _SPOKEN.search(self._text) is None):
            segments.append(self._take(len(self._text)))
        self._text = ""
        return segments

    def _complete_segments(self) -> Iterator[str]:
        """Read on, from decision to decision in the order of the letters that make them."""
        while True:
            text, first = self._text, _first_spoken(self._text, self._sentence_start)
            mark = _MARK.search(text, max(self._scanned, first))
            following = _first_spoken(text, mark.end()) if mark else len(text)
            if _is_too_long(text, first, following):
                yield self._take(_best_cut(text))
            elif mark and following < len(text):
                self._scanned = following
                start = _next_sentence(text, mark.start(), following, self._language)
                yield from self._end_sentence(start) if start else ()
            else:
                return

    def _end_sentence(self, end: int) -> Iterator[str]:
        """The last sentence ends before `end`: give out what can stand alone, keep what is too short."""
        if self._is_phrase(end):
            former = self._sentence_start
            if former:
                yield self._take(former)
            yield self._take(end - former)
            return
        while _is_too_long(self._text, _first_spoken(self._text, 0), end):
            cut = _best_cut(self._text)
            yield self._take(cut)
            end -= cut
        if len(self._text[:end].strip()) >= MIN_LENGTH:
            yield self._take(end)
        else:
            self._sentence_start = end

    def _stands_alone(self, end: int) -> bool:
        return len(self._text[:end].strip()) >= MIN_LENGTH or self._is_phrase(end)

    def _is_phrase(self, end: int) -> bool:
        return normalise(self._text[self._sentence_start : end]) in self._phrases

    def _take(self, end: int) -> str:
        self._has_output = True
        segment, self._text = self._text[:end], self._text[end:]
        self._sentence_start, self._scanned = 0, max(self._scanned - end, 0)
        return segment


def _first_spoken(text: str, start: int) -> int:
    """The place of the first letter or digit from `start` on; the text's length if there is none."""
    found = _SPOKEN.search(text, start)
    return found.start() if found else len(text)


def _is_too_long(text: str, first: int, end: int) -> bool:
    """Whether text[first:end] has a letter or digit beyond what one segment may hold."""
    return _SPOKEN.search(text, first + MAX_LENGTH, end) is not None


def _next_sentence(text: str, mark: int, following: int, language: str) -> int | None:
    """Where the next sentence begins, if one ends in text[mark:following], else None.

    That is all from the first mark to the next letter or digit. Quotes and brackets close the former sentence where
    they touch its end and open the next where they touch its beginning.
    """
    gap = text[mark:following]
    end = _END.search(gap)
    hard = end is not None and not _HARD_SET.isdisjoint(end[0])
    if not hard and gap.count("\n") < 2:  # a blank line ends a sentence whatever stands before it
        if end is None or text[following].islower() or not _WHITE.search(gap, end.end()):
            return None
        if end[0] == "." and _ends_with_abbreviation(text[: mark + end.start()], text[following], language):
            return None
    body = max(_end_of_closers(gap, end, hard), len(gap.rstrip(_OPENERS)))
    return mark + _skip_whitespace(gap, body)


def _end_of_closers(gap: str, end: re.Match[str] | None, hard: bool) -> int:
    if end is None:
        return 0
    closers = (_HARD_CLOSERS if hard else _CLOSERS).match(gap, end.end())
    return closers.end() if closers else end.end()


def _ends_with_abbreviation(former: str, following: str, language: str) -> bool:
    """Whether the full stop after `former` belongs to its last word. A wrong yes only makes a segment longer."""
    found = _WORD.search(former, max(len(former) - _WORD_REACH, 0))
    if not found:
        return False
    word = found[0].casefold()
    if word.isdigit():
        return len(word) < 3 and language in DOT_MAKES_ORDINAL
    if _DOTTED.fullmatch(word) and word != word.upper():  # a letter without case is a word, not an initial
        return True
    tables = (ABBREVIATIONS, BEFORE_DIGITS) if following.isdigit() else (ABBREVIATIONS,)
    return any(word in table.get(key, ()) for table in tables for key in ("", language))


def _best_cut(text: str) -> int:
    """The best place to cut a text with a letter or digit `MAX_LENGTH` or more behind its first."""
    first = _first_spoken(text, 0)
    edge = first + MAX_LENGTH
    for last, start in ((_LAST_CLAUSE, first + MIN_LENGTH), (_LAST_SPACE, first)):
        found = last.match(text, start, edge + 1)
        if found and not _inside_grapheme(text, place := _skip_whitespace(text, found.end())):
            return place
    outside = (place for place in range(edge, first, -1) if not _inside_grapheme(text, place))
    return next(outside, edge)


def _skip_whitespace(text: str, start: int) -> int:
    found = _SPACE.match(text, start)
    return found.end() if found else start


def _inside_grapheme(text: str, place: int) -> bool:
    """Whether a cut before text[place] would part a letter from its marks, or an emoji (close to UAX 29)."""
    former, here = text[place - 1], text[place]
    if here in _FLAG_LETTERS:
        head = text[max(place - MAX_LENGTH, 0) : place]
        return (len(head) - len(head.rstrip(_FLAG_LETTERS))) % 2 == 1
    return (
        unicodedata.category(here).startswith("M")
        or unicodedata.combining(former) == _VIRAMA_CLASS
        or _JOINS_FORMER.match(here) is not None
        or _JOINS_NEXT.match(former) is not None
    )
