"""Audio tags are taken out of a text, and nothing else is."""

import random

import pytest

from tts.text.segmenter import MAX_LENGTH, normalise, split
from tts.text.speakable import is_speakable
from tts.text.tags import is_tag, strip_tags

TAGS = ("[laughs]", "[short pause]", "[Whispers]", "[strong French accent]", "[seufzt]", "[ sighs ]", "[laughs softly]")
NO_TAGS = (
    "[1]",
    "[12, 13]",
    "[see page 3]",
    "[sic]",
    "[laughs 2]",
    "[]",
    "[Anm. d. Red.]",
    "[bemused]",
    "]",
    "[",
    "[a]",
)
WORDS = (
    "Good",
    "morning",
    "Anna,",
    "how",
    "are",
    "you?",
    "Your",
    "tea",
    "is",
    "ready.",
    "It's",
    "5:30,",
    "naïve",
    "好的。",
)


@pytest.mark.parametrize("tag", TAGS)
def test_a_tag_is_recognized(tag: str):
    assert is_tag(tag[1:-1])
    assert strip_tags(f"Well, {tag} my friend.") == "Well, my friend."


@pytest.mark.parametrize("bracket", NO_TAGS)
def test_a_bracket_that_is_no_tag_stays(bracket: str):
    text = f"Read this {bracket} again."
    assert strip_tags(text) == text


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("[laughs] Hello there.", "Hello there."),
        ("Hello [laughs].", "Hello."),
        ("Hello [laughs]", "Hello"),
        ("Hello, [laughs]my friend", "Hello, my friend"),
        ("Hello![laughs]My friend", "Hello! My friend"),
        ("Hello[laughs]", "Hello"),
        ("won[laughs]derful", "wonderful"),
        ("Hi [short pause] you [sighs][laughs] there", "Hi you there"),
        ("Look [1] [laughs] here [2].", "Look [1] here [2]."),
        ("[laughs", "[laughs"),
        ("[laughs hello [sighs] there", "[laughs hello there"),
        ("laughs]", "laughs]"),
        ("[la[laughs]ughs] Hello", "Hello"),
        ("[[laughs]] Hello", "[] Hello"),
        ("[laughs\nloudly]", "[laughs\nloudly]"),
        ("[laughs]", ""),
        ("", ""),
        ("One line\n[laughs]\nanother", "One line\n\nanother"),
    ],
)
def test_the_text_around_a_tag_stays_as_it_is(text: str, plain: str):
    assert strip_tags(text) == plain


def test_a_bracket_with_too_many_words_is_text():
    assert is_tag("laughs a b c d e")
    assert not is_tag("laughs a b c d e f")
    assert not is_tag("laughs " + "a" * 60)


def test_a_phrase_is_the_same_with_and_without_tags():
    assert normalise("[chuckles] I see. ") == normalise("I see.")


def generated(number: int) -> tuple[str, str]:
    """Return a text of a few sentences with tags and other brackets in it, and the same text without its tags."""
    chance = random.Random(number)
    tagged: list[str] = []
    plain: list[str] = []
    for _ in range(chance.randint(1, 120)):
        kind = chance.random()
        if kind < 0.2:
            tagged.append(chance.choice(TAGS))
        else:
            word = chance.choice(WORDS) if kind < 0.9 else chance.choice(NO_TAGS[:7])
            tagged.append(word)
            plain.append(word)
    return " ".join(tagged), " ".join(plain)


def test_1000_generated_texts_lose_their_tags_only():
    for number in range(1000):
        text, plain = generated(number)
        assert " ".join(strip_tags(text).split()) == " ".join(plain.split())
        assert strip_tags(strip_tags(text)) == strip_tags(text)


def test_no_cut_between_segments_splits_a_tag():
    for number in range(1000):
        text, plain = generated(number)
        segments = split(text, "en", frozenset())
        spoken = " ".join(map(strip_tags, segments)).split()
        assert spoken == plain.split()[: len(spoken)]
        assert not is_speakable(" ".join(plain.split()[len(spoken) :]))


def test_a_long_text_is_cut_before_a_tag():
    text = "word " * ((MAX_LENGTH - 10) // 5) + "[very strong French accent] and more words that follow the tag."
    first, second = split(text, "en", frozenset())
    assert "[" not in first
    assert second.startswith("[very strong French accent]")


def test_a_sentence_ends_before_a_tag():
    first, second = (
        "This is a sentence that is long enough for one. ",
        "[laughs] And this is the one after it, my friend.",
    )
    assert split(first + second, "en", frozenset()) == [first, second]


def test_many_brackets_take_linear_time():
    for text in ("[laughs]" * 5000, "[" * 20_000 + "]" * 20_000, "[la" * 5000 + "]" * 5000):
        assert "laughs" not in strip_tags(text)
