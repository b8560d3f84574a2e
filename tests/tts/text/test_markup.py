"""What is left of a text: the words, without the signs that only show how they look, and without emoji."""

import pytest

from tts.text.markup import strip_markup

MARKED = [
    ("**Take** the _pill_ *now*, __please__.", "Take the pill now, please."),
    ("***Both*** and ~~none~~", "Both and none"),
    ("**This is bold.", "This is bold."),  # a text is cut into sentences, so one sign can be missing
    ("Still bold.**", "Still bold."),
    ("これは**重要**です", "これは重要です"),
    ("(*softly*) \\*not bold\\*", "(softly) not bold"),
    ("# Today\nRest ## Tomorrow", "Today\nRest Tomorrow"),
    ("- milk\n* bread\n+ [x] tea", "milk\nbread\ntea"),
    ("> Good morning\n> to you", "Good morning\nto you"),
    ("Say `hello`.\n```text\nhello\n```", "Say hello.\n\nhello"),
    ("one\n---\ntwo", "one\n\ntwo"),
    ("***", ""),
    ("My name is ____.", "My name is ."),
    ("| tea | milk |\n|---|---|", "tea , milk"),
    ("[the leaflet](https://example.org/a_(b)) and ![a cat](cat.png)", "the leaflet and a cat"),
    ("See [it][1] and this.[^2]", "See it and this."),
    ("<https://example.org>", "https://example.org"),
    ("Hello <b>dear</b>, <span class='x'>sit</span>!", "Hello dear, sit!"),
    ("one<br>two<br/>three", "one two three"),
    ('<speak>Hello <break time="1s"/>there<prosody rate=slow>!</prosody></speak>', "Hello there!"),
    ('<mstts:express-as style="sad">Oh</mstts:express-as>', "Oh"),
    ("<think>Hm.</think> Yes. <!-- note -->", "Hm. Yes."),
    ("<custom-tag/>Yes", "Yes"),
    ("[laughs][softly] *Hello*. [clears throat] Well.", "[laughs][softly] Hello. [clears throat] Well."),
    ("Good morning! 🙂 How are you?", "Good morning! How are you?"),
    ("Well done👍🏽!", "Well done!"),
    ("tea☕or milk🥛", "tea or milk"),
    ("👩‍⚕️ Your nurse 🏴󠁧󠁢󠁥󠁮󠁧󠁿 is here ❤️.", "Your nurse is here."),
    ("✅ Done: 1️⃣ tablet ⏰", "Done: 1 tablet ⏰"),
    ("🎉🎉", ""),
    ("salt &amp; pepper, 5 &lt; 6", "salt & pepper, 5 < 6"),
]


@pytest.mark.parametrize(("text", "spoken"), MARKED)
def test_markup_is_removed(text: str, spoken: str):
    assert strip_markup(text) == spoken


@pytest.mark.parametrize(
    "text",
    [
        "2 * 3 = 6",
        "2*3*4",
        "2 ** 3 or 2**3",
        "a_b and snake_case_name",
        "I <3 you",
        "5 < 6 and 7 > 3",
        "a<b and c>d",
        "if x <y and y> z",
        "> 5 mg",
        "~5 mg",
        "#1 in C#",
        "AT&T, R&D",
        "x <- y -> z",
        "-5 degrees, 2-3 pills",
        "2 ✖ 500 mg ❶ ♀",
        "क्‍ष నా‌కు می‌خواهم",
        "Hello [sic] there [optional]",
        "a copy &copy that",
        "1. Rest.",
        "Good morning, it is time for your medicine.",
        "",
    ],
)
def test_signs_with_a_meaning_stay(text: str):
    assert strip_markup(text) == text


def test_a_long_text_of_signs_takes_little_time():
    for sign in "*_~`#<>[](|&-\\":
        strip_markup(sign * 5000)
        strip_markup(f"{sign}a " * 2000)
    strip_markup("<a " * 2000)
    strip_markup("<a>" * 2000)
