"""The words that free text may keep when it is cleaned of identifying information (PS3.15 E.3.5), and no others.

Which attributes hold such text, and whose names, numbers and dates count as identifying, is decided elsewhere.
"""

import csv
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

_TABLE: Final = Path(__file__).parent / "tables" / "vocabulary.csv"

PLAIN: Final = ""
"""The word stays wherever it stands."""
BESIDE: Final = "beside"
"""It is a name as well, or joins others: it stays unless the word before or after it had to go."""
LOWER: Final = "lower"
"""It is a name as well, but technical in lower case: as BESIDE, and only in lower case."""
NEVER: Final = "never"
"""It is a word of the vocabulary that is left out, for what the table says; it may stay as part of a phrase."""

# ----------------------------------------------------------------------------------------------------------- writing

# Characters that are seen as nothing, and with which a name could be hidden; the first two have other categories.
_UNSEEN: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0") | {chr(c) for c in range(0xFE00, 0xFE10)}
_SAME: Final = {"ß": "ss", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i", "ħ": "h"}
_DECOMPOSED: Final = str.maketrans(_SAME)
_SPELT_OUT: Final = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa"})
_MARKS: Final = frozenset(" -_/+.,;:()[]<>{}&%#*='\"^|!?@~°\t\r\n")
_DASHES: Final = frozenset("‐‑‒–—―−﹣⁃·・")


@lru_cache(8192)
def fold(word: str) -> str:
    """The normal form of a word: no case, no diacritics, no full or half width."""
    if word.isascii():
        return word.lower()
    letters = unicodedata.normalize("NFKD", word.casefold().translate(_DECOMPOSED))
    return unicodedata.normalize("NFC", "".join(letter for letter in letters if not unicodedata.combining(letter)))


@cache
def _ideographic(char: str) -> bool:
    """Whether a character is of a script that sets no spaces between words: Han, Kana, Hangul."""
    return unicodedata.name(char, "").startswith(("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "HALFWIDTH", "IDEOGRAPHIC"))


def _seen(text: str) -> str:
    """Text as it is seen: composed, without characters that show nothing."""
    if text.isascii() and text.isprintable():
        return text
    composed = unicodedata.normalize("NFC", text)
    return "".join(
        char if char in "\t\r\n" or unicodedata.category(char) != "Cc" else " "
        for char in composed
        if char not in _UNSEEN and unicodedata.category(char) != "Cf"
    )


@cache
def _plain(char: str) -> str:
    """One character as ASCII would have it where that's one character: digits, widths, dashes, spaces."""
    if char.isdigit() and (digit := unicodedata.digit(char, -1)) >= 0 and unicodedata.category(char) == "Nd":
        return str(digit)
    if "\uff01" <= char <= "\uff5e":
        return chr(ord(char) - 0xFEE0)
    if char in _DASHES:
        return "-"
    return " " if char.isspace() and char not in "\t\r\n" else {"’": "'", "‘": "'", "×": "x"}.get(char, char)


def _shadow(text: str) -> str:
    """The text by plain characters, each in its place, for all that is told by patterns."""
    return text if text.isascii() else "".join(map(_plain, text))


_WORD: Final = re.compile(r"(?<![^\W_])[wW]/(?:[wW]/?)?[oO](?![^\W_])|[^\W_]+(?:(?<=\d)[.,](?=\d)[^\W_]+)*")


class Word(NamedTuple):
    """A run of letters and digits in a text, decimals in one.

    Attributes:
      start: its place in the text that `words` was given, once that is stripped of characters that show nothing.
      form: its normal form.
    """

    start: int
    stop: int
    form: str


def words(text: str) -> Iterator[Word]:
    """The words and numbers of a text, in order."""
    seen = _seen(text)
    for found in _WORD.finditer(_shadow(seen)):
        yield Word(found.start(), found.end(), fold(seen[found.start() : found.end()]))


# ------------------------------------------------------------------------------------------------------- identifying

_TITLES: Final = frozenset(
    """dr dra drs prof profs professor med mr mrs ms miss mister mme mlle mons monsieur madame docteur doctor sr sra
    srta senor senora senorita sig signor signora dott dottore dottoressa dhr mevr mevrouw meneer herr herrn frau hr fr
    md phd jr ii iii iv dds esq""".split()  # noqa: SIM905
)
_LEAST_NUMBER: Final = 3
"""Characters of an identifier below which it identifies nobody: 1 and 12 are study IDs everywhere."""
_LEAST_PART: Final = 4
_LONGEST_LETTERS: Final = 4
_WIDEST_GAP: Final = 3


def identifying_words(vr: str, value: str) -> set[str]:
    """The normal forms of every word by which a value would be recognised in free text.

    Args:
      vr: of the attribute; PN, DA and DT are read by their own rules, the others as an identifier or a text.
      value: one value; "" identifies nothing.
    """
    if vr == "PN":
        return _names(value)
    if vr in ("DA", "DT"):
        return _dates(value)
    return _identifiers(value)


def _spellings(word: str) -> set[str]:
    """The normal forms of a word, with ä as a and as ae."""
    form, spelt = fold(word), fold(unicodedata.normalize("NFC", word).casefold().translate(_SPELT_OUT))
    return {form, spelt, re.sub("([aou])e", r"\1", spelt)}


def _joined(text: str) -> str:
    """The letters and digits of a text in one."""
    return "".join(char for char in _shadow(_seen(text)) if char.isalnum())


def _names(value: str) -> set[str]:
    """Parts of a person name of two letters or more, whatever their component and group, and a part's own parts."""
    found: set[str] = set()
    for group in value.split("="):
        parts = [part for component in group.split("^") for part in component.split()]
        for part in (*parts, *group.split("^")[:2], "".join(parts[:2]), "".join(parts[1::-1])):
            found |= _spellings(_joined(part))
            for word in words(part):
                found |= _spellings(_shadow(_seen(part))[word.start : word.stop])
    return {name for name in found if name not in _TITLES and (len(name) > 1 or (name and _ideographic(name)))}


def _identifiers(value: str) -> set[str]:
    """An identifier whole, without separators and without leading zeros, and its long parts.

    A part in letters that is an everyday word of the vocabulary identifies nobody: "Heart Center" isn't known by its
    heart.
    """
    parts = {fold(part) for part in re.findall(r"[^\W_]+", _shadow(_seen(value)))}
    long = {part for part in parts if len(part) >= _LEAST_PART and _shipped().get(part, NEVER) not in (PLAIN, BESIDE)}
    whole = fold(_joined(value))
    found = {whole, whole.lstrip("0"), fold(value.strip()), *long, *(part.lstrip("0") for part in long)}
    if not whole.isdigit():
        found |= {run for run in re.findall(r"\d+", whole) if len(run) >= _LEAST_PART}
    for part in long:
        found |= _spellings(part)
    return {form for form in found if len(form) >= _LEAST_NUMBER or any(map(_ideographic, form))}


def _dates(value: str) -> set[str]:
    """A date by its digits as they are usually put together; of month and day alone too, where that isn't ambiguous.

    The other ways to write it aren't words of any vocabulary, and no date stays in a text whosesoever it is.
    """
    read = re.match(r"(\d{4})[.-]?(\d\d)[.-]?(\d\d)", value.strip())
    if not read:
        return set()
    year, month, day = read.groups()
    short, forms = year[2:], set[str]()
    for m in {month, month.lstrip("0")}:
        for d in {day, day.lstrip("0")}:
            for y in (year, short):
                forms |= {y + m + d, d + m + y, m + d + y}
            forms |= {m + d, d + m}
    return {form for form in forms if len(form) >= _LEAST_NUMBER}


# ---------------------------------------------------------------------------------------------------- what never stays

_MONTHS: Final = (
    "jan(?:uary|uar|vier|v|uari|eiro)?|j[äa]n(?:ner|uar)|enero|gennaio|feb(?:ruary|ruar|braio|rero|ruari)?|f[ée]v(?:rier|r|ereiro)?"
    "|mar(?:ch|zo|s|ço)|m[äa]e?rz|maart|mrt|apr(?:il|ile)?|avr(?:il)?|abr(?:il)?|mayo|maggio|mai|maio|june?|juni|juin"
    "|junio|junho|giu(?:gno)?|july?|juli|juill?(?:et)?|julio|julho|luglio|aug(?:ust|ustus)?|ao[ûu]t|agosto|sept?(?:ember|embre)?"
    "|septiembre|settembre|setembro|oct(?:ober|obre)|okt(?:ober)?|octubre|ottobre|outubro|nov(?:ember|embre|iembre|embro)?"
    "|dec(?:ember)|d[ée]c(?:embre)|dez(?:ember|embro)?|dic(?:embre|iembre)"
    "|январ[ья]|феврал[ья]|марта?|апрел[ья]|ма[яй]|июн[ья]|июл[ья]|августа?|сентябр[ья]|октябр[ья]|ноябр[ья]|декабр[ья]"
    "|янв|фев|февр|апр|авг|сент?|окт|нояб?|дек|stycznia|lutego|marca|kwietnia|maja|czerwca|lipca|sierpnia|wrze[śs]nia|pa[źz]dziernika|listopada|grudnia"
)
_MONTHS_TOO: Final = "mar|may|mei|oct|out|ott|dec|d[ée]c|dic|gen|ene|ago|set|mag|lug|fev"
"""Those that are something else as well: reduction of metal artefacts, optical coherence tomography."""
_DAY: Final = r"(?:0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th|er|º|ª)?(?![\d])"
_GAP: Final = r"[\s.,/_-]{0,3}(?:(?:de|of|di)\s)?"
_YEAR: Final = r"(?:'?\d{2}|\d{4})(?![\d.,]*\d)(?:\s?(?:г|року))?"
_AGES: Final = (
    "years?|yrs?|yo|y/o|y|jahre?n?|jähr[a-z]*|ans?|años?|anos?|anni|jaar|лет|год[а]?|lat|let|mos?|monate?|mois|meses|mesi"
    "|maanden|(?:months?|weeks?|days?)[\\s-]old|岁|歲|歳|才|세|살"
)
_NEVER: Final = tuple(
    (hint, re.compile(pattern, re.IGNORECASE))
    for hint, pattern in (
        ("@", r"\S+@\S+"),
        (":", r"(?<![^\W_])(?:https?|ftp):\S*"),
        (".", r"(?<![^\W_])www\.\S+|[\w-]+\.(?:com|org|net|edu|gov|de|fr|es|it|nl|ch|at|uk|eu|jp|cn|kr|ru)\b"),
        ("+", r"\+\d[\d\s()./-]{5,}"),
        ("", rf"(?<![^\W_])(?:{_DAY}{_GAP})?(?:{_MONTHS})(?![^\W\d_])(?:{_GAP}(?:{_DAY})?(?:{_GAP}{_YEAR})?)?"),
        ("", rf"(?<![^\W_]){_DAY}{_GAP}(?:{_MONTHS_TOO})(?![^\W\d_])(?:{_GAP}{_YEAR})"),
        ("", rf"(?<![^\W_])(?:{_MONTHS_TOO})(?![^\W\d_]){_GAP}(?:{_DAY}{_GAP}{_YEAR}|\d{{4}})"),
        (".", r"(?<![^\W_])(?<![.,])(?:0?[1-9]|[12]\d|3[01])\.(?:0?[1-9]|1[0-2])\.(?!\d)"),
        (
            "年년",
            r"(?:令和|平成|昭和|大正|民國|民国)?\s*(?:\d+|元)\s*[年년](?:\s*\d+\s*[月월])?(?:\s*\d+\s*[日号號일])?",
        ),
        ("月월日号號일", r"\d+\s*[月월](?:\s*\d+\s*[日号號일])?|\d+\s*[日号號일]"),
        ("時时시点點分분", r"\d+\s*[時时시点點](?:\s*\d+\s*[分분])?|\d+\s*[分분]"),
        (":hH", r"(?<![^\W_])(?<![.,:])\d{1,2}[:h]\d{2}(?:[:m]\d{2})?(?:[.,]\d+)?(?:\s*(?:am|pm|uhr|h))?(?![^\W_])"),
        ("", r"(?<![^\W_])(?<![.,])\d{1,2}(?:[.:]\d{2})?\s*(?:am|pm|uhr|o'clock)(?![^\W_])"),
        ("", rf"(?<![^\W_])(?<![.,])\d{{1,3}}\s*-?\s*(?:{_AGES})(?![^\W_])"),
        (
            "",
            r"(?<![^\W_])(?<![.,])\d{2,3}(?:[.,]\d)?\s*(?:kg|lbs?)(?![^\W_])|(?<![^\W_])(?<![.,])1\d\d\s*cm(?![^\W_])",
        ),
        ("", r"(?<![^\W_])(?:age|aged|alter|âge|edad|leeftijd|età)\W{1,3}\d{1,3}"),
    )
)
"""Addresses of the Internet, telephone numbers, dates, times of day, ages, weights, heights, whosesoever they are.

Each stands behind characters one of which it needs; "" is any digit.
"""

_AMBIGUOUS_TITLES: Final = frozenset("mr ms sr fr hr sig med ii iii iv jr".split())  # noqa: SIM905
_CREDENTIALS: Final = frozenset("md phd frcr mbbs dds jr".split())  # noqa: SIM905
_LED_BY: Final = frozenset("by par por durch door von attn attention".split())  # noqa: SIM905
_LED_BY_COLON: Final = frozenset(
    """patient patientin paciente paziente patiënt pat pt name nom nombre naam nome nachname vorname prenom surname
    ref referrer referring requested requesting tech technician technologist mtra mta operator physician radiologist
    arzt arztin medecin medico arts by for an id mrn dob born geb ne nee tel fon phone fax contact 患者 患者名
    氏名 姓名 환자 пациент врач фио""".split()  # noqa: SIM905
)
_PARTICLES: Final = frozenset("de da di du van der den von zu la le el al bin ibn mc mac st san".split())  # noqa: SIM905

# ---------------------------------------------------------------------------------------------------------- technical

_UNIT: Final = (
    "mm|um|μm|ml|cc|l|s|sec|secs|ms|msec|min|mins|h|hrs?|kvp?|kev|mev|mv|mas?|mgy|cgy|gy|msv|sv|hz|khz|mhz|t|tesla|g|mg"
    "|ug|mci|mbq|kbq|bq|deg|hu|ppm|bpm|fps|ch|sl|slices?|dirs?|ph|phases?|bit|px|nex|avg|d|x|p|i|w|ns|th|st|nd|rd|fold|sp|plane"
)
_SIDE: Final = r"(?:\d{1,3}(?:[.,]\d{1,3})?|1024|1280|1536|1920|2048|2560|3072|4096)"
_VERTEBRA: Final = "(?:c[1-8]|th?(?:1[0-2]|[1-9])|d(?:1[0-2]|[1-9])|l[1-6]|s[1-5]|[hbl]wk(?:1[0-2]|[1-9]))"
_ISOTOPE: Final = "(?:f|tc|ga|lu|i|in|tl|xe|kr|rb|n|c|o|cu|zr|y|ra|sm|ho|co|cs|ir)"
_TECHNICAL: Final = re.compile(
    "|".join(
        (
            rf"\d{{1,3}}(?:[.,]\d{{1,4}})?(?:{_UNIT})",
            r"[1-9]\d{3}(?:ms|ml|mm|mas|um|hz|mbq|hu)",
            r"\d{1,2}(?:[.,]\d{1,3})?cm",
            rf"{_SIDE}(?:x{_SIDE}){{1,3}}(?:mm|cm|um)?",
            rf"{_VERTEBRA}{{1,2}}|[cltds]\d-?[cltds]?\d",
            "[234]d|t[12](?:w|wi|wt|r|fs|c|ce|gd)?|[rt][12](?:star|rho)|b[01]|s[012]|m0",
            # convolution kernels: B30f, Br40, FC30, YA
            r"(?:[bhudijqt]|b[fvlrn]|h[rfcvn]|ha|[uq]r|s[adf])\d{2}[a-z]?\d?|f[cl]\d{2}",
            r"(?:te|tr|ti|td|fa|fov|sl|th|nsa|nex|etl|phase|ph|ser|series|se|img|image|im|seg|ver|ww|wl|roi|gtv|ptv|ctv|itv"
            r"|vol|fx|arc|beam|field|stack|st|iso|sms|mb|hb|pe|acc|grp|group|dir|ch|kvp?|mas?|kev|sense|grappa|ipat|idose|asir"
            r"|qir|step|run|view|pos|part|test|scan|visit|week|day|tp|loc|slab|echo|rep|frame|level|grade|birads|pirads"
            r"|lirads|tirads|lungrads)\d{1,3}(?:[.,]\d{1,2})?",
            r"[pixvzrst]\d{1,2}",
            rf"{_ISOTOPE}\d{{2,3}}m?|\d{{2,3}}m?{_ISOTOPE}",
            # pulse sequences: tfl3d1, epfid2d1, fl3d1r, spcRrr121
            r"(?:epfid|epse|epir?|tse|tir|tfl|tfi|spc|fl|fm|fi|fq|se|de|qfl|swi|fid|gre|csi)r{0,3}"
            r"(?:[123]d)?\d{0,3}(?:r|rr|ns|vfl|w|wi)?",
        )
    )
)
_B_VALUE: Final = re.compile(r"b[av]?(\d{1,5}(?:,\d{1,4})*)")
_B_VALUES: Final = frozenset((1200, 1400, 1500, 1600, 1800, 2000, 2400, 2500, 3000, 4000, 5000, 6000, 8000, 10000))
_LONG_NUMBERS: Final = frozenset(("1000", "1200", "1500", "3000", "4000"))
_NUMBER: Final = re.compile(r"(\d+)(?:[.,](\d+))?")
_MEASURED: Final = frozenset(_UNIT.replace("?", "").split("|")) | {"cm", "ma", "kv", "hr", "slice", "dir", "phase"}
_TIMED: Final = frozenset(("te", "tr", "ti", "td", "b"))
_TIME: Final = re.compile(r"[1-9]\d{0,2}|(?:1[0-8]|2[1-9]|[3-9]\d)\d{2}|2000")
"""Milliseconds, or s/mm² of a b-value, that can't be a year."""
_SERIES: Final = frozenset((*range(0, 1501, 50), *range(70, 151, 10), 64, 128, 192, 256, 320, 384, 512, 1024))
"""Numbers that stand in rows without being a date or a number of somebody: b-values, tube voltages, matrices."""


def _technical(form: str) -> bool:
    """Whether a word of digits, or with digits, is one that protocols use: a measure, a kernel, a vertebra."""
    number = _NUMBER.fullmatch(form)
    if number:
        return _number(*number.groups())
    b_value = _B_VALUE.fullmatch(form)
    if b_value:
        return all(_b(part) for part in b_value[1].split(","))
    return _TECHNICAL.fullmatch(form) is not None


def _number(whole: str, fraction: str | None) -> bool:
    """Whether a bare number is short enough for a technical one, and can't be a day and its month or a time."""
    if len(whole) > 1 and whole[0] == "0":
        return False
    if fraction is None:
        return len(whole) <= 3 or whole in _LONG_NUMBERS
    if len(whole) > 3 or len(fraction) > 6:
        return False
    if len(fraction) == 2:
        return whole == "0" or (len(whole) == 1 and int(fraction) > 12)
    return len(fraction) == 1 or len(whole) <= 2


def _b(text: str) -> bool:
    value = int(text)
    return text == str(value) and ((value <= 1000 and value % 5 == 0) or value in _B_VALUES)


# --------------------------------------------------------------------------------------------------------- vocabulary


@cache
def _shipped() -> Mapping[str, str]:
    """The treatment of each term of the table, by the normal forms of its spellings."""
    terms: dict[str, str] = {}
    with _TABLE.open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            for form in _spelt(row["term"]):
                terms[form] = row["treatment"]
    return terms


def _spelt(term: str) -> set[str]:
    """The normal forms of a term: a phrase's words are joined by one space."""
    text = unicodedata.normalize("NFC", term)
    return {fold(text), fold(text.casefold().translate(_SPELT_OUT))}


class _Token(NamedTuple):
    """What was made of a word before it's known whom it identifies.

    Attributes:
      shown: what may stay of it; "" for nothing.
      asks: the normal forms that mustn't identify anybody.
      beside: whether it goes with a neighbour that is strange.
      word: whether it's a word, which can be strange; else a number.
      torn: whether a part of it had to go.
    """

    start: int
    stop: int
    shown: str
    asks: tuple[str, ...]
    beside: bool
    word: bool
    torn: bool


class _Reading(NamedTuple):
    """A text that was read.

    Attributes:
      text: what is seen of it.
      joins: (first, last, form) of neighbouring tokens that could be one identifier written with separators.
      asks: every normal form that is to be asked for, each once.
      left: what is left of it where none of them identifies.
    """

    text: str
    tokens: tuple[_Token, ...]
    joins: tuple[tuple[int, int, str], ...]
    asks: tuple[str, ...]
    left: str


class Vocabulary:
    """An allow-list of words, and what is left of a text by it."""

    def __init__(self, extra: Iterable[str] = ()) -> None:
        """Extend the shipped list by a site's own words, which stay unless they identify the patient."""
        self._extra = tuple(extra)
        self._words = dict(_shipped())
        for term in self._extra:
            self._words.update(dict.fromkeys(_spelt(" ".join(term.split())), PLAIN))
            self._words.update((form, PLAIN) for word in words(term) for form in _spelt(word.form))
        self._phrases: dict[str, list[tuple[str, ...]]] = {}
        for term in self._words:
            first, *others = term.split(" ")
            if others:
                self._phrases.setdefault(first, []).append((first, *others))
        self._read = lru_cache(4096)(self._reading)

    def __reduce__(self) -> tuple[type["Vocabulary"], tuple[tuple[str, ...]]]:
        return Vocabulary, (self._extra,)

    def clean(self, text: str, identifies: Callable[[str], bool]) -> str:
        """What may stay of a text: words of the vocabulary and technical numbers, unless they identify somebody.

        What is cleaned twice doesn't change again, and what may stay whole is returned as it is seen.

        Args:
          text: of one value, decoded.
          identifies: whether a normal form is one of the study's people's (`identifying_words`).

        Returns:
          The words that stay, in order, with what stood between those that were neighbours; "" for none.
        """
        known: dict[str, bool] = {}  # who asks with a key asks dearly
        while (cleaned := self._once(text, identifies, known)) != text:
            text = cleaned
        return cleaned

    def _once(self, text: str, identifies: Callable[[str], bool], known: dict[str, bool]) -> str:
        reading = self._read(text)
        for form in reading.asks:
            if form not in known:
                known[form] = identifies(form)
        named = {form for form in reading.asks if known[form]}
        return _left(reading, named) if named else reading.left

    def _reading(self, text: str) -> _Reading:
        seen = _seen(text)
        shadow = _shadow(seen)
        found = [(match.start(), match.end()) for match in _WORD.finditer(shadow)]
        forms = [fold(seen[start:stop]) for start, stop in found]
        forbidden = _forbidden(shadow, found)
        gone = forbidden | _named(seen, shadow, found, forms) | _spelled_out(self._words, shadow, found, forms)
        phrases = self._in_phrases(shadow, found, forms)
        measured = _measured(shadow, found, forms)
        gone |= _numbers_of_somebody(shadow, found, forms, measured)
        tokens = tuple(
            _dropped(span, form) if at in gone else self._token(seen, span, form, at in phrases, at in measured)
            for at, (span, form) in enumerate(zip(found, forms, strict=True))
        )
        tokens = tuple(token._replace(word=token.word and at not in forbidden) for at, token in enumerate(tokens))
        joins = tuple(_joins(shadow, tokens, forms))
        asks = dict.fromkeys(form for token in tokens for form in token.asks) | dict.fromkeys(
            form for *_, form in joins
        )
        reading = _Reading(seen, tokens, joins, tuple(asks), "")
        return reading._replace(left=_left(reading, set()))

    def _token(self, seen: str, span: tuple[int, int], form: str, in_phrase: bool, measured: bool) -> _Token:
        written = seen[slice(*span)]
        is_word = _is_word(form)
        if in_phrase or measured:
            return _Token(*span, written, _asked(form), False, is_word, False)
        treatment = self._words.get(form)
        if treatment == LOWER:
            treatment = BESIDE if written == written.lower() else NEVER
        if treatment in (PLAIN, BESIDE):
            alone = len(form) == 1 and not _ideographic(form)
            return _Token(*span, written, _asked(form), treatment == BESIDE or alone, is_word, False)
        if treatment is not None:
            return _dropped(span, form)
        if _technical(form):
            return _Token(*span, written, _asked(form), False, is_word, False)
        return self._glued(written, span, form) if is_word else _dropped(span, form)

    def _glued(self, written: str, span: tuple[int, int], form: str) -> _Token:
        """A word that is several: all of them may stay, or those of its parts in letters that are plain."""
        pieces = self._cut(written) if len(written) <= 64 and sum(char.isdigit() for char in written) <= 5 else None
        if pieces:
            return _Token(*span, written, (*_asked(form), *pieces), False, True, False)
        parts = _parts(written)
        least = _LEAST_PART if any(char.isdigit() for char in written) else 2
        kept = [part for part in parts if len(part) >= least and len(parts) > 1 and self._stays_torn(part)]
        if not kept:
            return _dropped(span, form)
        return _Token(*span, " ".join(kept), (*_asked(form), *map(fold, kept)), False, _is_word(form), True)

    def _stays_torn(self, part: str) -> bool:
        """Whether a part may stay without the others: two letters are an abbreviation only in capitals."""
        return self._words.get(fold(part)) == PLAIN and (len(part) > 2 or part.isupper())

    def _cut(self, written: str) -> list[str] | None:
        """The normal forms of the fewest words of the vocabulary that make up a word; None if there are none."""
        ends = _ends(written)
        best: list[list[str] | None] = [[], *([None] * (len(ends) - 1))]
        for stop in range(1, len(ends)):
            for start in range(stop):
                before, form = best[start], fold(written[ends[start] : ends[stop]])
                so_far = best[stop]
                if before is not None and (so_far is None or len(before) + 1 < len(so_far)) and self._part(form):
                    best[stop] = [*before, form]
        return best[-1]

    def _part(self, form: str) -> bool:
        """Whether it may be part of a word that is several: short ones would make up anything."""
        if form.isdigit():
            return len(form) <= 3
        treatment = self._words.get(form)
        if treatment is not None:
            return treatment in (PLAIN, BESIDE) and (len(form) > 1 or form == "x" or _ideographic(form))
        return len(form) > 1 and any(char.isdigit() for char in form) and _technical(form)

    def _in_phrases(self, shadow: str, found: list[tuple[int, int]], forms: list[str]) -> set[int]:
        """The tokens of phrases whose words may stay together: "white matter"."""
        inside: set[int] = set()
        for at, form in enumerate(forms):
            for phrase in self._phrases.get(form, ()):
                stop = at + len(phrase)
                if tuple(forms[at:stop]) == phrase and all(
                    shadow[before[1] : after[0]] in (" ", "-", "_", "  ") for before, after in pairwise(found[at:stop])
                ):
                    inside.update(range(at, stop))
        return inside


def _dropped(span: tuple[int, int], form: str) -> _Token:
    return _Token(*span, "", (form,), False, _is_word(form), False)


def _is_word(form: str) -> bool:
    return any(char.isalpha() for char in form) and (len(form) > 1 or _ideographic(form))


def _asked(form: str) -> tuple[str, ...]:
    """A normal form, and the ones by which it'd be known as part of an identifier."""
    if form.isalpha():
        return (form,)
    digits = tuple(run for run in re.findall(r"\d+", form) if len(run) >= _LEAST_PART)
    alone = "".join(char for char in form if char.isalnum())
    return tuple(dict.fromkeys((form, alone, *digits)))


def _forbidden(shadow: str, found: list[tuple[int, int]]) -> set[int]:
    """The tokens that touch what never stays."""
    gone: set[int] = set()
    starts = [start for start, _ in found]
    characters = set(shadow)
    digits = not characters.isdisjoint("0123456789")
    for hint, pattern in _NEVER:
        if not characters.isdisjoint(hint) if hint else digits:
            for match in pattern.finditer(shadow):
                first = max(bisect_left(starts, match.start()) - 1, 0)
                inside = range(first, bisect_left(starts, match.end()))
                gone.update(at for at in inside if found[at][1] > match.start())
    return gone


def _named(seen: str, shadow: str, found: list[tuple[int, int]], forms: list[str]) -> set[int]:
    """The tokens that a title, a credential or a label says are somebody's name."""
    gone: set[int] = set()
    for at, form in enumerate(forms):
        start, stop = found[at]
        after = shadow[stop : stop + 3].lstrip(" ")[:1]
        if form in _CREDENTIALS and at and shadow[found[at - 1][1] : start].strip(" ,") == "":
            gone |= {at - 1, at}
        if _is_title(seen[start:stop], form, after):
            gone.add(at)
        elif form in _LED_BY_COLON and after in (":", "=", "#"):
            gone |= {at} if form != "patient" else set()
        elif form in _LED_BY and "\n" not in shadow[stop : stop + 2]:
            gone.add(at)
        else:
            continue
        following = at + 1
        while following < len(forms) and (
            len(forms[following]) == 1 or forms[following] in _TITLES or forms[following] in _PARTICLES
        ):
            gone.add(following)
            following += 1
        gone.add(min(following, len(forms) - 1))
    return gone


def _is_title(written: str, form: str, after: str) -> bool:
    """Whether it's the title of a person: MR is a modality, Mr isn't, and neither is DR."""
    if form not in _TITLES or form in _CREDENTIALS:
        return False
    if form in _AMBIGUOUS_TITLES:
        return written.istitle() or (after == "." and len(form) == 2 and form != "ms")
    return form != "dr" or not written.isupper() or after == "."


def _spelled_out(words_: Mapping[str, str], shadow: str, found: list[tuple[int, int]], forms: list[str]) -> set[int]:
    """The single letters that are initials, or a word spelled out, unless they are one of the vocabulary: i.v."""
    gone: set[int] = set()
    row: list[int] = []
    for at, form in enumerate([*forms, ""]):
        letter = len(form) == 1 and form.isalpha() and not _ideographic(form)
        if row and not (letter and not shadow[found[row[-1]][1] : found[at][0]].strip(" .-_")):
            if len(row) > 1 and words_.get("".join(forms[one] for one in row)) != PLAIN:
                gone.update(row)
            row = []
        if letter:
            row.append(at)
    return gone


def _measured(shadow: str, found: list[tuple[int, int]], forms: list[str]) -> set[int]:
    """The bare numbers that have a unit behind them or an echo time's name before."""
    measured: set[int] = set()
    for at, (before, after) in enumerate(pairwise(forms)):
        between = shadow[found[at][1] : found[at + 1][0]]
        if after in _MEASURED and between in (" ", "-", "_") and _TECHNICAL.fullmatch(before + after):
            measured.add(at)
        if before in _TIMED and between in (" ", "=", "_", ":") and _TIME.fullmatch(after):
            measured.add(at + 1)
    return measured


def _numbers_of_somebody(shadow: str, found: list[tuple[int, int]], forms: list[str], measured: set[int]) -> set[int]:
    """The bare numbers that make up a date, a time or somebody's number with those beside them."""
    gone: set[int] = set()
    row: list[int] = []
    for at, form in enumerate([*forms, ""]):
        bare = form.isdigit() and at not in measured
        if row and not (bare and _near(shadow[found[row[-1]][1] : found[at][0]])):
            gone.update(row if _somebodys(row, shadow, found, forms) else ())
            row = []
        if bare:
            row.append(at)
    return gone


def _near(between: str) -> bool:
    return len(between) <= 4 and not between.strip(" \t-./:_,()+#'|\\")


def _somebodys(row: list[int], shadow: str, found: list[tuple[int, int]], forms: list[str]) -> bool:
    numbers = [forms[at] for at in row]
    if len(row) == 1:
        return False
    if any(not _technical(number) for number in numbers):
        return True
    if all(int(number) in _SERIES for number in numbers):
        return False
    if len(row) > 2 or sum(map(len, numbers)) > 5:
        return True
    between = shadow[found[row[0]][1] : found[row[1]][0]].strip()
    if between == ":":
        return min(map(len, numbers)) > 1
    low, high = sorted(map(int, numbers))
    return between in ("/", ".", "-") and max(map(len, numbers)) > 1 and 1 <= low <= 12 and high <= 31


def _joins(shadow: str, tokens: tuple[_Token, ...], forms: list[str]) -> Iterator[tuple[int, int, str]]:
    """Neighbours, the first or last with a digit, that would be one identifier without what separates them.

    Words of more than four letters aren't part of one of more than two parts: it is made of numbers and abbreviations.
    """
    parts = ["".join(char for char in form if char.isalnum()) for form in forms]
    short = [len(part) <= _LONGEST_LETTERS or not part.isalpha() for part in parts]
    digits = [not part.isalpha() for part in parts]
    for first in range(len(tokens)):
        joined = parts[first]
        for last in range(first + 1, min(first + 4, len(tokens))):
            if tokens[last].start - tokens[last - 1].stop > _WIDEST_GAP:
                break
            if last > first + 1 and not all(short[first : last + 1]):
                break
            joined += parts[last]
            shown = any(token.shown for token in tokens[first : last + 1])
            if shown and (digits[first] or digits[last]) and len(joined) >= _LEAST_NUMBER:
                yield first, last, joined


def _parts(written: str) -> list[str]:
    """The parts of a word in letters of one case or script."""
    return [part for part in re.split(r"\d+|[.,]|(?<=[^\W\d_A-Z])(?=[A-Z])", _spaced(written)) if part]


def _spaced(written: str) -> str:
    """The word, its parts of other scripts set apart."""
    return "".join("," if _ideographic(char) else char for char in written)


def _ends(written: str) -> list[int]:
    """Where a word may be cut: between cases, digits and scripts, and around what is often glued."""
    cuts = {0, len(written)}
    for at, (before, after) in enumerate(pairwise(written), 1):
        scripts = _ideographic(before) or _ideographic(after)
        if scripts or before.isdigit() != after.isdigit() or (before.islower() and after.isupper()):
            cuts.add(at)
        elif before.isupper() and after.islower():
            cuts.add(at - 1)
    for match in re.finditer(r"(?i)[234]d|t[12]w?|[.,]", written):
        cuts |= {match.start(), match.end()}
    return sorted(cuts)


_BREAKS: Final = frozenset("\n\r;()[]{}<>/:|=&+")
"""What stands between words that aren't one name, in whatever order its parts are."""


def _left(reading: _Reading, named: Set[str]) -> str:
    """What is left of a text where some normal forms identify."""
    tokens = reading.tokens
    gone = [not named.isdisjoint(token.asks) for token in tokens]
    for first, last, form in reading.joins:
        if form in named:
            gone[first : last + 1] = [True] * (last + 1 - first)
    stay = [bool(token.shown) and not is_gone for token, is_gone in zip(tokens, gone, strict=True)]
    strange = [
        token.word and not is_gone and (token.torn or not stays)
        for token, is_gone, stays in zip(tokens, gone, stay, strict=True)
    ]
    return _assembled(reading.text, tokens, _without_companions(reading.text, tokens, stay, strange))


def _without_companions(seen: str, tokens: tuple[_Token, ...], stay: list[bool], strange: list[bool]) -> list[bool]:
    """What still stays when names that are words as well go with a neighbour that is strange.

    A neighbour that is known to be the patient's name isn't: all the others of that name are known then.
    """
    after = list(stay)
    for at, token in enumerate(tokens):
        if stay[at] and token.beside:
            for other in (at - 1, at + 1):
                if 0 <= other < len(tokens) and strange[other]:
                    low, high = min(at, other), max(at, other)
                    if not _BREAKS & set(seen[tokens[low].stop : tokens[high].start]):
                        after[at] = False
    return after


def _assembled(seen: str, tokens: tuple[_Token, ...], stay: list[bool]) -> str:
    """The tokens that stay, with what stood between neighbours; one space for what went."""
    if not any(stay):
        return ""
    out: list[str] = []
    for at, token in enumerate(tokens):
        if not stay[at]:
            continue
        begin = tokens[at - 1].stop if at else 0
        if not at or stay[at - 1]:
            out.append(_allowed_marks(seen[begin : token.start]))
        elif out:
            out.append(" ")
        out.append(token.shown)
    if stay[-1]:
        out.append(_allowed_marks(seen[tokens[-1].stop :]))
    return "".join(out).strip()


def _allowed_marks(between: str) -> str:
    """Separators as they are; one space in the place of any other sign."""
    if _MARKS.issuperset(between):
        return between
    return re.sub(" {2,}", " ", "".join(char if char in _MARKS or _plain(char) in _MARKS else " " for char in between))
