"""Whether a text has anything to speak. Pure."""

import re

# Letters and digits of Unicode (categories L and N), also "½", "二" and "Ⅷ". Four Hangul fillers are letters without
# sound and shape, and U+2139 is an emoji.
_SPEAKABLE = re.compile("[^\\W_\u115f\u1160\u3164\uffa0\u2139]")


def is_speakable(text: str) -> bool:
    """Whether the text has a letter or a digit, of any script.

    Punctuation, symbols ("%", "€"), emoji, combining marks and invisible characters are spoken only together with a
    letter or digit. To a text of these alone, a provider answers with an error or with silence, so it is never
    requested.
    """
    return _SPEAKABLE.search(text) is not None
