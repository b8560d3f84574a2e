"""What espeak reads: every listed language with every script, by the phonemes of the real library."""

import asyncio
import json
import sys

import pytest

from tests.voicecare.providers.espeak.test_client import in_one_loop, seconds, speak_all
from voicecare.core.languages import LANGUAGES
from voicecare.providers.espeak.client import EspeakVoice
from voicecare.providers.espeak.readability import _SENTENCES, is_readable, readable_parts

WORDS = {
    "arabic": "صباح الخير",
    "armenian": "բարեւ",
    "bengali": "ঔষধ",
    "bopomofo": "ㄅㄆㄇ",
    "canadian": "ᐃᓄᒃ",
    "cherokee": "ᎣᏏᏲ",
    "cyrillic": "лекар",
    "devanagari": "औषध",
    "ethiopic": "ሰላም",
    "georgian": "წამალი",
    "greek": "φάρμακο",
    "gujarati": "દવા",
    "gurmukhi": "ਦਵਾਈ",
    "han": "今天天气很好",
    "hangul": "안녕하세요",
    "hebrew": "שלום לך",
    "javanese": "ꦗꦮ",
    "kanji and kana": "お薬を飲んでください。",
    "kannada": "ಔಷಧಿ",
    "katakana": "コンピューター",
    "khmer": "សួស្តី",
    "lao": "ສະບາຍດີ",
    "latin": "medicine",
    "malayalam": "മരുന്ന്",
    "mongolian": "ᠰᠠᠶᠢᠨ",
    "myanmar": "ကျေးဇူးတင်ပါတယ်",
    "odia": "ନମସ୍କାର",
    "sinhala": "බෙහෙත්",
    "syriac": "ܫܠܡܐ",
    "tamil": "மருந்து",
    "telugu": "మందు",
    "thaana": "ދިވެހި",
    "thai": "สวัสดี",
    "tibetan": "བཀྲ",
    "tifinagh": "ⴰⵣⵓⵍ",
}
DIGITS = ["25", "٢٥", "۲۵", "२५", "২৫", "๒๕", "២៥", "２５", "၂၅"]

# Reads [text, language] pairs as JSON, and writes the phonemes of each. In a process of its own, as in production.
PHONEMES = """
import ctypes, json, sys
from voicecare.providers.espeak.engine import Engine
engine = Engine()
translate = engine._library.espeak_TextToPhonemes
translate.restype = ctypes.c_char_p
def phonemes(text, language):
    engine._select_voice(language, "", 50, 175)
    buffer = ctypes.create_string_buffer(text.encode())
    at, found = ctypes.c_void_p(ctypes.addressof(buffer)), []
    while at.value:
        found.append((translate(ctypes.byref(at), 1, 0) or b"").decode(errors="replace"))
    return " ".join(found)
print(json.dumps([phonemes(*pair) for pair in json.load(sys.stdin)]))
"""


async def phonemes(parts: list[tuple[str, str]]) -> list[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PHONEMES, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate(json.dumps(parts).encode())
    said: list[str] = json.loads(output)
    return said


def sounds(said: str) -> int:
    """The number of letters in phonemes, without the names of languages."""
    return sum(map(str.isalpha, "".join(piece.partition(")")[2] or piece for piece in said.split("("))))


async def test_every_language_reads_every_script_or_says_so():
    """The name or the number of a character takes many sounds: "Chinese letter", "letter one seven nine F"."""
    spoken = {(code, script): readable_parts(word, code) for code in LANGUAGES for script, word in WORDS.items()}
    parts = sorted({part for parts in spoken.values() for part in parts})
    said = dict(zip(parts, await phonemes(parts), strict=True))
    for case, parts in spoken.items():
        for text, language in parts:
            letters = sum(map(str.isalpha, text))
            assert 0.4 * letters <= sounds(said[text, language]) <= 4.1 * letters, (case, text, said[text, language])


async def test_what_is_read_as_it_is_would_be_nonsense_without_the_table():
    """The proof that the measure above can fail."""
    said = await phonemes([(WORDS["khmer"], "en"), (WORDS["kanji and kana"], "ja"), (WORDS["cyrillic"], "az")])
    assert [sounds(words) > 5 * len(text) for words, text in zip(said, ["សួស្តី", "薬飲", "лекар"], strict=True)] == [
        True
    ] * 3


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("ja", "お薬を飲んでください。"),
        ("ja-JP", "今日は"),
        ("km", "សួស្តី"),
        ("km-KH", "សួស្តី អ្នកសុខសប្បាយទេ?"),
        ("lo", "ສະບາຍດີ"),
        ("th", "สวัสดี"),
        ("my", "ကျေးဇူးတင်ပါတယ်"),
        ("mn", "Сайн уу"),
        ("ps", "سلام"),
        ("de", "សួស្តី"),
        ("xx", "សួស្តី"),
    ],
)
def test_a_text_that_cannot_be_read_becomes_a_prepared_sentence(language: str, text: str):
    code = language.partition("-")[0]
    expected = code if code in _SENTENCES else "en"
    assert readable_parts(text, language) == [(_SENTENCES[expected], expected)]


