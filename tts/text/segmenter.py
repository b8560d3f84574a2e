"""Cuts text into segments (docs/protocol.md, rules 1 and 2). Pure, and linear in the length of the text.

Each decision waits for the first letter or digit that can change it, and never depends on the text after that
character. So the segments do not depend on how the text was split into pieces. A complete sentence is returned with the
first letter of the next sentence, and every segment has something to speak. If the writer pauses, a sentence does not
have to wait for that letter.

The library `sentence_stream` is not used, for three reasons. It changes the sentences (asterisks and spaces are lost).
It joins "Yes. How are you?" because it takes "Yes." for an abbreviation, so that a known phrase would be missed. It
scans its whole buffer again for every piece, which takes seconds for 5,000 dots that come one by one.
"""

import re
import unicodedata
from collections.abc import Container, Iterator

from tts.text.abbreviations import ABBREVIATIONS, BEFORE_DIGITS, DOT_MAKES_ORDINAL
from tts.text.tags import MAX_TAG_LENGTH, strip_tags

MIN_LENGTH = 40
MAX_LENGTH = 300

_SPACES = "".join(filter(str.isspace, map(chr, range(0x3001))))
_QUOTES = "\"'“”‘’«»‹›*_"
_OPENERS = _SPACES + "\"'“‘«‹„‚*_([{¿¡<「『（《【〔〈#-–—•"
_SOFT = ".!?…‼⁇⁈⁉"  # end a sentence if white space follows and then no small letter
_HARD = "。！？｡।॥؟۔።။"  # always end a sentence, because they have no other meaning

_HARD_SET = frozenset(_HARD)

_SPOKEN = re.compile(r"[^\W_]")
_WHITE = re.compile(r"\s")
_SPACE = re.compile(r"\s*")
_MARK = re.compile(rf"[{_SOFT}{_HARD}\n]")
_END = re.compile(rf"[{_SOFT}{_HARD}]+")
_CLOSERS = re.compile(rf"[{re.escape(_QUOTES)})\]}}]*")
_HARD_CLOSERS = re.compile(r"[\"'”’»*_)\]}」』）》】〕〉]*")
_LAST_CLAUSE = re.compile(r"(?s).*(?:[,;:!?…–—،؛)\]][\"'”’»)\]]*\s|\s-\s|[—、，；：，؛،。！？｡؟।॥۔])")
_LAST_SPACE_OUTSIDE_NUMBERS = re.compile(
    r"(?s).*(?<!\d)(?<!\d[x×])(?<!\d [x×])\s(?![\dx×½¼¾⅓⅔])"
)  # not in "2 x 500 mg"
_LAST_SPACE = re.compile(r"(?s).*\s")

_MAY_BE_DECIMAL = re.compile(r"\d[.,]\Z")
_UNKNOWN_NEXT = " 1"  # the safe guess: before a digit, more words count as abbreviations than before a letter

_WORD = re.compile(r"[\w.]+\Z")
_WORD_REACH = 24
_DOTTED = re.compile(r"[^\W\d_]{1,2}(?:\.[^\W\d_]{1,2})+|[^\W\d_]")  # "e.g", "z.B", "Ph.D", "J"
# The number of a list ("2", "2.1", "iv"): alone at the start of a line or after the end of a sentence.
_LIST_NUMBER = re.compile(
    rf"(?:\A|[\n{_HARD}]|[{_SOFT}][{re.escape(_QUOTES)})\]]*\s)[{re.escape(_OPENERS)}]*"
    r"(?:\d{1,3}(?:\.\d{1,3})*|[ivx]+|[IVX]+)\Z"
)

_TAG_START = re.compile(r"</?[A-Za-z!]")
_AUDIO_TAG_START = re.compile(r"\[(?:[^\W\d_]|['’ -])*")  # it may go on after the position
_TAG_REACH = 200  # a "<" without a ">" within this many characters is no tag; it must not hold the text back


_JOINS_PREVIOUS = re.compile(
    "[\u200c\u200d\u0e33\u0eb3\u1160-\u11ff\ud7b0-\ud7fb\uff9e\uff9f\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]"
)
_JOINS_NEXT = re.compile("[\u200d\u1100-\u115f\ua960-\ua97c]")
_FLAG_LETTERS = "".join(map(chr, range(0x1F1E6, 0x1F200)))
_VIRAMA_CLASS = 9


def normalise(text: str) -> str:
    """Return the normal form in which segments are compared with known phrases (docs/protocol.md, rule 2).

    It has no audio tags, so a phrase is found in the cache with and without them.
    """
    return " ".join(unicodedata.normalize("NFC", strip_tags(text)).split()).replace("’", "'")


