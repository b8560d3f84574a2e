"""Which texts have anything to speak."""

import pytest

from tts.text.speakable import is_speakable

SILENT = [
    *("", " ", "\n", "...", "…", "***", "?!", "---", "—", "_", "__", "( )", "。", "؟", "\u00bf\u3000"),
    *("%", "€", "+", "=", "°", "→", "©", "™", "#", "&"),
    *("🙂", "👵🏽👨\u200d👩\u200d👧\u200d👦🎉", "🇩🇪", "❤\ufe0f", "ℹ\ufe0f", "Ⓜ\ufe0f", "㊗\ufe0f", "\U0001f170"),
    *("\u200b", "\u200b\u200c\u200d\u2060\ufeff", "\u00ad", "\u034f", "\u061c", "\u180e", "\u2062", "\u2800"),
    *("\u3164", "\u115f\u1160", "\uffa0", "\U000e0041\U000e007f", "\ue000", "\ufffd", "\ufffc"),
    *("\u0301", "\u0301\u0335\u0489" * 9, "\u093f", "\u0e31", "\u20e3", "\u202e\u202c", "\x00\x07\x1b"),
]
SPOKEN = [
    *("a", "Ä", "7", "½", "²", "Ⅷ", "①", "٣", "二", "日", "あ", "한", "ﬁ", "ß", "ª", "क", "ส", "م", "ש", "𝐇"),
    *("50 %", "5 €", "1\ufe0f\u20e3", "🙂 ok", "...no", "**b**", "e\u0301", "क्षि", "\u200bx\u200b", "\u3164가"),
]


@pytest.mark.parametrize("text", SILENT, ids=ascii)
def test_nothing_to_speak(text: str) -> None:
    assert not is_speakable(text)


@pytest.mark.parametrize("text", SPOKEN, ids=ascii)
def test_a_letter_or_digit_is_spoken(text: str) -> None:
    assert is_speakable(text)
