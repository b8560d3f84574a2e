"""Abbreviations whose full stop does not end a sentence, by language."""

from collections.abc import Mapping


def _words(table: Mapping[str, str]) -> dict[str, frozenset[str]]:
    return {language: frozenset(words.split()) for language, words in table.items()}


# Abbreviations that come before a capital letter or a digit. Before a small letter no full stop ends a sentence anyway.
ABBREVIATIONS = _words(
    {
        "": "dr prof mr mrs",
        "en": "ms mx st rev hon gen col capt lt sgt messrs mt vs maj cmdr comdr cdr adm brig cpl pvt pfc gov sen"
        " pres supt insp det atty esq jr sr msgr ave blvd hwy pkwy rd sq dept univ inc ltd corp bros assn",
        "de": "hr fr frl st bzw ca evtl ggf inkl vgl sog str geb tägl zzgl dipl ing mind hrn fam pfr med jur phil"
        " rer nat habil dent vet theol gebr ehem gest verw kgl exkl insb allg tgl tabl tbl pl",
        "es": "sr sra srta sres dña dra ud uds vd lic ing av avda ee uu gral cnel cap cmdte tte sgto gob pdte mons"
        " fray hno hna sto sta prof profa dres arq pza ctra blvd col",
        "fr": "mm mme mmes mlle me mgr st ste av bd mlles mrs dre pr cdt col cap gal lt adj sgt blvd boul pl rte chem",
        "it": "sig sigg sig.ra sig.na dott dott.ssa prof.ssa ing avv on spett gen col cap magg ten serg mons rag geom"
        " arch cav comm sen p.zza v.le c.so egr gent",
        "pt": "sr sra srs dra exmo exma av eng dom srta sras drs gen cel cap maj ten sgt pe profa arq pç trav gov",
        "nl": "dhr mevr mw drs ir ing st bijv evt incl mej fam ds gen kol kapt lt maj gebr burg resp ca",
        "pl": "inż mgr ul al św np tzw hab med płk ppłk gen kpt por mjr sierż ks bp abp ss pl os woj",
        "ru": "ул им проф акад доц тов гр ген полк подп кап инж просп пр пер пл бул св каб",
    }
)


BEFORE_DIGITS = _words(  # abbreviations only if a digit follows
    {
        "": "no nr pp vol fig art tel ext approx ca",
        "en": "jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thurs fri sat sun rm ch apt bldg"
        " ste sec chap para",
        "de": "abs kap bd min max jan feb apr aug sept okt nov dez std zi",
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
