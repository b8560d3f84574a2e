"""The golden texts: what is written, and what every voice is asked to say."""

from pathlib import Path

from tts.text.lexicon import Lexicon, LexiconLayer, Replacement
from tts.text.spoken_form import Pronunciation

LEXICON = (
    Replacement("Siobhan", "Shivawn"),
    Replacement("Saoirse", "Seersha"),
    Replacement("Saoirse Byrne", "Seersha Burn"),
    Replacement("O'Neill", "Oh Neel"),
    Replacement("Metformin", "met for min"),
    Replacement("Metoprolol", "meto pro lol"),
    Replacement("St. John's Wort", "Saint Johns wurt"),
    Replacement("PRN", "as needed, PRN,", match_case=True),
)


def golden(language: str) -> list[tuple[str, str]]:
    """The pairs of a language, from the file with two lines for each pair and an empty line behind it."""
    text = Path(__file__).with_name(f"golden_{language}.txt").read_text()
    return [(written, spoken) for written, spoken in (pair.split("\n") for pair in text.strip().split("\n\n"))]


def pronunciation(language: str) -> Pronunciation:
    return Pronunciation(language, Lexicon((LexiconLayer(LEXICON),)))
