"""The segmenter: properties of every text, and tables of texts in the patients' languages."""

import re
import unicodedata
from itertools import accumulate, pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tts.text.segmenter import MAX_LENGTH, MIN_LENGTH, Segmenter, normalise, split

PHRASES = {"Yes.", "How are you?", "I'm here with you.", "おはようございます。", "Good night. Sleep well."}
FAMILY = "👩\u200d👩\u200d👧"


def streamed(text: str, language: str = "en", *, step: int = 1) -> list[str]:
    segmenter = Segmenter(language, PHRASES)
    pieces = [text[place : place + step] for place in range(0, len(text), step)]
    return [segment for piece in pieces for segment in segmenter.feed(piece)] + segmenter.finish()


def spoken_length(segment: str) -> int:
    """The length from the first letter or digit to the last, or 0 if there is none."""
    places = [place for place, sign in enumerate(segment) if sign.isalnum()]
    return places[-1] - places[0] + 1 if places else 0


def cuts(text: str, segments: list[str]) -> list[tuple[str, str]]:
    """The two characters around every cut."""
    ends = [sum(map(len, segments[:count])) for count in range(1, len(segments))]
    return [(text[end - 1], text[end]) for end in ends]


building_blocks = st.sampled_from(
    [
        *"aÉ1 .!?…,;:-—\n\"'”“«»()।。、؟،ক",
        *("e\u0301", "क्षि", FAMILY, "👍🏽", "🇩🇪", "🙂", "\u1112\u1161\u11ab", "\r\n", "\u200b", "\u00a0"),
        *("<", ">", '<break time="1s"/>', '<b title="Dr. No! Ok. ">', "1. ", "\n2. "),
        *("Dr. ", "z. B. ", "2.5 mg ", "Yes. ", "How are you? ", "and so it went on, ", "x" * 70, "words " * 12),
        "日本語の文章です",
    ]
)
texts = st.one_of(st.text(max_size=700), st.lists(building_blocks, max_size=120).map("".join))
exhaustive = settings(max_examples=200)

HOSTILE = [
    "a" + "\u0301" * 4999,
    "Hi " + "x" * 4000 + " end",
    "x" * 5000,
    "." * 5000,
    "a" + "." * 4998 + "b",
    "a" + "\n" * 4998 + "b",
    " " * 4998 + "hi",
    "A. " * 1666,
    "Yes. " * 1000,
    "a, " * 1666,
    "あ。" * 2500,
    "क्" * 2500,
    "🇩🇪" * 2500,
    "👩\u200d" * 2500,
    ("a" * 301 + " " * 30) * 15,
    "A. " * 100 + "." * 4000 + "b" * 600,
    "\ud800 lone surrogate",
]


@exhaustive
@given(texts)
@example("Hello 。。" + "a" * 400)
def test_the_joined_segments_are_the_text(text: str):
    assert "".join(split(text, "en", PHRASES)) == text


@exhaustive
@given(texts, st.lists(st.integers(1, 60), max_size=40))
def test_segments_do_not_depend_on_the_pieces_of_the_text(text: str, sizes: list[int]):
    segmenter, place, segments = Segmenter("en", PHRASES), 0, []
    for size in sizes:
        segments += segmenter.feed(text[place : place + size])
        place += size
    segments += segmenter.feed(text[place:]) + segmenter.finish()
    assert segments == streamed(text)
    if normalise(text) not in PHRASES:
        assert segments == split(text, "en", PHRASES)


@exhaustive
@given(texts)
def test_each_segment_has_something_to_speak_and_is_not_too_long(text: str):
    segments = split(text, "en", PHRASES)
    assert all(0 < spoken_length(segment) <= MAX_LENGTH for segment in segments) or segments in ([], [text])
    assert all(spoken_length(segment) <= MAX_LENGTH for segment in segments)


