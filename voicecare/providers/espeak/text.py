"""Prepares text for espeak.

Removes characters that espeak would take for commands or cannot speak, and splits long texts.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

FIRST_PIECE_BYTES = 50
PIECE_BYTES = 90

_MAX_MARKS_IN_A_ROW = 3
_COMPARISONS = "≤≥≠≈"
_JOINERS = "\u200c\u200d"
_REPEATED = re.compile(r"([^\w\s])\1{3,}")
# The Unicode names of the characters that espeak can speak start with these words. It reads others as "symbol" and a
# number. That is useless to listeners, and in some languages it overflows a buffer of the library.
_READABLE = re.compile(
    "(?:LATIN|GREEK|CYRILLIC|ARMENIAN|HEBREW|ARABIC|DEVANAGARI|BENGALI|GURMUKHI|GUJARATI|ORIYA|TAMIL|TELUGU|KANNADA"
    "|MALAYALAM|SINHALA|THAI|MYANMAR|GEORGIAN|HANGUL|ETHIOPIC|CHEROKEE|HIRAGANA|KATAKANA|CJK|BOPOMOFO"
    "|IDEOGRAPHIC|COMBINING)[ -]"
)
# A word with the space after it, a clause in a script without spaces, or 40 characters of a very long word.
_TOKEN = re.compile(r"\S{1,40}?(?:[。！？，、；：।]+\s*|\s+|\Z)|\S{1,40}")
_CLAUSE_END = re.compile(r"(?:[.,;:!?…؟،؛][\"'”’»)]*\s+|[。！？，、；：।]\s*)\Z")


def normalize(text: str) -> str:
    """Replaces all characters that espeak cannot read by spaces.

    Control characters are removed because \\x01 starts a command, private-use characters because espeak uses them
    internally, and brackets because `[[` starts phoneme input. Long sequences of accents or of the same sign are
    shortened, because they only cost time.
    """
    # Wide and mathematical letters, ligatures and Roman numerals become the plain letters.
    composed = unicodedata.normalize("NFC", text)
    plain = "".join(sign if sign < "\u0100" else unicodedata.normalize("NFKC", sign) for sign in composed)
    kept: list[str] = []
    marks = 0
    for character in plain:
        category = unicodedata.category(character)
        marks = marks + 1 if category[0] == "M" else 0
        if category == "Nd":  # most voices are silent for the digits of other scripts
            kept.append(str(unicodedata.decimal(character)))
        elif marks <= _MAX_MARKS_IN_A_ROW and (category != "Cf" or character in _JOINERS):
            kept.append(character if _is_readable(character, category) else " ")
    return _REPEATED.sub(r"\1\1\1", "".join(kept)).strip()


@lru_cache(maxsize=4096)
def _is_readable(character: str, category: str) -> bool:
    if character < "\u0100":
        return category != "Cc" and character not in "[]"
    if category[0] in "LMN":
        return bool(_READABLE.match(unicodedata.name(character, "")))
    emoji = category == "So" and (character > "\U0001f000" or "\u2600" <= character <= "\u27bf")
    return emoji or character in _COMPARISONS or category[0] in "PZ" or category == "Sc" or character in _JOINERS


def split(text: str) -> Iterator[str]:
    """Splits normalized text into pieces at the ends of clauses, or between words if a clause is too long.

    The first piece is short, so that its audio is ready soon. Lengths are counted in UTF-8 bytes, because these match
    the duration of the audio better than characters do: a Chinese character takes as long as four Latin letters.
    """
    piece, clause, limit = "", 0, FIRST_PIECE_BYTES
    for token in _TOKEN.findall(text):
        if piece and len((piece + token).encode()) > limit:
            cut = clause or len(piece)
            yield piece[:cut]
            piece, clause, limit = piece[cut:], 0, PIECE_BYTES
        piece += token
        if _CLAUSE_END.search(token):
            clause = len(piece)
    if piece:
        yield piece
