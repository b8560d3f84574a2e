"""The list of languages: other spellings of its codes, and tags with regions."""

import pytest

from voicecare.core.languages import LANGUAGES, code_of, is_listed


@pytest.mark.parametrize(
    ("tag", "code"),
    [
        ("en", "en"),
        ("EN", "en"),
        ("de-AT", "de"),
        ("en_GB", "en"),
        ("nb", "no"),
        ("nn-NO", "no"),
        ("nob", "no"),
        ("iw", "he"),
        ("heb", "he"),
        ("tl", "fil"),
        ("tl-PH", "fil"),
        ("fil-PH", "fil"),
        ("in", "id"),
        ("jw", "jv"),
        ("sh", "sr"),
        ("mo", "ro"),
        ("pt-BR", "pt"),
        ("zh-Hant", "zh"),
        ("cmn-Hans", "zh"),
        ("deu", "de"),
        ("ger", "de"),
        ("xx-YY", "xx"),
        ("German", "german"),
        ("", ""),
    ],
)
def test_the_code_of_a_tag(tag: str, code: str):
    assert code_of(tag) == code


def test_a_code_of_the_list_is_its_own_code():
    assert {code_of(code) for code in LANGUAGES} == set(LANGUAGES)
    assert {code_of(code.upper()) for code in LANGUAGES} == set(LANGUAGES)


@pytest.mark.parametrize("tag", [*LANGUAGES, "en-GB", "EN", "zh-Hant", "zh-Hant-TW", "nb", "deu", "es-419"])
def test_listed_tags(tag: str):
    assert is_listed(tag)


@pytest.mark.parametrize(
    "tag",
    ["", "e", "xx", "german", "German", "en-", "-en", "en_GB", "en GB", " en", "en-GB-oxendict", "en\n", "klingon"],
)
def test_other_tags(tag: str):
    assert not is_listed(tag)