@exhaustive
@given(texts)
def test_only_phrases_their_predecessors_cuts_and_the_last_segment_are_short(text: str):
    segments = split(text, "en", PHRASES)
    for segment, following in pairwise(segments):
        short = len(segment.strip()) < MIN_LENGTH
        before_long = len(segment.rstrip()) + len(following.split()[0]) > MAX_LENGTH
        assert not short or {normalise(segment), normalise(following)} & PHRASES or before_long


@exhaustive
@given(texts)
def test_no_cut_splits_a_letter_and_its_marks_or_an_emoji(text: str):
    for previous, following in cuts(text, split(text, "en", PHRASES)):
        assert not unicodedata.category(following).startswith("M")
        assert previous != "\u200d" or following.isalnum()
        assert following not in "\u200d🏽\u1161\u11ab"


@exhaustive
@given(texts)
def test_no_cut_is_inside_a_tag(text: str):
    ends = list(accumulate(map(len, split(text, "en", PHRASES))))[:-1]
    tags = [match.span() for match in re.finditer(r"</?[A-Za-z!][^<>]{0,150}>", text)]
    assert not [(text[start:end], cut) for start, end in tags for cut in ends if start < cut < end]


@pytest.mark.parametrize("opener", ["<", "<b", "</b", "<!--", "a < b and "])
def test_a_tag_that_is_not_closed_holds_the_text_back_for_200_characters_at_most(opener: str):
    sentence = "This is a sentence of more than forty characters. "
    segments = split(f"Oh. {opener} {sentence * 10}", "en", PHRASES)
    assert len(segments) >= 6
    assert segments[-1] == sentence
    assert len(segments[0]) <= 300


@pytest.mark.parametrize(
    "marked",  # a bar marks the end of a segment
    [
        'I will wait here until you are ready, dear. <break time="1.5 s. Or"/> Now lift your arm, please. |And down.',
        'I will say it to you as <say-as interpret-as="x. Y! Z? A">a word of its own</say-as>. |Then we go on.',
        'I will wait until you are ready, my dear friend. |<Break Time="1 s. Or. More"/>Now lift your left arm.',
        "I will say it <emphasis level='strong. Very'>with emphasis. |Really</emphasis> to you. And then we stop.",
    ],
)
def test_a_mark_in_a_tag_ends_no_sentence(marked: str):
    text = marked.replace("|", "")
    assert split(text, "en", PHRASES) == streamed(text) == marked.split("|")


def test_a_long_sentence_is_not_cut_in_a_tag():
    words = "many words " * 26
    text = f'{words}<break time="1.5s" strength="strong"/> {words}'
    segments = split(text, "en", PHRASES)
    assert "".join(segments) == text
    assert [segment.count("<") == segment.count(">") for segment in segments] == [True] * len(segments)


@pytest.mark.parametrize("length", range(30, 48))
@pytest.mark.parametrize("number", ["1", "2", "12", "999", "**3", "(4", "2.1", "10.2.3", "iv", "VIII"])
@pytest.mark.parametrize("between", ["\n", " ", "\n\n", "\r\n- "])
def test_the_number_of_a_list_belongs_to_the_sentence_after_it(length: int, number: str, between: str):
    text = f"1. {'x' * (length - 4)}.{between}{number}. Rest in bed until noon. Then have some soup."
    segments = split(text, "en", PHRASES)
    assert segments == streamed(text)
    assert not [segment for segment in segments if segment.strip().strip("*(-\n ").endswith(f"{number}.".lstrip("*("))]


