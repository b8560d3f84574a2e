"""Times, dates and ordinal numbers in words, in English and German. Pure.

What can mean two things stays as it is written: "3/4/2026" (day or month first), "1:10" (a ratio or a time).
"""

import re
from datetime import date

from tts.text.number_words import (
    english,
    english_ordinal,
    english_year,
    german,
    german_alone,
    german_ordinal,
    german_year,
)

_EN_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_DE_MONTHS = [
    "Januar",
    "Februar",
    "März",
    "April",
    "Mai",
    "Juni",
    "Juli",
    "August",
    "September",
    "Oktober",
    "November",
    "Dezember",
]
_EN_SHORT = {
    "Jan": 1,
    "Feb": 2,
    "Mar": 3,
    "Apr": 4,
    "Jun": 6,
    "Jul": 7,
    "Aug": 8,
    "Sep": 9,
    "Sept": 9,
    "Oct": 10,
    "Nov": 11,
    "Dec": 12,
}
_EN_MONTH_OF = {**{name: number for number, name in enumerate(_EN_MONTHS, 1)}, **_EN_SHORT}
_DE_MONTH_OF = {**{name: number for number, name in enumerate(_DE_MONTHS, 1)}, "Jänner": 1}
_EN_MONTH = rf"(?P<month>{'|'.join(sorted(_EN_MONTH_OF, key=len, reverse=True))})\b"
_DE_MONTH = rf"(?P<month>{'|'.join(_DE_MONTH_OF)})\b"
_START = r"(?<![\w.,:/+-])"
_END = r"(?![\w/-]|[.,:]\d)"
_YEAR = rf"(?P<year>(?:19|20)\d\d){_END}"

_ISO_DATE = re.compile(rf"{_START}(?P<year>(?:19|20)\d\d)-(?P<month>\d\d)-(?P<day>\d\d){_END}")
_EN_SLASHES = re.compile(rf"{_START}(?P<first>\d\d?)/(?P<second>\d\d?)/{_YEAR}")
# "March 3 miles" and "May 3" must not become dates: there is a year, an ordinal, or a word or sign of a date beside it.
_EN_MONTH_FIRST = re.compile(
    rf"(?P<before>\b(?:on|by|until|till|from|since|before|after|of|to|and|day,)\s)?(?<!\w){_EN_MONTH}\.?\s"
    rf"(?P<day>\d\d?)(?P<suffix>st|nd|rd|th)?(?:,?\s{_YEAR}|{_END})(?P<closed>(?=\s*(?:\Z|[.,;:!?)])))?"
)
_EN_DAY_FIRST = re.compile(
    rf"{_START}(?P<the>\b(?:the|The)\s)?(?<![\w/:-])(?P<day>\d\d?)(?:st|nd|rd|th)?\s(?:of\s)?{_EN_MONTH}(?:,?\s{_YEAR})?(?!\s\d)"
)
_EN_ORDINAL = re.compile(rf"{_START}(?P<number>\d{{1,3}})(?P<suffix>st|nd|rd|th)\b", re.IGNORECASE)

_DE_CASE = r"(?P<before>\b(?:[Aa]m|[Vv]om|[Zz]um|[Bb]is|[Dd]e[mnrs]|[Aa]b|[Ss]eit|[Bb]eim|[Ii]m)\s)?"
_DE_ISO_DATE = re.compile(_DE_CASE + _ISO_DATE.pattern)
_DE_FULL_DATE = re.compile(
    rf"{_DE_CASE}{_START}(?P<day>\d\d?)\.\s?(?P<month>\d\d?)\.\s?(?P<year>(?:19|20)\d\d|(?<=\d\d\.\d\d\.)\d\d){_END}"
)
_DE_NAMED_DATE = re.compile(rf"{_DE_CASE}{_START}(?P<day>\d\d?)\.\s?{_DE_MONTH}(?:\s{_YEAR})?")
_DE_SHORT_DATE = re.compile(rf"{_DE_CASE[:-1]}{_START}(?P<day>\d\d?)\.(?P<month>\d\d?)\.(?![\w.-]|\s\d)(?P<end>\s*\Z)?")
_DE_ORDINAL = re.compile(
    rf"(?P<before>\b(?:[Aa]m|[Vv]om|[Zz]um|[Bb]eim|[Ii]m|[Dd]em|[Dd]es)\s){_START}(?P<day>\d\d?)\.(?=\s[A-ZÄÖÜ][a-zäöüß]|\sbis\s)"
)

