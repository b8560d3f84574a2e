"""Audio tags such as `[laughs]`: some models of the provider perform them, every other voice reads them aloud. Pure.

A tag is a pair of square brackets around one to six words, of which at least one is in the list below. Upper and lower
case are the same. All other brackets are text: `[1]`, `[see page 3]`, an unknown word, and a bracket that is never
closed. So a footnote is not lost, and an unknown tag is read aloud as its words.
"""

import re

MAX_TAG_LENGTH = 60
"""The characters between the brackets of the longest tag."""

_MOODS = """
laugh laughs laughing laughter chuckle chuckles chuckling giggle giggles giggling snicker snickers wheezing sigh
sighs sighing exhale exhales inhale inhales breath breathes breathing gasp gasps gasping gulp gulps swallows cough
coughs coughing sneeze sneezes sniff sniffs sniffles sob sobs sobbing cry cries crying weeping whisper whispers
whispering whispered shout shouts shouting yells yelling screams screaming murmurs murmuring mumbles mumbling
mutters hums humming sings singing snorts groans groaning moans yawns yawning tsk hmm clears happy happily happier
sad sadly angry angrily annoyed excited excitedly curious curiously sarcastic sarcastically mischievously
mischievous cheerful cheerfully joyful joyfully warmly warm gently gentle softly soft tender tenderly calm calmly
reassuring reassuringly nervous nervously hesitant hesitantly hesitates worried surprised amazed amused thoughtful
thoughtfully serious seriously sympathetic sympathetically playful playfully tired sleepily proud proudly resigned
deadpan flatly dramatic dramatically accent impressed delighted disappointed frustrated appalled
"""
_PACE_AND_SOUNDS = """
pause pauses beat rushed slowly quickly quietly loudly drawn stammers stammering interrupting overlapping applause
clapping claps gunshot explosion footsteps creaks woo fart music
"""
_GERMAN = """
lacht lachend kichert kichernd schmunzelt seufzt seufzend flüstert flüsternd ruft schreit weint weinend hustet
räuspert gähnt summt singt schluchzt atmet pausiert fröhlich traurig aufgeregt neugierig sanft leise nervös
"""
_WORDS = frozenset(f"{_MOODS} {_PACE_AND_SOUNDS} {_GERMAN}".split())
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_SHAPE = re.compile(rf" *{_WORD.pattern}(?: {_WORD.pattern}){{0,5}} *")
_STARTS_WITH_MARK = re.compile(r"[.,;:!?…%)\]}»”]")


def is_tag(content: str) -> bool:
    """Whether the text between a pair of square brackets makes them an audio tag."""
    if len(content) > MAX_TAG_LENGTH or _SHAPE.fullmatch(content) is None:
        return False
    return not _WORDS.isdisjoint(word for found in _WORD.findall(content.lower()) for word in found.split("-"))


def strip_tags(text: str) -> str:
    """Returns the text without audio tags. No tag is left, also if tags are nested. Linear in the length of the text.

    One space stays between the words around a tag. Inside a word nothing stays, so "won[laughs]derful" is one word.
    """
    if "]" not in text or "[" not in text:
        return text
    kept = ""
    parts = text.split("]")
    for number in range(len(parts) - 1):
        kept += parts[number]
        start = kept.rfind("[", max(len(kept) - MAX_TAG_LENGTH - 1, 0))
        if start < 0 or not is_tag(kept[start + 1 :]):
            kept += "]"
            continue
        kept, rest = kept[:start], parts[number + 1]
        if not kept or kept[-1].isspace():
            if not rest and number == len(parts) - 2:
                kept = kept.rstrip()
            elif _STARTS_WITH_MARK.match(rest):
                kept = kept.rstrip(" ")
            else:
                parts[number + 1] = rest.lstrip(" ")
        elif rest and not (rest[0].isspace() or _STARTS_WITH_MARK.match(rest)):
            is_inside_word = kept[-1].isalpha() and rest[0].islower()
            kept += "" if is_inside_word or rest[0] == "[" else " "
    return kept + parts[-1]