@pytest.mark.parametrize(
    ("text", "segments"),
    [
        ("The whole house was built long ago in the year 12. It is still there.", 2),
        ("I counted all of the flowers: there were forty and 2. Then it rained.", 2),
        ("The doctor is coming to see you today at half past 8.30. Then we eat.", 2),
        ("The king who had all of these six wives was Henry VIII. Then she left.", 2),
    ],
)
def test_a_number_at_the_end_of_a_sentence_ends_it(text: str, segments: int):
    assert len(split(text, "en", PHRASES)) == segments


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("en", "Maj Ave Cmdr Gov Blvd Sen Jr Adm Insp Inc"),
        ("de", "Hrn Pfr med Fam"),
        ("es", "Gral Pdte Prof Pza"),
        ("fr", "Cdt Pr Blvd Col"),
        ("it", "Gen Magg Rag p.zza"),
        ("pt", "Profa Gen Trav"),
        ("nl", "Mej Fam Ds Kol"),
        ("pl", "Hab Gen Płk"),
        ("ru", "Ген Инж Просп"),
    ],
)
def test_an_abbreviation_before_a_name_ends_no_sentence(language: str, words: str):
    for word in words.split():
        text = f"Abcdefgh ijklmnop qrstuvw xyzabcd ef {word}. Smith abcdefg hijklm nopqrs tuvwxyz abcdefghi."
        assert split(text, language, PHRASES) == [text]


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("de", "Das ist genau das Essen, das ich am liebsten mag. Und Sie?"),
        ("nl", "Het is een mooie jas, die u ook nog heel goed past. Toch?"),
        ("pl", "Proszę teraz usiąść i spokojnie wziąć swój lek. Dobrze?"),
    ],
)
def test_a_word_that_is_also_an_abbreviation_ends_a_sentence(language: str, text: str):
    assert len(split(text, language, PHRASES)) == 2


@exhaustive
@given(texts)
def test_normalising_twice_changes_nothing(text: str):
    assert normalise(normalise(text)) == normalise(text)


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:12]))
def test_hostile_texts(text: str):
    segments = split(text, "de", PHRASES)
    assert "".join(segments) == text
    assert streamed(text, "de", step=7) == segments
    assert all(spoken_length(segment) <= MAX_LENGTH for segment in segments)


@pytest.mark.parametrize("text", ["", "…", "?! ... \n\n 🙂", "🙂" * 500, "." * 5000])
def test_a_text_without_letter_or_digit_is_one_segment(text: str):
    assert split(text, "en", PHRASES) == ([text] if text else [])
    assert streamed(text) == ([text] if text else [])


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("  How   are\n you?\u00a0", "How are you?"),
        ("I’m here with you.", "I'm here with you."),
        ("Cafe\u0301", "Café"),
    ],
)
def test_the_normal_form(text: str, normal: str):
    assert normalise(text) == normal


@pytest.mark.parametrize(
    ("text", "segments"),
    [
        ("Yes. How are you?", ["Yes. ", "How are you?"]),
        ("Oh. How are you? Well.", ["Oh. ", "How are you? ", "Well."]),
        ("I’m here  with you. Yes.", ["I’m here  with you. ", "Yes."]),
        ("Oh yes. I see. How are you? I said.", ["Oh yes. I see. ", "How are you? ", "I said."]),
        ('"How are you?" he said.', ['"How are you?" he said.']),
        ("How are you? she asked.", ["How are you? she asked."]),
        ("How are you, my friend?", ["How are you, my friend?"]),
        ("おはようございます。元気ですか。", ["おはようございます。", "元気ですか。"]),
        ("\nYes.\n\nHow are you?\n", ["\nYes.\n\n", "How are you?\n"]),
    ],
)
def test_a_known_phrase_is_a_segment_of_its_own(text: str, segments: list[str]):
    assert split(text, "en", PHRASES) == streamed(text) == segments


def test_a_phrase_of_several_sentences_is_found_in_a_complete_text():
    phrases = {"It is time for your medicine now, dear Anna. Please take it with a full glass of water."}
    text = phrases.copy().pop()
    assert split(f" {text}", "en", phrases) == [f" {text}"]
    segmenter = Segmenter("en", phrases)
    assert segmenter.feed(text) == ["It is time for your medicine now, dear Anna. "]


