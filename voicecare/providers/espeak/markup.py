"""Removes markup, which must not be read aloud: Markdown, HTML, SSML, and stage directions such as `[sighs]`.

Pure. Only the offline voice needs this. The speech provider gets the text unchanged. Signs with a meaning are kept: `2
* 3`, `a_b`, `<3`, `5 < 6`, `#1`, `~5 mg`.
"""

import html
import re

_SIGN = re.compile(r"[*_~`#<>\[\]&|]|^[ \t]*[-+•=]", re.MULTILINE)  # a text without any of them has no markup

# Whole lines and their beginnings.
_FENCE = re.compile(r"^[ \t]*(?:`{3,}|~{3,})[^\n`]*$", re.MULTILINE)
_RULE = re.compile(r"^[ \t]*(?:[-*_=|:][ \t]*){3,}$", re.MULTILINE)
_QUOTE = re.compile(r"^[ \t]*(?:>[ \t]*(?![ \t\d]))+", re.MULTILINE)  # "> 5 mg" is a comparison
_LINE_START = re.compile(r"^[ \t]*(?:#{1,6}[ \t]+|[-*+•][ \t]+(?:\[[ xX]\][ \t]+)?)", re.MULTILINE)
_HEADING_IN_LINE = re.compile(r"(?<!\S)#{2,6}(?!\S)")
_TABLE_ROW = re.compile(r"^[ \t]*\|(.*)\|[ \t]*$", re.MULTILINE)

# Links, and notes at the foot of a page.
_LINK = re.compile(r"!?\[([^\[\]\n]*)\](?:\([^()\n]*(?:\([^()\n]*\)[^()\n]*)*\)|\[[^\[\]\n]*\])")
_NOTE = re.compile(r"\[\^[^\[\]\s]+\]:?")
_AUTOLINK = re.compile(r"<((?:https?|mailto|tel):[^<>\s]+)>")

# Tags: a name of HTML or SSML alone, or any name with attributes, or one that is closed. `a <b and c> d` has no tag.
_NAMES = (
    "a|abbr|audio|b|big|blockquote|body|br|break|center|cite|code|dd|del|div|dl|dt|em|emphasis|font|footer|h[1-6]|head"
    "|header|hr|html|i|img|ins|kbd|lexicon|li|main|mark|nav|ol|p|par|phoneme|pre|prosody|q|s|samp|say-as|section|small"
    "|speak|span|strike|strong|style|sub|sup|table|tbody|td|th|thead|tr|tt|u|ul|var|voice|w"
)
_ATTRIBUTES = r"""(?:\s+[A-Za-z_][\w:.-]*\s*=\s*(?:"[^"<]*"|'[^'<]*'|[^\s"'<>=]+))+"""
_TAG = re.compile(
    r"<!--.*?-->|<[!?][A-Za-z\[][^<>]*>|</\s*[A-Za-z][\w:.-]*\s*>|<([A-Za-z][\w:.-]*)>(?=.*</\1\s*>)"
    rf"|<(?:{_NAMES})\s*/?>|<[A-Za-z][\w:.-]*{_ATTRIBUTES}\s*/?>|<[A-Za-z][\w:.-]*\s*/>",
    re.IGNORECASE | re.DOTALL,
)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z]\w{1,30});")

_DIRECTIONS = (
    "angry|angrily|calm|calmly|cheerful|cheerfully|chuckles?|chuckling|clears throat|coughs?|crying|cries|curious"
    "|excited|excitedly|exhales?|gasps?|gently|giggles?|happy|happily|hums?|inhales?|laughs?|laughing|long pause"
    "|pauses?|quietly|sad|sadly|sarcastic|sarcastically|short pause|shouts?|shouting|sighs?|sighing|sings?|singing"
    "|slowly|sniffs?|softly|thoughtful|thoughtfully|warm|warmly|whispers?|whispering|yawns?"
)
_DIRECTION = re.compile(rf"\[(?:{_DIRECTIONS})\]", re.IGNORECASE)

# A sign of emphasis touches a word on one side only, or there are several signs that are not between numbers.
_EMPHASIS = re.compile(
    r"(?<![\w*])[*_]+(?=[^\s*_])|(?<=[^\s*_])[*_]+(?![\w*])"
    r"|(?<!\d)(?<!\d )(?:\*{2,}|_{2,}|~{2,})|(?:\*{2,}|_{2,}|~{2,})(?! ?\d)"
)
_BACKTICKS = re.compile(r"`+")
_ESCAPE = re.compile(r"\\(?=[\\`*_{}\[\]()#+.!|<>~-])")
_SPACES = re.compile(r"[ \t]{2,}")


def strip_markup(text: str) -> str:
    """Returns the text without its markup. A text without markup is returned unchanged."""
    if _SIGN.search(text) is None:
        return text
    text = _RULE.sub("", _FENCE.sub("", text))
    text = _TABLE_ROW.sub(lambda row: row[1].replace("|", ","), text)
    text = _LINE_START.sub("", _QUOTE.sub("", text))
    text = _AUTOLINK.sub(r"\1", _NOTE.sub("", _LINK.sub(r"\1", text)))
    text = _DIRECTION.sub(" ", _TAG.sub(_between_words, text))
    for pattern in (_HEADING_IN_LINE, _BACKTICKS, _ESCAPE, _EMPHASIS):
        text = pattern.sub("", text)
    text = _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)
    return _SPACES.sub(" ", text).strip()


def _between_words(tag: re.Match[str]) -> str:
    """Returns the replacement for a tag: a space if it separates two words, as in `one<br>two`, otherwise nothing."""
    around = tag.string[tag.start() - 1 : tag.start()], tag.string[tag.end() : tag.end() + 1]
    return " " if all(character.isalnum() for character in around) else ""
