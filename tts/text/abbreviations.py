"""Abbreviations whose full stop does not end a sentence, by language."""

from collections.abc import Mapping


def _words(table: Mapping[str, str]) -> dict[str, frozenset[str]]:
    return {language: frozenset(words.split()) for language, words in table.items()}


# Abbreviations that come before a capital letter or a digit. Before a small letter no full stop ends a sentence anyway.
ABBREVIATIONS = _words(
    {
        "": "dr prof mr mrs",
        "en": "ms mx st rev hon gen col capt lt sgt messrs mt vs",
        "de": "hr fr frl st bzw ca evtl ggf inkl vgl sog str geb tägl zzgl dipl ing mind",
        "es": "sr sra srta sres dña dra ud uds vd lic ing av avda ee uu",
        "fr": "mm mme mmes mlle me mgr st ste av bd",
        "it": "sig sigg sig.ra sig.na dott dott.ssa prof.ssa ing avv on spett",
        "pt": "sr sra srs dra exmo exma av eng",
        "nl": "dhr mevr mw drs ir ing st bijv evt incl",
        "pl": "inż mgr ul al św np tzw",
        "ru": "ул им проф акад доц тов гр",
    }
)


BEFORE_DIGITS = _words(  # abbreviations only if a digit follows
    {
        "": "no nr pp vol fig art tel ext approx ca",
        "en": "jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thurs fri sat sun rm ch",
        "de": "abs kap bd min max jan feb apr aug sept okt nov dez",
        "es": "núm pág aprox",
        "fr": "env chap",
        "pt": "núm pág aprox",
        "nl": "blz hfst",
        "pl": "godz str",
        "ru": "стр гл тел",
    }
)


# Languages that write ordinal numbers with a full stop.
DOT_MAKES_ORDINAL = "bs cs da de et fi hr hu is lv nb nn no pl sk sl sr tr"
