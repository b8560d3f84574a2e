"""Phone numbers, digit by digit. Pure."""

import re

from tts.text.number_words import english, german_alone

_PHONE = re.compile(
    r"(?<![\w.,:/+-])(?:"
    r"(?P<country>\+\d{1,3})(?:[ \-/]?\(0\))?(?:[ \-/]\d{2,}|[ ]?\(\d{2,5}\)){1,5}(?:[ \-/]\d{2,}){0,5}|\+\d{8,15}"
    r"|\(?0\d{2,6}\)?(?:[ \-/]{1,3}\d{2,}){1,6}|0\d{6,14}"
    r"|(?:\(\d{3}\)\s|\d{3}[-. ])\d{3}[-.]\d{4}"
    r")(?![\w%]|[.,:/-]\d|\s?(?:mg|ml|g|kg|µg|l|mm|cm|IE|IU|%|°)(?!\w))"
)
_SHORT = {
    "en": re.compile(
        r"(?P<before>\b(?:call|dial|phone|ring)\s)(?P<number>911|112|999|988|111)(?![\w/]|[.,:-]\d)", re.I
    ),
    "de": re.compile(
        r"(?P<before>\b(?:Notruf|Nummer|unter|die|der|wählen Sie)\s(?:der\s|die\s)?)(?P<number>11[02]|116\s?117)"
        r"(?![\w/]|[.,:-]\d|\s(?!und\b|oder\b|an\b|wählen\b|anrufen\b|rufen\b)[a-zA-ZäöüÄÖÜ])",
        re.I,
    ),
}
_SHORTEST = 7


def write_out(text: str, language: str) -> str:
    """Returns the text with its phone numbers as words for digits. `language` is "en" or "de".

    A number of more than three digits without a "+" or a "0" at its start is a phone number only in the North American
    form. An emergency number is read in digits only behind a word such as "call".
    """
    text = _SHORT[language].sub(lambda found: found["before"] + _digits(found["number"], language), text)
    return _PHONE.sub(lambda found: _groups(found[0], language), text)


def _groups(number: str, language: str) -> str:
    if sum(map(str.isdecimal, number)) < _SHORTEST:
        return number
    groups = re.findall(r"\d+", number.replace("(0)", ""))
    words = ", ".join(_digits(group, language) for group in groups)
    return f"plus {words}" if number.startswith("+") else words


def _digits(number: str, language: str) -> str:
    spell = english if language == "en" else german_alone
    return " ".join(spell(int(digit)) for digit in number if digit.isdecimal())
