"""Doses, measured values and prices in words, in English and German. Pure.

A dose that is read wrong is dangerous. So a number that can mean two things stays as it is written: "1.000 mg" (one, or
one thousand), "1,5 mg" in an English text. Only its unit is written out.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tts.text import number_words
from tts.text.number_words import MAX_NUMBER, english, german, german_alone

_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:[.,]\d+)?"
_NOT_INSIDE = r"(?<![\w.,:/×−+-])"
_NOT_AREA = r"(?<!\d[x×])(?<!\d [x×] )(?<!\d[x×] )"  # "2 x 3 cm"
_FRACTION_SIGNS = {"½": (1, 2), "¼": (1, 4), "¾": (3, 4), "⅓": (1, 3), "⅔": (2, 3)}
_SIGNS = "".join(_FRACTION_SIGNS)


@dataclass(frozen=True, slots=True)
class Unit:
    """The name of a unit. `gender` is that of the German name: m, f or n."""

    one: str
    many: str
    gender: str = "n"


_EN_UNITS = {
    "mg": Unit("milligram", "milligrams"),
    "g": Unit("gram", "grams"),
    "kg": Unit("kilogram", "kilograms"),
    "µg": Unit("microgram", "micrograms"),
    "ng": Unit("nanogram", "nanograms"),
    "ml": Unit("milliliter", "milliliters"),
    "cl": Unit("centiliter", "centiliters"),
    "dl": Unit("deciliter", "deciliters"),
    "l": Unit("liter", "liters"),
    "mm": Unit("millimeter", "millimeters"),
    "cm": Unit("centimeter", "centimeters"),
    "km": Unit("kilometer", "kilometers"),
    "kcal": Unit("kilocalorie", "kilocalories"),
    "mmol": Unit("millimole", "millimoles"),
    "mmHg": Unit("millimeter of mercury", "millimeters of mercury"),
    "bpm": Unit("beat per minute", "beats per minute"),
    "IU": Unit("international unit", "international units"),
    "min": Unit("minute", "minutes"),
    "%": Unit("percent", "percent"),
    "°C": Unit("degree Celsius", "degrees Celsius"),
    "°F": Unit("degree Fahrenheit", "degrees Fahrenheit"),
}
_DE_UNITS = {
    "mg": Unit("Milligramm", "Milligramm"),
    "g": Unit("Gramm", "Gramm"),
    "kg": Unit("Kilogramm", "Kilogramm"),
    "µg": Unit("Mikrogramm", "Mikrogramm"),
    "ng": Unit("Nanogramm", "Nanogramm"),
    "ml": Unit("Milliliter", "Milliliter", "m"),
    "cl": Unit("Zentiliter", "Zentiliter", "m"),
    "dl": Unit("Deziliter", "Deziliter", "m"),
    "l": Unit("Liter", "Liter", "m"),
    "mm": Unit("Millimeter", "Millimeter", "m"),
    "cm": Unit("Zentimeter", "Zentimeter", "m"),
    "km": Unit("Kilometer", "Kilometer", "m"),
    "kcal": Unit("Kilokalorie", "Kilokalorien", "f"),
    "mmol": Unit("Millimol", "Millimol"),
    "mmHg": Unit("Millimeter Quecksilbersäule", "Millimeter Quecksilbersäule", "m"),
    "bpm": Unit("Schlag pro Minute", "Schläge pro Minute", "m"),
    "IU": Unit("Internationale Einheit", "Internationale Einheiten", "f"),
    "min": Unit("Minute", "Minuten", "f"),
    "%": Unit("Prozent", "Prozent"),
    "°C": Unit("Grad Celsius", "Grad Celsius"),
    "°F": Unit("Grad Fahrenheit", "Grad Fahrenheit"),
}
_SPELLINGS = {
    **{name: name for name in _EN_UNITS},
    "mcg": "µg",
    "μg": "µg",
    "mL": "ml",
    "dL": "dl",
    "L": "l",
    "IE": "IU",
    "I.E.": "IU",
    "mm Hg": "mmHg",
}
_DIVISORS = {"en": {"h": "hour", "d": "day"}, "de": {"h": "Stunde", "d": "Tag"}}
_UNIT = "|".join(re.escape(name) for name in sorted(_SPELLINGS, key=len, reverse=True))
_DIVISOR = f"(?:/(?:{_UNIT}|h|d))"
_MEASURE = rf"(?P<unit>(?:{_UNIT}){_DIVISOR}{{0,2}})(?![\w/°²³%])"

_EN_NOUNS = [
    "tablets?",
    "pills?",
    "capsules?",
    "drops?",
    "puffs?",
    "sprays?",
    "teaspoons?",
    "tablespoons?",
    "spoons?",
    "doses?",
    "cups?",
    "glass(?:es)?",
    "ampoules?",
    "sachets?",
    "patch(?:es)?",
    "hours?",
    "units?",
    "milligrams?",
    "grams?",
    "millilit(?:er|re)s?",
    "lit(?:er|re)s?",
]
_DE_NOUNS = {
    "f": "Tabletten? Pillen? Kapseln? Ampullen? Tassen? Stunden? Dosis Spritzen? Packungen? Einheiten?",
    "m": "Tropfen Teelöffel Esslöffel Löffel Beutel Hub Hübe Messlöffel Milliliter Liter",
    "n": "Gläser Glas Pflaster Zäpfchen Stück Milligramm Gramm",
}
_EN_NOUN = rf"(?:{'|'.join(_EN_NOUNS)})\b"
_DE_NOUN = rf"(?:{'|'.join('|'.join(nouns.split()) for nouns in _DE_NOUNS.values())})\b"
_DE_GENDERS = {gender: re.compile("|".join(nouns.split())) for gender, nouns in _DE_NOUNS.items()}
_EN_FREQUENCY = (
    r"(?:daily|weekly|monthly|hourly|a day|a week|a month|an hour|per (?:day|week|month|hour)|each day|every)\b"
)
_DE_FREQUENCY = (
    r"(?:täglich|tgl|wöchentlich|monatlich|stündlich|am Tag|pro (?:Tag|Woche|Monat|Stunde)|die Woche"
    r"|in der Woche|im Monat)\b"
)
_DATIVE = re.compile(r"\b(?:mit|von|aus|zu|bei|nach)\s\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Patterns:
    """The patterns of one language, in the order in which they are used."""

    times: re.Pattern[str]
    fraction: re.Pattern[str]
    interval: re.Pattern[str]
    measure: re.Pattern[str]
    noun: re.Pattern[str]


def _patterns(noun: str, frequency: str) -> _Patterns:
    amount = rf"(?:(?:\d+\s?)?[{_SIGNS}]|\d/\d|(?:{_NUMBER}))"
    unnamed_measure = _MEASURE.replace("?P<unit>", "?:")
    length = r"(?:cm|mm|km|m)\b"
    return _Patterns(
        times=re.compile(
            rf"{_NOT_INSIDE}(?:(?P<low>[1-9]\d?)\s?[-–]\s?)?(?P<high>[1-9]\d?)\s?[x×]"
            rf"(?=\s?{amount}\s?(?!{length})(?:{_MEASURE}|{noun})|\s?{frequency})\s?"
        ),
        fraction=re.compile(
            rf"{_NOT_INSIDE}(?:(?P<whole>[1-9]\d?)(?P<gap>\s?)(?=[{_SIGNS}])|(?P<whole_ascii>[1-9]\d?) (?=\d/\d))?"
            rf"(?:(?P<sign>[{_SIGNS}])|(?P<top>[123])/(?P<bottom>[234])(?=\s?(?:{unnamed_measure}|{noun})))"
            rf"(?![\w/{_SIGNS}])\s?(?:{_MEASURE}|(?P<noun>{noun}))?"
        ),
        interval=re.compile(
            rf"{_NOT_INSIDE}(?P<low>{_NUMBER})(?:\s[-–]\s|[-–])(?P<high>{_NUMBER})\s?(?:{_MEASURE}|(?P<noun>{noun}))"
        ),
        measure=re.compile(
            rf"(?<![\w.,:/×-]){_NOT_AREA}(?P<minus>[-−](?=[\d.,]+\s?°[CF]))?(?P<number>{_NUMBER})\s?{_MEASURE}"
        ),
        noun=re.compile(rf"{_NOT_INSIDE}(?P<number>{_NUMBER})(?P<gap>\s)(?P<noun>{noun})"),
    )


_PATTERNS = {"en": _patterns(_EN_NOUN, _EN_FREQUENCY), "de": _patterns(_DE_NOUN, _DE_FREQUENCY)}

_PRESSURE = re.compile(
    r"(?<![\w.,:/-])(?P<high>\d{2,3})\s?/\s?(?P<low>\d{2,3})(?![\w/]|[.,:-]\d)(?P<unit>\s?(?:mmHg|mm Hg)\b)?"
)
_DAILY = re.compile(r"\btgl\.")
_CURRENCIES = {
    "en": {
        "€": ("euro", "euros"),
        "EUR": ("euro", "euros"),
        "$": ("dollar", "dollars"),
        "£": ("pound", "pounds"),
    },
    "de": {"€": ("Euro", "Euro"), "EUR": ("Euro", "Euro"), "$": ("Dollar", "Dollar"), "£": ("Pfund", "Pfund")},
}
_PRICE = re.compile(
    rf"(?<![\w.,:/+-])(?:(?P<before>[€$£]|EUR\s)\s?(?P<first>{_NUMBER})(?![\w%/]|[.,:-]\d)"
    rf"|(?P<second>{_NUMBER})\s?(?P<after>[€$£]|EUR\b))(?!\w|\s?(?:million|billion|thousand|Million|Milliard|Mio|Mrd|Tausend))"
)


def write_out(text: str, language: str) -> str:
    """Returns the text with its doses, measured values and prices in words. `language` is "en" or "de"."""
    patterns = _PATTERNS[language]
    is_german = language == "de"
    if is_german:
        text = _DAILY.sub("täglich", text)
    text = _PRESSURE.sub(_german_pressure if is_german else _english_pressure, text)
    text = patterns.times.sub(_german_times if is_german else _english_times, text)
    text = patterns.fraction.sub(_german_fraction if is_german else _english_fraction, text)
    text = patterns.interval.sub(lambda found: _interval(found, language), text)
    text = patterns.measure.sub(lambda found: _measure(found, language), text)
    text = patterns.noun.sub(lambda found: _counted(found, language), text)
    return _PRICE.sub(lambda found: _price(found, language), text)


def decimal_words(number: str, language: str) -> str | None:
    """Returns the number in words, or None if it is too large or can mean two things."""
    if language == "en":
        number = number.replace(",", "") if re.fullmatch(r"[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?", number) else number
    spell: Callable[[int], str] = english if language == "en" else german_alone
    marks, point = (".", "point") if language == "en" else (".,", "Komma")
    whole, mark, digits = number, "", ""
    for sign in marks:
        if sign in number:
            whole, mark, digits = number.partition(sign)
    if not whole.isdecimal() or (len(whole) > 1 and whole[0] == "0") or int(whole) > MAX_NUMBER:
        return None
    if not mark:
        return spell(int(whole))
    if not digits.isdecimal() or (len(digits) == 3 and whole != "0"):
        return None
    return f"{spell(int(whole))} {point} {' '.join(spell(int(digit)) for digit in digits)}"


def _unit_words(unit: str, language: str, *, is_one: bool) -> str:
    units: Mapping[str, Unit] = _EN_UNITS if language == "en" else _DE_UNITS
    first, *divisors = unit.split("/")
    found = units[_SPELLINGS[first]]
    words = [found.one if is_one else found.many]
    for divisor in divisors:
        name = _DIVISORS[language].get(divisor) or units[_SPELLINGS[divisor]].one
        words.append(f"{'per' if language == 'en' else 'pro'} {name}")
    return " ".join(words)


def _gender(unit: str | None, noun: str | None) -> str:
    """Returns the gender of a German unit or noun: m, f or n."""
    if unit:
        return _DE_UNITS[_SPELLINGS[unit.split("/")[0]]].gender
    return next((gender for gender, pattern in _DE_GENDERS.items() if pattern.fullmatch(noun or "")), "n")


def _amount(number: str, language: str, gender: str, before: str = "") -> str:
    """Returns a number before a unit or noun, as it is written if it can mean two things."""
    if language == "de" and number.isdecimal() and number[0] != "0" and int(number) <= MAX_NUMBER:
        if number == "1" and gender == "f":
            return "einer" if _DATIVE.search(before) else "eine"
        return german(int(number))
    return decimal_words(number, language) or number


def _measure(found: re.Match[str], language: str) -> str:
    number, unit = found["number"], found["unit"]
    minus = "minus " if found["minus"] else ""
    gender = _gender(unit, None) if language == "de" else ""
    amount = _amount(number, language, gender, found.string[: found.start()])
    return f"{minus}{amount} {_unit_words(unit, language, is_one=number == '1')}"


def _counted(found: re.Match[str], language: str) -> str:
    gender = _gender(None, found["noun"]) if language == "de" else ""
    amount = _amount(found["number"], language, gender, found.string[: found.start()])
    return f"{amount}{found['gap']}{found['noun']}"


def _interval(found: re.Match[str], language: str) -> str:
    low, high = decimal_words(found["low"], language), decimal_words(found["high"], language)
    if low is None or high is None or _value(found["low"]) >= _value(found["high"]):
        return found[0]
    if language == "de":
        gender = _gender(found["unit"], found["noun"])
        low, high = _amount(found["low"], language, gender), _amount(found["high"], language, gender)
    thing = found["noun"] or _unit_words(found["unit"], language, is_one=False)
    return f"{low} {'to' if language == 'en' else 'bis'} {high} {thing}"


def _value(number: str) -> float:
    return float(number.replace(",", "." if number.count(",") == 1 and len(number.partition(",")[2]) != 3 else ""))


def _english_times(found: re.Match[str]) -> str:
    low = f"{english(int(found['low']))} to " if found["low"] else ""
    return f"{low}{english(int(found['high']))} {'time' if found['high'] == '1' and not low else 'times'} "


def _german_times(found: re.Match[str]) -> str:
    low = f"{german(int(found['low']))}- bis " if found["low"] else ""
    return f"{low}{german(int(found['high']))}mal "


def _parts_of_fraction(found: re.Match[str]) -> tuple[int, tuple[int, int]]:
    whole = int(found["whole"] or found["whole_ascii"] or 0)
    return whole, _FRACTION_SIGNS[found["sign"]] if found["sign"] else (int(found["top"]), int(found["bottom"]))


_EN_PARTS = {
    (1, 2): ("half", "a half"),
    (1, 4): ("a quarter of", "a quarter"),
    (3, 4): ("three quarters of", "three quarters"),
    (1, 3): ("a third of", "a third"),
    (2, 3): ("two thirds of", "two thirds"),
}
_DE_PARTS = {
    (1, 2): "halb",
    (1, 4): "viertel",
    (3, 4): "drei viertel",
    (1, 3): "drittel",
    (2, 3): "zwei drittel",
}
_DE_ENDINGS = {"f": ("eine", "e"), "m": ("einen", "en"), "n": ("ein", "es")}


def _english_fraction(found: re.Match[str]) -> str:
    whole, part = _parts_of_fraction(found)
    if part not in _EN_PARTS:
        return found[0]
    unit, noun = found["unit"], found["noun"]
    tail = found[0][len(found[0].rstrip()) :]
    if whole:
        thing = noun or (unit and _unit_words(unit, "en", is_one=False))
        words = f"{english(whole)} and {_EN_PARTS[part][1]}"
        return f"{words} {thing}" if thing else words + tail
    thing = noun or (unit and _unit_words(unit, "en", is_one=True))
    if not thing:
        return ("half" if part == (1, 2) else _EN_PARTS[part][1]) + tail
    article = "an" if thing.startswith(("a", "e", "i", "o", "hour")) else "a"
    return f"{_EN_PARTS[part][0]} {article} {thing}"


def _german_fraction(found: re.Match[str]) -> str:
    whole, part = _parts_of_fraction(found)
    if part not in _DE_PARTS:
        return found[0]
    unit, noun = found["unit"], found["noun"]
    tail = found[0][len(found[0].rstrip()) :]
    name = _DE_PARTS[part]
    ends_in_one = {"halb": "einhalb", "viertel": "einviertel", "drittel": "eindrittel"}.get(name, name.replace(" ", ""))
    if whole:
        thing = noun or (unit and _unit_words(unit, "de", is_one=False))
        words = f"{german(whole)}{ends_in_one}"
        return f"{words} {thing}" if thing else words + tail
    thing = noun or (unit and _unit_words(unit, "de", is_one=True))
    if not thing:
        return (ends_in_one if part[0] == 1 else name) + tail
    if part[0] > 1:
        return f"{name} {thing}"
    gender = _gender(unit, noun)
    article, ending = _DE_ENDINGS[gender]
    if _DATIVE.search(found.string[: found.start()]):
        article, ending = ("einer" if gender == "f" else "einem"), "en"
    return f"{article} {name}{ending if name == 'halb' else ''} {thing}"


def _english_pressure(found: re.Match[str]) -> str:
    if not _is_pressure(found):
        return found[0]
    unit = " millimeters of mercury" if found["unit"] else ""
    return f"{english(int(found['high']))} over {english(int(found['low']))}{unit}"


def _german_pressure(found: re.Match[str]) -> str:
    if not _is_pressure(found):
        return found[0]
    unit = " Millimeter Quecksilbersäule" if found["unit"] else ""
    return f"{german_alone(int(found['high']))} zu {german_alone(int(found['low']))}{unit}"


def _is_pressure(found: re.Match[str]) -> bool:
    high, low = int(found["high"]), int(found["low"])
    return found["high"][0] != "0" and 70 <= high <= 260 and 35 <= low <= 150 and low < high


def _price(found: re.Match[str], language: str) -> str:
    sign, number = (found["before"] or found["after"]).strip(), found["first"] or found["second"]
    one, many = _CURRENCIES[language][sign]
    spell = english if language == "en" else german
    mark = "." if language == "en" else ","
    whole, _, cents = number.partition(mark)
    if language == "en" and re.fullmatch(r"[1-9]\d{0,2}(?:,\d{3})+", whole):
        whole = whole.replace(",", "")
    if not whole.isdecimal() or int(whole) > number_words.MAX_NUMBER or len(cents) not in (0, 2):
        return f"{number} {many}"
    words = f"{spell(int(whole))} {one if int(whole) == 1 else many}"
    if int(cents or 0) == 0:
        return words
    return f"{words} {english(int(cents)) if language == 'en' else german_alone(int(cents))}"