def split(text: str, language: str, phrases: Container[str]) -> list[str]:
    """Return the segments of a complete text. Joined, they are exactly the text.

    A `Segmenter` gives the same segments, with one exception. A complete text that equals a known phrase of several
    sentences is one segment here. A text that is still being written cannot wait for that.
    """
    if normalise(text) in phrases:
        return [text]
    segmenter = Segmenter(language, phrases)
    return segmenter.feed(text) + segmenter.finish()


class Segmenter:
    """Cuts a text that is still being written.

    `language` is a BCP 47 tag. `phrases` holds the known phrases in normal form. A segment has at least MIN_LENGTH
    characters. Exceptions are a known phrase, the text before a known phrase, and the last segment. A segment has at
    most MAX_LENGTH characters from its first letter or digit to its last. Punctuation and spaces before and after these
    do not count towards the limit. They belong to the segment before or after. A text without letters or digits is one
    segment.
    """

    def __init__(self, language: str, phrases: Container[str]) -> None:
        self._language = language.replace("_", "-").partition("-")[0].lower()
        self._phrases = phrases
        self._text = ""  # the text that is in no segment yet; the next two attributes are positions in it
        self._sentence_start = 0  # of the last sentence; before it are sentences that are too short for a segment
        self._scanned = 0  # no sentence ends before this position
        self._has_output = False

    def feed(self, piece: str) -> list[str]:
        """Add the next piece of the text and return the segments that are complete now."""
        self._text += piece
        segments: list[str] = []
        if _SPOKEN.search(piece) is None:
            return segments  # only a letter or digit can complete a segment
        while True:  # from one decision to the next, in the order of the characters that decide them
            text, first = self._text, _first_spoken(self._text, self._sentence_start)
            mark = _MARK.search(text, max(self._scanned, first))
            following = _first_spoken(text, mark.end()) if mark else len(text)
            if _is_too_long(text, first, following):
                segments.append(self._take(_best_cut(text)))
            elif mark and following < len(text):
                self._scanned = following
                start = _next_sentence(text, mark.start(), following, self._language)
                segments.extend(self._end_sentence(start) if start else ())
            else:
                return segments

    def pause(self) -> list[str]:
        """Return the segments of the text so far, because the writer has paused.

        Empty if the last sentence does not look complete, or if the text is shorter than MIN_LENGTH and no known
        phrase.
        """
        text = self._text
        if _MAY_BE_DECIMAL.search(text):
            return []
        mark = _MARK.search(text, max(self._scanned, _first_spoken(text, self._sentence_start)))
        end = mark and _next_sentence(text + _UNKNOWN_NEXT, mark.start(), len(text) + 1, self._language)
        if end and (len(text[:end].strip()) >= MIN_LENGTH or self._is_phrase(end)):
            return list(self._end_sentence(min(end, len(text))))
        return []

    def finish(self) -> list[str]:
        """Return the remaining segments, because the text is complete. A second call returns nothing.

        A remainder without any letter or digit is dropped if a segment has been returned before.
        """
        segments = list(self._end_sentence(len(self._text)))
        if self._text and not (self._has_output and _SPOKEN.search(self._text) is None):
            segments.append(self._take(len(self._text)))
        self._text = ""
        return segments

    def _end_sentence(self, end: int) -> Iterator[str]:
        """Handle the end of the last sentence, at position `end`. Yield the text that is long enough for a segment.

        A shorter text is kept for the next segment.
        """
        if self._is_phrase(end):
            start = self._sentence_start
            if start:
                yield self._take(start)
            yield self._take(end - start)
            return
        while _is_too_long(self._text, _first_spoken(self._text, 0), end):
            cut = _best_cut(self._text)
            yield self._take(cut)
            end -= cut
        if len(self._text[:end].strip()) >= MIN_LENGTH:
            yield self._take(end)
        else:
            self._sentence_start = end

    def _is_phrase(self, end: int) -> bool:
        return normalise(self._text[self._sentence_start : end]) in self._phrases

    def _take(self, end: int) -> str:
        self._has_output = True
        segment, self._text = self._text[:end], self._text[end:]
        self._sentence_start, self._scanned = 0, max(self._scanned - end, 0)
        return segment


def _first_spoken(text: str, start: int) -> int:
    """Return the position of the first letter or digit from `start` on, or the length of the text if there is none."""
    found = _SPOKEN.search(text, start)
    return found.start() if found else len(text)


def _is_too_long(text: str, first: int, end: int) -> bool:
    """Whether text[first:end] is too long for one segment: a letter or digit is at or after `first + MAX_LENGTH`."""
    return _SPOKEN.search(text, first + MAX_LENGTH, end) is not None