SENTENCES = [  # a bar marks the end of a segment
    ("en", "Dr. Smith is coming to see you today at about 8 a.m. on Jan. 3rd. |Take 2.5 mg of it, e.g. with tea."),
    ("en", "See www.example.org or ask Mrs. J. R. Brown for the leaflet. |Then rest."),
    ("en", 'She said "I will come to see you tomorrow morning." |Then she left the room… And “why not?” he asked.'),
    ("en", '(It was really quite late in the evening by then.) |"Good night," she said, and went.'),
    ("en", "I am very glad that you came to see me today. 🙂 |And you?"),
    ("en", "Here is the plan for your day, my dear friend:\n\n|- Breakfast at eight\n- A walk in the garden\n\n|Bye."),
    ("en", "Please do remember **the following three things.** |**1.** Take the tablets. 2. Drink water."),
    ("en", "Are you really quite sure about all of that?! |I am not so very sure about it all myself... |But fine."),
    ("en", "It is planned for Tuesday, appointment no. 5, on Sat. 4 May. |No. I do not think so."),
    ("en", "we write without capitals here, do we not? yes. we always do. all of us."),
    (
        "de",
        "Am 3. Oktober kommt Dr. Müller zu Ihnen nach Hause. |Trinken Sie z. B. Tee, bzw. Wasser, ca. 2 Gläser. |Gut?",
    ),
    ("de", "Er sagte: „Ich komme morgen früh noch zu Ihnen.“ |„Bis morgen.“ Danke schön und auf Wiedersehen!"),
    ("es", "¿Cómo está usted hoy, señora García López? |¡Qué alegría! La Sra. Pérez vendrá mañana a las diez. |¿Y?"),
    (
        "fr",
        "« Comment allez-vous aujourd’hui, mon ami ? » |Mme Dupont viendra demain avec M. Durand à midi. |« Bien ! »",
    ),
    ("it", "Il dott. Rossi verrà domani con la sig.ra Bianchi. |È contento?"),
    ("pt", "A Sra. Silva vem amanhã às 10.30 com o Dr. Souza. |Está bem?"),
    ("nl", "Mevr. De Vries komt morgen om tien uur bij u langs. |Is dat goed?"),
    ("pl", "Spotkanie z prof. Nowakiem jest 3. Maja o godz. 10 rano. |Czy to dobrze?"),
    ("ru", "Здравствуйте! Как вы себя чувствуете, Иван? |Приём у проф. Иванова на ул. Ленина в 10.30. |До встречи!"),
    ("ja", "今日はとても良い天気ですね。一緒に散歩に行きませんか？それともお茶を飲みますか？|薬を飲みましたか。"),
    ("ja", "「今日はとても良い天気ですから、一緒に近くの公園まで散歩に行きませんか、お母さん？」|「はい。」"),
    ("zh", "今天天气很好，我们一起去公园散步好吗？医生说你需要多走走，多呼吸新鲜空气，多喝水。|“好的。”"),
    ("hi", "नमस्ते, आज आप कैसे हैं? मैं आपसे मिलकर बहुत खुश हूँ। |क्या आपने दवा ली?"),
    ("ar", "مرحبا، كيف حالك اليوم يا صديقي العزيز الغالي؟ |هل تناولت الدواء؟"),
    ("ko", "네. 오늘은 날씨가 아주 좋으니까 우리 둘이 같이 가까운 공원에 산책하러 갈까요? |네."),
]


@pytest.mark.parametrize(("language", "marked"), SENTENCES)
def test_sentences(language: str, marked: str):
    text, segments = marked.replace("|", ""), marked.split("|")
    assert split(text, language, PHRASES) == streamed(text, f"{language}-XX") == segments


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("word " * 200, "word " * 60),
        ("x" * 1000, "x" * MAX_LENGTH),
        ("x" * 200 + " " + "y" * 400, "x" * 200 + " "),
        ("many words " * 15 + "here, " + "and more of them " * 20, "many words " * 15 + "here, "),
        ("many words " * 15 + "– " + "and more of them " * 20, "many words " * 15 + "– "),
        ("many words—" * 40, "many words—" * 27),
        ("well, " + "and more of them " * 20, "well, " + "and more of them " * 17 + "and "),
        ("今日はとても良い天気、" * 40, "今日はとても良い天気、" * 27),
        ("صباح الخير، " * 40, "صباح الخير، " * 25),
        ("a" * 200 + "e\u0301" * 200, "a" * 200 + "e\u0301" * 50),
        ("a" * 299 + FAMILY + "a" * 99, "a" * 299),
        ("a" * 297 + "🇩🇪🇩🇪" + "a" * 99, "a" * 297 + "🇩🇪"),
    ],
)
def test_a_long_sentence_is_cut_at_a_clause_or_a_space_or_between_characters(text: str, first: str):
    assert split(text, "en", PHRASES)[0] == first


