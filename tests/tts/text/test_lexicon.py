"""The lexicon replaces whole words, once, the longest and most specific entry first."""

import time

import pytest

from tts.text.lexicon import Lexicon, LexiconLayer, Replacement


def say(text: str, *layers: list[Replacement]) -> str:
    return "".join(part for part, _ in Lexicon(tuple(map(LexiconLayer, layers))).parts(text))


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("Metformin and metoprolol", "MET and PROL"),
        ("Metformine, Dimetformin, Metformin2, Metformin_x", "Metformine, Dimetformin, Metformin2, Metformin_x"),
        ("Metformin-Ratiopharm (Metformin) Metformin's", "MET-Ratiopharm (MET) MET's"),
        ("Metformin XR, Metformin\n  xr and Metformin X", "SLOW, SLOW and MET X"),
        ("O’Neill and O'NEILL", "ONE and ONE"),
        ("ASS but not ass", "ACID but not ass"),
        ("Cafe\u0301 or Café", "KAFFEE or KAFFEE"),
        ("Cafe\u0301\u0323 stays", "Café\u0323 stays".replace("é\u0323", "ẹ\u0301")),
        ("St. John's Wort. St. John", "WORT. St. John"),
        ("İ Metformin İ", "İ MET İ"),
        ("", ""),
    ],
)
def test_whole_words(text: str, spoken: str):
    entries = [
        Replacement("Metformin", "MET"),
        Replacement("Metoprolol", "PROL"),
        Replacement("Metformin XR", "SLOW"),
        Replacement("O'Neill", "ONE"),
        Replacement("ASS", "ACID", match_case=True),
        Replacement("Café", "KAFFEE"),
        Replacement("St. John's Wort", "WORT"),
    ]
    assert say(text, entries) == spoken


def test_patient_over_clinic_over_global_and_the_longest_first():
    everywhere = [Replacement("Ann Lee", "both"), Replacement("Ann", "global"), Replacement("tea", "T")]
    clinic = [Replacement("Ann", "clinic")]
    patient = [Replacement("ann", "patient")]
    assert say("Ann, tea", patient, clinic, everywhere) == "patient, T"
    assert say("Ann, tea", [], clinic, everywhere) == "clinic, T"
    assert say("Ann Lee", patient, clinic, everywhere) == "both"


def test_an_entry_that_contains_itself_does_not_loop():
    assert say("A A B", [Replacement("A", "A A B"), Replacement("B", "A")]) == "A A B A A B A"


def test_what_is_not_regular_is_not_a_pattern():
    entries = [Replacement("a(b", "x"), Replacement("C++", "C plus plus"), Replacement("a.*", "y")]
    assert say("a(b C++ abc a.* C", entries) == "x C plus plus abc y C"


def test_10000_entries_take_no_longer_than_one():
    layer = LexiconLayer(Replacement(f"Drug{number}", f"drug {number}") for number in range(10_000))
    lexicon = Lexicon((LexiconLayer(), LexiconLayer(), layer))
    text = "Please take Drug77 with a glass of water, and not Drug10000, because your doctor says so. " * 2
    began = time.perf_counter()
    for _ in range(200):
        said = "".join(part for part, _ in lexicon.parts(text))
    assert "drug 77 " in said
    assert "Drug10000" in said
    assert time.perf_counter() - began < 2