def _next_sentence(text: str, mark: int, following: int, language: str) -> int | None:
    """Return the start of the next sentence, if a sentence ends in text[mark:following], otherwise None.

    text[mark:following] is the text from the first punctuation mark to the next letter or digit. Quotes and brackets
    belong to the sentence that they touch. Marks in a tag such as `<break time="1s"/>` end no sentence.
    """
    if _tag_start(text, mark) is not None:
        return None
    gap = text[mark:following]
    end = _END.search(gap)
    hard = end is not None and not _HARD_SET.isdisjoint(end[0])
    if not hard and gap.count("\n") < 2:  # a blank line always ends a sentence
        goes_on = text[following].islower() and not gap.endswith("[")  # an audio tag begins with a small letter
        if end is None or goes_on or not _WHITE.search(gap, end.end()):
            return None
        if end[0] == "." and _ends_with_abbreviation(text[: mark + end.start()], text[following], language):
            return None
    sentence_end = 0
    if end is not None:
        closers = (_HARD_CLOSERS if hard else _CLOSERS).match(gap, end.end())
        sentence_end = closers.end() if closers else end.end()
    start = mark + _skip_whitespace(gap, max(sentence_end, len(gap.rstrip(_OPENERS))))
    tag = _tag_start(text, start)
    return start if tag is None else tag


def _ends_with_abbreviation(text: str, following: str, language: str) -> bool:
    """Whether the full stop after `text` belongs to its last word, because that is an abbreviation or a number.

    `following` is the next letter or digit. A wrong True only makes a segment longer.
    """
    found = _WORD.search(text, max(len(text) - _WORD_REACH, 0))
    if not found:
        return False
    if _LIST_NUMBER.search(text, max(len(text) - _WORD_REACH, 0)):
        return True
    word = found[0].casefold()
    if word.isdigit():
        return len(word) < 3 and language in DOT_MAKES_ORDINAL
    if _DOTTED.fullmatch(word) and word != word.upper():  # a letter without case is a word, not an initial
        return True
    tables = (ABBREVIATIONS, BEFORE_DIGITS) if following.isdigit() else (ABBREVIATIONS,)
    return any(word in table.get(key, ()) for table in tables for key in ("", language))


def _best_cut(text: str) -> int:
    """Return the best position to cut a text that is too long for one segment: after a clause, otherwise at a space."""
    first = _first_spoken(text, 0)
    edge = first + MAX_LENGTH
    outside_numbers = (_LAST_SPACE_OUTSIDE_NUMBERS, first + MIN_LENGTH)
    for last, start in ((_LAST_CLAUSE, first + MIN_LENGTH), outside_numbers, (_LAST_SPACE, first)):
        found = last.match(text, start, edge + 1)
        if found:
            position = _skip_whitespace(text, found.end())
            tag = _split_tag_start(text, position)
            position = position if tag is None else tag
            if position > first and not _inside_grapheme(text, position):
                return position
    whole = (p for p in range(edge, first, -1) if not _inside_grapheme(text, p) and _split_tag_start(text, p) is None)
    return next(whole, edge)


def _tag_start(text: str, position: int) -> int | None:
    """Return the position of the "<" of the tag that a cut before text[position] would split, or None."""
    start = text.rfind("<", max(position - _TAG_REACH, 0), position)
    if start < 0 or text.find(">", start, position) >= 0:
        return None
    return start if _TAG_START.match(text, start) else None


def _split_tag_start(text: str, position: int) -> int | None:
    """Return the start of the tag or audio tag that a cut before text[position] would split, or None."""
    bracket = text.rfind("[", max(position - MAX_TAG_LENGTH - 1, 0), position)
    if bracket >= 0 and _AUDIO_TAG_START.fullmatch(text, bracket, position):
        return bracket
    return _tag_start(text, position)


def _skip_whitespace(text: str, start: int) -> int:
    found = _SPACE.match(text, start)
    return found.end() if found else start


def _inside_grapheme(text: str, position: int) -> bool:
    """Whether a cut before text[position] would split an emoji or a letter and its marks (close to UAX 29)."""
    previous, here = text[position - 1], text[position]
    if here in _FLAG_LETTERS:
        head = text[max(position - MAX_LENGTH, 0) : position]
        return (len(head) - len(head.rstrip(_FLAG_LETTERS))) % 2 == 1
    return (
        unicodedata.category(here).startswith("M")
        or unicodedata.combining(previous) == _VIRAMA_CLASS
        or _JOINS_PREVIOUS.match(here) is not None
        or _JOINS_NEXT.match(previous) is not None
    )
