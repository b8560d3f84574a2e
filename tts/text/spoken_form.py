"""From the written text to what a voice is asked to say. Pure.

The same text is sent to every voice: live, backup, offline and for the phrase cache. Transcripts keep the written text.
This is done for each segment, after the cut: so a text has the same spoken form whether it is complete or still being
written, and the first sentence does not wait for the text behind it.
"""

import re
from dataclasses import dataclass, field

from tts.text import dates_and_times, phone_numbers, quantities
from tts.text.lexicon import Lexicon
from tts.text.markup import strip_markup
from tts.text.tags import is_tag, strip_tags

MAX_SPOKEN_LENGTH = 2000
"""No model takes less. A spoken form that the lexicon makes longer is made without the lexicon."""

_LANGUAGES = frozenset({"en", "de"})
_HAS_NUMBER = re.compile(r"[\d½¼¾⅓⅔]")
_BRACKETS = re.compile(r"(\[[^\[\]]*\])")


@dataclass(frozen=True, slots=True)
class Pronunciation:
    """How the texts of a conversation are said. `language` is an ISO 639-1 code.

    Markup and emoji are removed in every language. Numbers are written out in English and German. Other languages have
    rules for that which depend on the noun, and the voices read their digits.
    """

    language: str
    lexicon: Lexicon = field(default_factory=Lexicon)

    def spoken(self, written: str) -> str:
        """Returns the spoken form of a segment, with its audio tags."""
        text = strip_markup(written)
        spoken = self._say(text, self.lexicon)
        return spoken if len(spoken) <= max(MAX_SPOKEN_LENGTH, len(text)) else self._say(text, Lexicon())

    def plain(self, written: str) -> str:
        """Returns the spoken form without audio tags, for a voice that does not perform them, and for the cache."""
        return strip_tags(self.spoken(strip_tags(written)))

    def _say(self, text: str, lexicon: Lexicon) -> str:
        if "[" not in text:
            return self._say_words(text, lexicon)
        parts = _BRACKETS.split(text)
        return "".join(part if is_tag(part[1:-1]) else self._say_words(part, lexicon) for part in parts)

    def _say_words(self, text: str, lexicon: Lexicon) -> str:
        return "".join(part if is_said else self._write_out(part) for part, is_said in lexicon.parts(text))

    def _write_out(self, text: str) -> str:
        if self.language not in _LANGUAGES or _HAS_NUMBER.search(text) is None:
            return text
        text = dates_and_times.write_out(text, self.language)
        text = phone_numbers.write_out(text, self.language)
        return quantities.write_out(text, self.language)
