"""From the written to the spoken form: the golden texts, texts in pieces, audio tags, other languages, and the time."""

import random
import time

import pytest

from tests.tts.text.golden import golden, pronunciation
from tts.text.lexicon import Lexicon, LexiconLayer, Replacement
from tts.text.markup import strip_markup
from tts.text.spoken_form import MAX_SPOKEN_LENGTH, Pronunciation
from tts.text.stream import TextStream
from tts.text.tags import strip_tags

PAIRS = [(language, *pair) for language in ("en", "de") for pair in golden(language)]


@pytest.mark.parametrize(("language", "written", "spoken"), PAIRS)
def test_golden(language: str, written: str, spoken: str):
    assert pronunciation(language).plain(written) == spoken


def test_there_are_200_golden_texts():
    assert len({written for _, written, _ in PAIRS}) >= 200


@pytest.mark.parametrize(("language", "written", "spoken"), PAIRS)
def test_what_is_said_has_no_second_reading(language: str, written: str, spoken: str):
    assert Pronunciation(language).plain(spoken) == spoken


@pytest.mark.parametrize("language", ["fr", "ja", "hi", "pt"])
def test_other_languages_lose_only_markup_and_emoji(language: str):
    for written, _ in golden("en"):
        assert Pronunciation(language).spoken(written) == strip_markup(written)


@pytest.mark.parametrize("language", ["en", "de"])
async def test_a_text_in_random_pieces_is_said_as_the_complete_text(language: str):
    chance = random.Random(7)
    sentences = [written for written, _ in golden(language)]
    for _ in range(60):
        text = " ".join(chance.sample(sentences, 12))
        whole = TextStream(text, complete=True)
        expected = [part.text async for part in whole.segments(pronunciation(language), frozenset())]
        pieces = TextStream(complete=False)
        position = 0
        while position < len(text):
            size = chance.choice((1, 2, 5, 40))
            pieces.append(text[position : position + size])
            position += size
        pieces.finish()
        assert [part.text async for part in pieces.segments(pronunciation(language), frozenset())] == expected


@pytest.mark.parametrize("language", ["en", "de"])
def test_no_cut_of_a_long_sentence_divides_a_dose(language: str):
    dose, said = ("take 2 x 500 mg now", "two times") if language == "en" else ("jetzt 2 x 500 mg ein", "zweimal")
    for length in range(40):
        text = "a" * length + f" and {dose}" * 40
        stream = TextStream(text, complete=True)
        spoken = "".join(part for part in _segments(stream, language))
        assert spoken.count(said) == 40


def _segments(stream: TextStream, language: str) -> list[str]:
    import asyncio

    async def read() -> list[str]:
        return [part.text async for part in stream.segments(Pronunciation(language), frozenset())]

    return asyncio.run(read())


def test_tags_stay_for_a_model_that_performs_them_and_are_never_in_the_plain_form():
    say = Pronunciation(
        "en", Lexicon((LexiconLayer([Replacement("laughs", "wrong"), Replacement("tea", "[laughs]")]),))
    )
    assert say.spoken("[laughs][softly] **Take** 2 tablets 🙂.") == "[laughs][softly] Take two tablets."
    assert say.plain("[laughs] **Take** 2 tablets.") == "Take two tablets."
    for text in ("[lau**gh**s] Hello", "&#91;laughs] Hello", "tea [sighs[laughs]] time", "[la🙂ughs] hi"):
        assert strip_tags(say.plain(text)) == say.plain(text)


def test_a_text_without_markup_number_or_entry_is_unchanged():
    text = "  Good morning,  Anna’s tea is\nready – isn't it?  "
    assert Pronunciation("en").plain(text) == text
    assert Pronunciation("en").plain("🙂 ***") == ""


def test_odd_numbers_take_little_time_and_never_fail():
    chance = random.Random(3)
    signs = "01234567890123456789012..,,::--//  xX×½€$%+()mglhU²٣৪apm"
    began = time.monotonic()
    for language in ("en", "de"):
        for _ in range(2000):
            Pronunciation(language).spoken("".join(chance.choices(signs, k=60)))
        for sign in ("1", "1 ", "1-", "1/", "1.", "+1 ", "01 ", "1 x ", "12:30-", "½"):
            Pronunciation(language).spoken(sign * 300)
    assert time.monotonic() - began < 20


def test_a_lexicon_cannot_make_a_text_too_long_for_the_models():
    say = Pronunciation("en", Lexicon((LexiconLayer([Replacement("tea", "t" * 100)]),)))
    assert say.spoken("tea") == "t" * 100
    text = "tea " * 75
    assert say.spoken(text) == text
    assert len(text) < MAX_SPOKEN_LENGTH