def test_only_the_unreadable_part_of_a_text_is_replaced():
    parts = readable_parts("Take 5 pills សួស្តី with a glass of water, please.", "en")
    assert parts == [("Take 5 pills  with a glass of water, please.", "en"), (_SENTENCES["en"], "en")]
    parts = readable_parts("はい、そうですね。わかりました。きょうは よい おてんきですね。薬を。", "ja")
    assert parts == [
        ("はい、そうですね。わかりました。きょうは よい おてんきですね。", "ja"),
        (_SENTENCES["ja"], "ja"),
    ]


@pytest.mark.parametrize(
    ("language", "text", "readable"),
    [("ja", "薬", False), ("en", "Hello សួស្តី", False), ("en", "Hello 世界, Привет", True), ("en", "...", True)],
)
def test_a_speech_apologizes_once(language: str, text: str, readable: bool):
    assert is_readable(text, language) is readable
    spoken = readable_parts(text, language, apologize=False)
    assert _SENTENCES["en"] not in {part for part, _ in spoken}
    assert (spoken == readable_parts(text, language)) is readable


def test_another_voice_speaks_the_words_that_it_can_read():
    assert readable_parts("Hello Привет, how are you?", "en") == [
        ("Hello", "en"),
        ("Привет,", "ru"),
        ("how are you?", "en"),
    ]
    assert readable_parts("これは iPhone です。", "ja") == [("これは", "ja"), ("iPhone", "en"), ("です。", "ja")]


@pytest.mark.parametrize(
    ("language", "text"),
    [("en", "5 μg of α and β"), ("zh", "药。iPhone手机"), ("pt-BR", "Olá"), ("en", "..."), ("en", "😀")],
)
def test_a_readable_text_stays_as_it_is(language: str, text: str):
    assert readable_parts(text, language) == [(text, language)]


@pytest.mark.parametrize(
    ("language", "text", "spoken"),
    [
        ("en", "5 < 6", "5  less than  6"),
        ("en-GB", "Call if it is <70 or >180.", "Call if it is  less than 70 or  more than 180."),
        ("de", "Der Wert ist > 5", "Der Wert ist  größer als  5"),
        ("en", "> 5 mg", "more than  5 mg"),
        ("en", "I <3 you", "I <3 you"),
        ("en", "x <- y -> z", "x <- y -> z"),
        ("en", "≤ 5", "≤ 5"),
        ("ja", "5 < 6", "5 < 6"),
        ("en", "Mr Nguyễn and Ḥasan", "Mr Nguyen and Hasan"),
        ("en", "Mr Dvořák and Mrs Müller", "Mr Dvořák and Mrs Müller"),
        ("vi", "ông Nguyễn", "ông Nguyễn"),
    ],
)
def test_signs_that_espeak_cannot_read_are_replaced(language: str, text: str, spoken: str):
    assert readable_parts(text, language) == [(spoken, language)]


@pytest.mark.parametrize("digits", DIGITS)
async def test_digits_of_every_script_are_spoken(digits: str):
    parts = [part for code in ("en", "ar", "ja", "hi", "th", "km") for part in readable_parts(digits, code)]
    assert {text for text, _ in parts} == {"25"}
    assert all(sounds(said) >= 3 for said in await phonemes(parts))


@pytest.mark.parametrize("language", _SENTENCES)
def test_each_prepared_sentence_can_be_read(language: str):
    assert readable_parts(_SENTENCES[language], language) == [(_SENTENCES[language], language)]


@in_one_loop
async def test_norwegian_has_its_own_voice(espeak):
    made = [
        seconds(await speak_all(espeak, "Jeg heter Øyvind, 1234567", EspeakVoice(code))) for code in ("no", "nb", "en")
    ]
    assert made[0] == pytest.approx(made[1], rel=0.02)
    assert made[0] != pytest.approx(made[2], rel=0.02)


@in_one_loop
async def test_the_offline_voice_says_the_sentence_instead_of_the_names_of_characters(espeak):
    text = "お薬を飲んでください。" * 5
    said = seconds(await speak_all(espeak, text, EspeakVoice("ja")))
    assert said == pytest.approx(seconds(await speak_all(espeak, _SENTENCES["ja"], EspeakVoice("ja"))), rel=0.02)
    assert said < seconds(await speak_all(espeak, text, EspeakVoice("ja"), as_written=True)) / 3
