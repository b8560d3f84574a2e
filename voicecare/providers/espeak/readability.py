"""Decides which words espeak can read, and what is spoken instead of the others. Pure.

espeak cannot read kanji, and has no voice for Khmer, Lao and others. In their place it says "Chinese letter" or the
number of each character, or nothing. The tables below were made by trying every voice of the library with a word of
every script. `tests/voicecare/providers/espeak/test_readability.py` repeats this. Thai and Burmese are not in the
tables, because espeak reads them too wrongly to be understood.
"""

import re
import unicodedata
from functools import lru_cache

from voicecare.core.languages import DEFAULT, code_of
from voicecare.providers.espeak.text import normalize

# Scripts that every voice reads. espeak changes the voice for them automatically.
_READ_BY_ALL = {
    "LATIN",
    "ARMENIAN",
    "BENGALI",
    "DEVANAGARI",
    "GEORGIAN",
    "GUJARATI",
    "GURMUKHI",
    "HANGUL",
    "KANNADA",
    "MALAYALAM",
    "SINHALA",
    "TAMIL",
}
# Scripts that only the voices of these languages read. The first one reads the script in texts of other languages.
_READERS = {
    "GREEK": "el",
    "CYRILLIC": "ru be bg bs hr kk ky mk sr uk uz",
    "HEBREW": "he",
    "ARABIC": "ar fa sd ur",
    "TELUGU": "te",
    "ETHIOPIC": "am ti",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "CJK": "zh yue",
    "BOPOMOFO": "zh",
}
# Scripts in which these languages are written, and that no voice can read as this language.
_UNREAD = {"az": "ARABIC CYRILLIC", "ja": "CJK", "ko": "CJK", "ku": "ARABIC", "mn": "CYRILLIC", "ps": "ARABIC"}

_SENTENCES = {
    "ar": "عذرا، لا أستطيع قراءة كل شيء بصوت عال الآن.",
    "cs": "Promiňte, teď nemohu přečíst všechno nahlas.",
    "da": "Undskyld, lige nu kan jeg ikke læse alt op.",
    "de": "Es tut mir leid, ich kann im Moment nicht alles vorlesen.",
    "el": "Συγγνώμη, αυτή τη στιγμή δεν μπορώ να τα διαβάσω όλα.",
    "en": "I am sorry, I cannot read everything aloud at the moment.",
    "es": "Lo siento, en este momento no puedo leer todo en voz alta.",
    "fi": "Anteeksi, en voi juuri nyt lukea kaikkea ääneen.",
    "fr": "Je suis désolé, je ne peux pas tout lire à voix haute pour le moment.",
    "hi": "माफ़ कीजिए, अभी सब कुछ पढ़कर सुनाया नहीं जा सकता।",
    "hu": "Elnézést, most nem tudok mindent felolvasni.",
    "it": "Mi dispiace, in questo momento non posso leggere tutto ad alta voce.",
    "ja": "もうしわけ ありません。いまは ぜんぶを よみあげることが できません。",
    "ko": "죄송합니다. 지금은 모두 읽어 드릴 수 없습니다.",
    "nl": "Het spijt me, ik kan op dit moment niet alles voorlezen.",
    "no": "Beklager, akkurat nå kan jeg ikke lese opp alt.",
    "pl": "Przepraszam, w tej chwili nie mogę przeczytać wszystkiego na głos.",
    "pt": "Desculpe, neste momento não consigo ler tudo em voz alta.",
    "ro": "Îmi pare rău, în acest moment nu pot citi totul cu voce tare.",
    "ru": "Извините, сейчас я не могу прочитать всё вслух.",
    "sv": "Förlåt, just nu kan jag inte läsa upp allt.",
    "tr": "Özür dilerim, şu anda her şeyi sesli okuyamıyorum.",
    "uk": "Вибачте, зараз я не можу прочитати все вголос.",
    "zh": "对不起,我现在不能全部读出来。",
}
"""Said for what cannot be read, in words that espeak can say. Other languages get the English one."""

