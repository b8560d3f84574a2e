"""Preparation of texts for espeak."""

import pytest

from tests.voicecare.providers.espeak.test_client import HOSTILE, STORY, UNREADABLE
from voicecare.providers.espeak.text import PIECE_BYTES, normalize, split


def test_pieces_are_short_and_end_at_clauses():
    text = normalize(STORY)
    made = list(split(text))
    assert "".join(made) == text
    assert all(len(piece) <= PIECE_BYTES for piece in made)
    assert all(piece.rstrip()[-1] in ".," for piece in made)
    assert list(split("Take 2.5 mg, please.")) == ["Take 2.5 mg, please."]


@pytest.mark.parametrize("text", [*UNREADABLE.values(), *HOSTILE.values()], ids=[*UNREADABLE, *HOSTILE])
def test_the_pieces_are_the_complete_text(text):
    made = list(split(normalize(text)))
    assert "".join(made) == normalize(text)
    assert all(len(piece.encode()) <= PIECE_BYTES + 160 for piece in made)


def test_normalized_text_keeps_readable_characters():
    assert normalize("नमस्ते, क्\u200dष — Ö 2.5 mg [now]") == "नमस्ते, क्\u200dष — Ö 2.5 mg  now"
    assert normalize("wait......\x00\ud800[[x]]") == "wait...    x"
    assert normalize("q" + "\u0301" * 99) == "q" + "\u0301" * 3
    assert normalize("𝐇𝐞𝐥𝐥𝐨 ﬁne Ⅷ ⣞ᧇ 5 m²") == "Hello fine VIII    5 m²"
