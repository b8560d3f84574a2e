"""Removes what has no sound: the markup of Markdown, HTML and SSML, and emoji. Pure.

Signs with a meaning are kept: `2 * 3`, `a_b`, `<3`, `5 < 6`, `#1`, `~5 mg`, and audio tags (`tts.text.tags`).
"""

import html
import re

from tts.text.tags import is_tag

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

# A sign of emphasis touches a word on one side only, or there are several signs that are not between numbers.
_EMPHASIS = re.compile(
    r"(?<![\w*])[*_]+(?=[^\s*_])|(?<=[^\s*_])[*_]+(?![\w*])"
    r"|(?<!\d)(?<!\d )(?:\*{2,}|_{2,}|~{2,})|(?:\*{2,}|_{2,}|~{2,})(?! ?\d)"
)
_BACKTICKS = re.compile(r"`+")
_ESCAPE = re.compile(r"\\(?=[\\`*_{}\[\]()#+.!|<>~-])")
_SPACES = re.compile(r"[ \t]{2,}")

# Pictures of Unicode, without signs that stand for a letter, a digit or a calculation, such as "❶", "🅰" and "✖". A
# joiner, a variation selector and the frame of a keycap belong to the picture beside them. The sign for a sex is a
# part of a picture only behind a joiner.
_PICTURE = (
    "[\U0001f000-\U0001f0ff\U0001f1e6-\U0001f1ff\U0001f300-\U0001faff\u2600-\u263f\u2641\u2643-\u2714\u2717-\u2775"
    "\u2798-\u27bf\u2b05-\u2b07\u2b1b\u2b1c\u2b50\u2b55]"
)
_EMOJI = re.compile(
    rf"[ \t]*(?:{_PICTURE}(?:[\ufe0e\ufe0f\U000e0020-\U000e007f]|\u200d[\u2640\u2642]|\u200d(?={_PICTURE}))*[ \t]*)+"
)
_EMOJI_MARK = re.compile("[\ufe0e\ufe0f\u20e3\U000e0020-\U000e007f]")
_MAYBE_EMOJI = re.compile("[\u20e3\u2600-\u27bf\u2b05-\u2b55\ufe0e\ufe0f\U0001f000-\U0001faff\U000e0020-\U000e007f]")


def strip_markup(text: str) -> str:
    """Returns the text without its markup and emoji. A text without any is returned unchanged."""
    if _MAYBE_EMOJI.search(text) is not None:
        text = _EMOJI_MARK.sub("", _EMOJI.sub(_in_place_of_emoji, text))
    if _SIGN.search(text) is None:
        return text
    before = text
    text = _RULE.sub("", _FENCE.sub("", text))
    text = _TABLE_ROW.sub(lambda row: row[1].replace("|", ","), text)
    text = _LINE_START.sub("", _QUOTE.sub("", text))
    text = _AUTOLINK.sub(r"\1", _NOTE.sub("", _LINK.sub(_link_text, text)))
    text = _TAG.sub(_between_words, text)
    for pattern in (_HEADING_IN_LINE, _BACKTICKS, _ESCAPE, _EMPHASIS):
        text = pattern.sub("", text)
    text = _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)
    return text if text == before else _SPACES.sub(" ", text).strip()


def _link_text(link: re.Match[str]) -> str:
    """Returns the words of a link. Audio tags in a row, `[laughs][softly]`, are no link."""
    return link[0] if is_tag(link[1]) else link[1]


def _in_place_of_emoji(emoji: re.Match[str]) -> str:
    """Returns a space between two words, and nothing beside white space, before punctuation or at an end."""
    before, after = emoji.string[: emoji.start()][-1:], emoji.string[emoji.end() :][:1]
    return "" if not before or before.isspace() or after.isspace() or after in ".,;:!?…)" else " "


def _between_words(tag: re.Match[str]) -> str:
    """Returns the replacement for a tag: a space if it separates two words, as in `one<br>two`, otherwise nothing."""
    around = tag.string[tag.start() - 1 : tag.start()], tag.string[tag.end() : tag.end() + 1]
    return " " if all(character.isalnum() for character in around) else ""