# Most voices read these two signs as a pause. "below 70" must not become "70".
_COMPARISONS = {
    "da": ("mindre end", "større end"),
    "de": ("kleiner als", "größer als"),
    "en": ("less than", "more than"),
    "es": ("menor que", "mayor que"),
    "fi": ("pienempi kuin", "suurempi kuin"),
    "fr": ("inférieur à", "supérieur à"),
    "it": ("minore di", "maggiore di"),
    "no": ("mindre enn", "større enn"),
    "pl": ("mniejsze niż", "większe niż"),
    "pt": ("menor que", "maior que"),
    "ru": ("меньше", "больше"),
    "sv": ("mindre än", "större än"),
}
_COMPARISON = re.compile(r"(?<![^\s\d(])([<>])(?=\s?\d|\s)(?!3(?![\d.,%]))")  # <3 is a heart

_TOKEN = re.compile(r"\s+|[^\s。！？]+[。！？]*|[。！？]+")


def is_readable(text: str, language: str) -> bool:
    """Whether every word of the text can be read by some voice of espeak. `language` is the language of the text."""
    return all(_voice_for(token, language) is not None for token in _TOKEN.findall(text))


def readable_parts(text: str, language: str, *, apologize: bool = True) -> list[tuple[str, str]]:
    """Returns the parts to speak, normalized, each with the language of the voice that speaks it.

    A word in a script that the voice of `language` cannot read is spoken by a voice that can. A word that no voice can
    read is left out. Then, with `apologize`, a prepared sentence about this is added at the end. If half of the letters
    or more cannot be read, only this sentence is spoken.
    """
    parts: list[tuple[str, str]] = []
    letters = unread = 0
    plain = text
    if words := _COMPARISONS.get(code_of(language)):
        plain = _COMPARISON.sub(lambda sign: f" {words[sign[1] == '>']} ", plain)
    for token in _TOKEN.findall(plain):
        count = sum(map(str.isalnum, token))
        letters += count
        voice = _voice_for(token, language)
        if voice is None:
            unread += count
        elif parts and (count == 0 or parts[-1][1] == voice):
            parts[-1] = (parts[-1][0] + token, parts[-1][1])
        else:
            parts.append((token, voice))
    if 2 * unread >= letters > 0:
        parts = []
    if unread > 0 and apologize:
        code = code_of(language)
        said = code if code in _SENTENCES else DEFAULT
        parts.append((_SENTENCES[said], said))
    return [(normalize(part if code_of(voice) == "vi" else _simplify(part)), voice) for part, voice in parts]


def _simplify(text: str) -> str:
    """Replaces the letters of Vietnamese, as in `Nguyễn`, by Latin letters without accents.

    Only the Vietnamese voice reads them. All other voices read aloud their Unicode numbers.
    """
    letters = unicodedata.normalize("NFC", text)
    return "".join(unicodedata.normalize("NFD", x)[0] if "\u1e00" <= x <= "\u1eff" else x for x in letters)


def _voice_for(token: str, language: str) -> str | None:
    """Returns the language of the voice that can read this word in a text of `language`. None if no voice can."""
    code = code_of(language)
    letters = [script for script in map(_script, filter(str.isalpha, token)) if script is not None]
    scripts = set(letters) - ({"GREEK"} if letters.count("GREEK") == 1 else set())  # every voice reads a single one
    if code == "ja" and scripts == {"LATIN"} and len(letters) > 1:
        return DEFAULT  # the Japanese voice reads only single letters
    if _can_read(code, scripts):
        return language
    if scripts & set(_UNREAD.get(code, "").split()):
        return None
    others = [reader for script in scripts for reader in _READERS.get(script, "").split()[:1]]
    return next((other for other in others if _can_read(other, scripts)), None)


def _can_read(code: str, scripts: set[str]) -> bool:
    return all(script in _READ_BY_ALL or code in _READERS.get(script, "").split() for script in scripts)


@lru_cache(maxsize=4096)
def _script(letter: str) -> str | None:
    """Returns the script of a letter, which is the first word of its Unicode name.

    None for signs that all scripts use.
    """
    plain = unicodedata.normalize("NFKC", letter)[0]  # wide and mathematical letters are plain ones
    if plain < "\u0250":
        return "LATIN"
    script = re.split(r"[ -]", unicodedata.name(plain, "UNKNOWN"), maxsplit=1)[0]
    return {"MODIFIER": None, "COMBINING": None, "IDEOGRAPHIC": "CJK"}.get(script, script)