def test_a_long_sentence_after_a_short_one_is_joined_and_then_cut():
    text = "Oh no. " + "you see, it went on and on and on and on, " * 7 + "to the end."
    assert len(text) > MAX_LENGTH
    segments = split(text, "en", PHRASES)
    assert segments == streamed(text)
    assert segments[0] == "Oh no. " + "you see, it went on and on and on and on, " * 7
    assert segments[1:] == ["to the end."]


def test_five_thousand_characters_without_punctuation():
    text = "and then we went on " * 250
    segments = split(text, "en", PHRASES)
    assert "".join(segments) == text
    assert {len(segment) for segment in segments} == {MAX_LENGTH, 200}


def test_a_sentence_is_returned_with_the_first_letter_of_the_next():
    segmenter = Segmenter("en", PHRASES)
    sentence = "I hope that you have slept well tonight. "
    assert segmenter.feed(sentence) == []
    assert segmenter.feed('"') == []
    assert segmenter.feed("D") == [sentence]
    assert segmenter.feed("id you dream?") == []
    assert segmenter.finish() == ['"Did you dream?']


def test_a_phrase_is_returned_with_the_first_letter_of_the_next_sentence():
    segmenter = Segmenter("en", PHRASES)
    assert segmenter.feed("How are you? ") == []
    assert segmenter.feed("I") == ["How are you? "]


@pytest.mark.parametrize(
    ("text", "out"),
    [
        ("This sentence is long enough to stand alone.", True),
        ("This sentence is long enough to stand alone? ", True),
        ("Yes. This sentence is long enough to stand alone!\n", True),
        ("「この文はとても長いので、ひとりで立つことができます。ですから、ここで待つことはありません。」", True),
        ("How are you?", True),
        ("It is short.", False),
        ("This sentence is long enough but it has not ended", False),
        ("This sentence is long enough, but then comes a comma,", False),
        ("This sentence is long enough, and then you see Dr.", False),
        ("This sentence is long enough, and then it is on p. ", False),
        ("This sentence is long enough, and then it says e.g. ", False),
        ("Please take the tablets with water: they have 2.", False),
        ("... ... ... ... ... ... ... ... ... ... ... ... ...", False),
        ("", False),
    ],
)
def test_a_pause_returns_a_sentence_that_is_long_enough(text: str, out: bool):
    segmenter = Segmenter("en", PHRASES)
    segments = segmenter.feed(text)
    assert ("".join([*segments, *segmenter.pause()]) == text and text != "") is out
    assert segmenter.pause() == []


@exhaustive
@given(texts, st.sets(st.integers(0, 700)))
def test_pauses_lose_only_punctuation_at_the_end(text: str, pauses: set[int]):
    segmenter = Segmenter("en", PHRASES)
    segments = []
    for place, letter in enumerate(text):
        segments += segmenter.feed(letter)
        segments += segmenter.pause() if place in pauses else []
    segments += segmenter.finish()
    said = "".join(segments)
    assert text.startswith(said)
    assert spoken_length(text[len(said) :]) == 0
    assert all(spoken_length(segment) for segment in segments) or segments in ([], [text])
    assert all(spoken_length(segment) <= MAX_LENGTH for segment in segments)


def test_finishing_twice_returns_the_rest_once():
    segmenter = Segmenter("en", PHRASES)
    assert segmenter.feed("How are you?") + segmenter.finish() + segmenter.finish() == ["How are you?"]


def test_text_without_sentence_ends_is_returned_when_it_is_too_long():
    segmenter = Segmenter("en", PHRASES)
    assert segmenter.feed("word " * 60) == []
    assert segmenter.feed("w") == ["word " * 60]