# Before a time with one digit for the hour, which could be a ratio.
_EN_AT = r"(?P<before>\b(?:at|by|until|till|before|after|from|to|around|about|and|since|between)\s)?"
_DE_AT = r"(?P<before>\b(?:um|bis|ab|vor|nach|gegen|von|und|seit|zwischen)\s)?"
_CLOCK = r"(?P<hour>[01]?\d|2[0-3]):(?P<minute>[0-5]\d)(?![\d:]|[.,/]\d)"
_AFTER_START = r"(?:(?<![\w.,:/+–-])|(?<=:\d\d[-–])|(?<=:\d\d [-–] ))"  # or at the end of "8:00-9:30"
_EN_TIME = re.compile(
    rf"{_EN_AT}{_AFTER_START}(?:{_CLOCK}|(?P<full>[1-9]|1[0-2])(?=\s?[aApP]\.?[mM]\b))"
    r"(?:\s?(?P<half>[aApP])\.?[mM]\b(?P<dot>\.)?)?(?:\s(?:o'clock|hrs))?(?P<dash>\s?[-–]\s?(?=\d{1,2}(?::|\s?[aApP]\.?[mM])))?",
    re.IGNORECASE,
)
_DE_TIME = re.compile(
    rf"{_DE_AT}{_AFTER_START}(?:{_CLOCK}|(?P<dotted_hour>[01]?\d|2[0-3])\.(?P<dotted_minute>[0-5]\d)(?=\sUhr\b)"
    rf"|(?P<full>1?\d|2[0-4])(?=\sUhr\b))(?P<clock>\sUhr\b)?(?P<dash>\s?[-–]\s?(?=\d{{1,2}}:))?",
    re.IGNORECASE,
)


def write_out(text: str, language: str) -> str:
    """Returns the text with its dates, times and ordinal numbers in words. `language` is "en" or "de"."""
    if language == "en":
        text = _ISO_DATE.sub(lambda found: _english_date(found, int(found["month"])), text)
        text = _EN_SLASHES.sub(_slashes, text)
        text = _EN_MONTH_FIRST.sub(_month_first, text)
        text = _EN_DAY_FIRST.sub(_day_first, text)
        text = _EN_TIME.sub(_english_time, text)
        return _EN_ORDINAL.sub(_english_ordinal, text)
    text = _DE_ISO_DATE.sub(lambda found: _german_date(found, int(found["month"]), _ending(found)), text)
    text = _DE_FULL_DATE.sub(lambda found: _german_date(found, int(found["month"]), _ending(found)), text)
    text = _DE_NAMED_DATE.sub(lambda found: _german_date(found, _DE_MONTH_OF[found["month"]], _ending(found)), text)
    text = _DE_SHORT_DATE.sub(_short_date, text)
    text = _DE_TIME.sub(_german_time, text)
    return _DE_ORDINAL.sub(_german_ordinal, text)


def _exists(year: int, month: int, day: int) -> bool:
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True


def _english_date(found: re.Match[str], month: int) -> str:
    year, day = int(found["year"]), int(found["day"])
    if not _exists(year, month, day):
        return found[0]
    return f"{_EN_MONTHS[month - 1]} {english_ordinal(day)}, {english_year(year)}"


def _slashes(found: re.Match[str]) -> str:
    first, second, year = int(found["first"]), int(found["second"]), int(found["year"])
    if first == second or (first <= 12 < second):
        month, day = first, second
    elif second <= 12 < first:
        month, day = second, first
    else:
        return found[0]
    if not _exists(year, month, day):
        return found[0]
    return f"{_EN_MONTHS[month - 1]} {english_ordinal(day)}, {english_year(year)}"


