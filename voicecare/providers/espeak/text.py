"""What espeak is given to speak: text without what it would obey or choke on, in pieces of a few seconds."""

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

FIRST_PIECE_BYTES = 50
PIECE_BYTES = 90

_MAX_MARKS_IN_A_ROW = 3
_JOINERS = "\u200c\u200d"
_REPEATED = re.compile(r"([^\w\s])\1{3,}")
# The first words of the names of letters and signs that espeak has voices for. It spells others as "symbol" and their
# number, which nobody wants to hear and which overflows a buffer of its own in some languages.
_READABLE = re.compile(
    "(?:LATIN|GREEK|CYRILLIC|ARMENIAN|HEBREW|ARABIC|DEVANAGARI|BENGALI|GURMUKHI|GUJARATI|ORIYA|TAMIL|TELUGU|KANNADA"
    "|MALAYALAM|SINHALA|THAI|MYANMAR|GEORGIAN|HANGUL|ETHIOPIC|CHEROKEE|HIRAGANA|KATAKANA|CJK|COMBINING) "
)
# A word with the space after it, a run up to a full stop of a script without spaces, or a part of an endless word.
_TOKEN = re.compile(r"\S{1,40}?(?:[。！？，、；：।]+\s*|\s+|\Z)|\S{1,40}")
_CLAUSE_END = re.compile(r"(?:[.,;:!?…؟،؛][\"'”’»)]*\s+|[。！？，、；：।]\s*)\Z")


def normalize(text: str) -> str:
    """Readable text only; everything else becomes a space.

    Control characters go because espeak takes \\x01 as the beginning of a command, private ones because it uses them
    for itself, brackets because `[[` opens phonemes; heaps of accents and signs are cut down, as they only take time.
    """
    kept: list[str] = []
    marks = 0
    for character in _replace_compatibility_characters(text):
        category = unicodedata.category(character)
        marks = marks + 1 if category[0] == "M" else 0
        if marks <= _MAX_MARKS_IN_A_ROW and (category != "Cf" or character in _JOINERS):
            kept.append(character if _is_readable(character, category) else " ")
    return _REPEATED.sub(r"\1\1\1", "".join(kept)).strip()


def _replace_compatibility_characters(text: str) -> str:
    """Letters in disguise (wide, mathematical, ligatures, Roman numerals) as the letters that they are."""
    composed = unicodedata.normalize("NFC", text)
    return "".join(sign if sign < "\u0100" else unicodedata.normalize("NFKC", sign) for sign in composed)


@lru_cache(maxsize=4096)
def _is_readable(character: str, category: str) -> bool:
    if character < "\u0100":
        return category != "Cc" and character not in "[]"
    if category[0] in "LMN":
        return bool(_READABLE.match(unicodedata.name(character, "")))
    emoji = category == "So" and (character > "\U0001f000" or "\u2600" <= character <= "\u27bf")
    return emoji or category[0] in "PZ" or category == "Sc" or character in _JOINERS


def split(text: str) -> Iterator[str]:
    """Cuts clean text where a clause ends, else between words, the first piece short so that its sound comes soon.

    Lengths are counted in UTF-8 bytes, which follow the length of the sound better than characters do: a Chinese
    character speaks as long as four Latin ones.
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
