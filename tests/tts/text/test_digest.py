"""Keyed digests of texts."""

from tts.text.digest import text_digest

TEXT = "It’s time for  your tablets, and for a glass of water."


def test_texts_that_match_the_same_phrase_have_the_same_digest():
    digest = text_digest(TEXT, "en", "secret")
    assert digest == text_digest(" It's time for your tablets, and for a glass of water.\n", "en", "secret")
    assert digest == text_digest(f"[softly] {TEXT}", "en", "secret")
    assert len(digest) == 32


def test_other_texts_languages_and_secrets_have_other_digests():
    digests = {
        text_digest(TEXT, "en", "secret"),
        text_digest(f"{TEXT} Please.", "en", "secret"),
        text_digest(TEXT, "de", "secret"),
        text_digest(TEXT, "en", "another"),
    }
    assert len(digests) == 4