def _month_first(found: re.Match[str]) -> str:
    day, month, year = int(found["day"]), _EN_MONTH_OF[found["month"]], found["year"]
    is_date = year or found["suffix"] or found["before"] or found["closed"] is not None
    if not is_date or not _exists(int(year or 2000), month, day):
        return found[0]
    words = f"{found['before'] or ''}{_EN_MONTHS[month - 1]} {english_ordinal(day)}"
    return f"{words}, {english_year(int(year))}" if year else words


def _day_first(found: re.Match[str]) -> str:
    day, month, year = int(found["day"]), _EN_MONTH_OF[found["month"]], found["year"]
    if not _exists(int(year or 2000), month, day):
        return found[0]
    words = f"{found['the'] or 'the '}{english_ordinal(day)} of {_EN_MONTHS[month - 1]}"
    return f"{words}, {english_year(int(year))}" if year else words


def _english_ordinal(found: re.Match[str]) -> str:
    number = int(found["number"])
    is_teen = 10 <= number % 100 <= 20
    right = "th" if is_teen else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return english_ordinal(number) if found["suffix"].lower() == right and number else found[0]


def _english_time(found: re.Match[str]) -> str:
    before, half = found["before"] or "", (found["half"] or "").lower()
    hour, minute = int(found["hour"] or found["full"]), int(found["minute"] or 0)
    is_clock = before or half or len(found["hour"]) == 2 or _is_in_interval(found) or "clock" in found[0].lower()
    if not is_clock or (half and not 1 <= hour <= 12):
        return found[0]
    if not half and hour > 12:
        half = "p"
    elif not half and found["hour"] == "00":
        half = "a"
    words = english(hour % 12 or 12)
    if minute:
        words += f" {'oh ' if minute < 10 else ''}{english(minute)}"
    elif not half:
        words += " o'clock"
    if half:
        words += f" {half}.m."
        rest = found.string[found.end() :].lstrip()
        if found["dot"] is None and rest.startswith("."):
            words = words[:-1]  # its full stop follows in the text
    return f"{before}{words}{' to ' if found['dash'] else ''}"


def _is_in_interval(found: re.Match[str]) -> bool:
    """Whether the time is the beginning or the end of a time such as "8:00-9:30"."""
    return bool(found["dash"]) or found.string[: found.start()].rstrip().endswith(("-", "–"))


def _ending(found: re.Match[str]) -> str:
    before = (found["before"] or "").strip().lower()
    return "er" if not before else "e" if before == "der" else "en"


def _german_date(found: re.Match[str], month: int, ending: str) -> str:
    year, day = found["year"], int(found["day"])
    if not 1 <= month <= 12 or not _exists(int(year) if year and len(year) == 4 else 2000, month, day):
        return found[0]
    words = f"{found.groupdict().get('before') or ''}{german_ordinal(day, ending)} {_DE_MONTHS[month - 1]}"
    if not year:
        return words
    return f"{words} {german_year(int(year)) if len(year) == 4 else german_alone(int(year))}"


def _short_date(found: re.Match[str]) -> str:
    day, month = int(found["day"]), int(found["month"])
    if not 1 <= month <= 12 or not _exists(2000, month, day):
        return found[0]
    words = f"{found['before']}{german_ordinal(day, _ending(found))} {_DE_MONTHS[month - 1]}"
    return words if found["end"] is None else f"{words}.{found['end']}"


def _german_ordinal(found: re.Match[str]) -> str:
    day = int(found["day"])
    return f"{found['before']}{german_ordinal(day, 'en')}" if 1 <= day <= 31 else found[0]


def _german_time(found: re.Match[str]) -> str:
    before, clock = found["before"] or "", found["clock"] or ""
    written_hour = found["hour"] or found["dotted_hour"] or found["full"]
    hour, minute = int(written_hour), int(found["minute"] or found["dotted_minute"] or 0)
    is_clock = before or clock or len(written_hour) == 2 or _is_in_interval(found)
    if not is_clock:
        return found[0]
    words = f"{german(hour)} Uhr" + (f" {german_alone(minute)}" if minute else "")
    return f"{before}{words}{' bis ' if found['dash'] else ''}"
