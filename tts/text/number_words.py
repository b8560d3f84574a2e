"""Numbers as words, in English and German. Pure.

The library num2words is not used: it depends on docopt, which has had no release since 2014, and it has no form of the
German "ein" before a noun. Only numbers of doses, times, dates and prices are needed.
"""

from functools import lru_cache

MAX_NUMBER = 999_999

_EN_SMALL = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_EN_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_EN_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
_DE_SMALL = [
    "null",
    "ein",
    "zwei",
    "drei",
    "vier",
    "fünf",
    "sechs",
    "sieben",
    "acht",
    "neun",
    "zehn",
    "elf",
    "zwölf",
    "dreizehn",
    "vierzehn",
    "fünfzehn",
    "sechzehn",
    "siebzehn",
    "achtzehn",
    "neunzehn",
]
_DE_TENS = ["zwanzig", "dreißig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig"]
_DE_ORDINALS = {1: "erst", 3: "dritt", 7: "siebt", 8: "acht"}


@lru_cache(maxsize=4096)
def english(number: int) -> str:
    """Returns the number in words. `number` is from 0 to MAX_NUMBER."""
    if number < 20:
        return _EN_SMALL[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return _EN_TENS[tens - 2] + (f"-{_EN_SMALL[ones]}" if ones else "")
    unit, name = (1000, "thousand") if number >= 1000 else (100, "hundred")
    high, low = divmod(number, unit)
    return f"{english(high)} {name}" + (f" {english(low)}" if low else "")


def english_ordinal(number: int) -> str:
    """Returns the ordinal number in words: "twenty-third"."""
    words = english(number)
    head, mark, last = words.rpartition("-" if "-" in words.rpartition(" ")[2] else " ")
    regular = f"{last[:-1]}ieth" if last.endswith("y") else f"{last}th"
    return f"{head}{mark}{_EN_ORDINALS.get(last, regular)}"


def english_year(year: int) -> str:
    """Returns a year from 1900 to 2099 in words: "nineteen oh five", "two thousand nine", "twenty twenty-six"."""
    century, rest = divmod(year, 100)
    if 2000 <= year < 2010:
        return english(year)
    if rest == 0:
        return f"{english(century)} hundred"
    return f"{english(century)} {'oh ' if rest < 10 else ''}{english(rest)}"


@lru_cache(maxsize=4096)
def german(number: int) -> str:
    """Returns the number in words as before a noun: "ein", "hundertein". `number` is from 0 to MAX_NUMBER."""
    if number < 20:
        return _DE_SMALL[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return (f"{_DE_SMALL[ones]}und" if ones else "") + _DE_TENS[tens - 2]
    unit, name = (1000, "tausend") if number >= 1000 else (100, "hundert")
    high, low = divmod(number, unit)
    return ("" if high == 1 else german(high)) + name + (german(low) if low else "")


def german_alone(number: int) -> str:
    """Returns the number in words without a noun: "eins", "hunderteins"."""
    return german(number) + ("s" if number % 100 == 1 else "")


def german_ordinal(number: int, ending: str) -> str:
    """Returns the ordinal number from 1 to 31 with this ending: "dritten" for 3 and "en"."""
    return _DE_ORDINALS.get(number, german(number) + ("t" if number < 20 else "st")) + ending


def german_year(year: int) -> str:
    """Returns a year from 1900 to 2099 in words."""
    if year >= 2000:
        return german_alone(year)
    return f"neunzehnhundert{german_alone(year % 100) if year % 100 else ''}"
