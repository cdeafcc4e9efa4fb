"""Free text keeps words of a vocabulary and nothing that identifies (PS3.15 E.3.5)."""

import csv
import pickle
import re
import unicodedata
from datetime import date
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomveil import vocabulary
from dicomveil.vocabulary import BESIDE, LOWER, NEVER, PLAIN, Vocabulary, fold, identifying_words, words

CASES = yaml.safe_load((Path(__file__).parent.parent / "cases" / "vocabulary.yaml").read_text(encoding="utf-8"))
SHIPPED = Vocabulary()
TABLE = Path(vocabulary.__file__).parent / "tables" / "vocabulary.csv"
ROWS = list(csv.DictReader(TABLE.open(encoding="utf-8", newline="")))
ALLOWED = {fold(part) for row in ROWS if row["treatment"] != NEVER for part in row["term"].split()}

TERMS = [row["term"] for row in ROWS if row["treatment"] == PLAIN and " " not in row["term"]]
LATIN = [term for term in TERMS if term.isascii() and term.isalpha() and len(term) > 3]
NAMES = """Abaza Achterberg Adebayo Ångström Bakker Bergström Čapek Castaño Ceylan Châtelain D'Angelo Díaz Dubois Fitzgerald
    Friedrichsen Gonçalves Großmann Hashimoto Jankowska Jørgensen Kaczmarek Kowalski Krüger Lefèvre Lindqvist MacGregor
    McAllister Mayer Müller Nguyen Núñez O'Connor Obasanjo Özdemir Papadopoulos Petrov Quintanilla Rodríguez Schröder
    Schwarzenegger Sørensen Szymański Takahashi Thibault Vandenberghe Villanueva Weiß Yamamoto Zimmermann Alejandro
    Brunhilde Chiara Dmitri Elżbieta François Giuseppe Hannelore Ingeborg Joaquín Katarzyna Leopold Małgorzata Nikolaos
    Oluwaseun Priyanka Raphaël Sebastián Théodore Ulrike Véronique Wolfgang Xiomara Yevgenia Zsófia 山田 太郎 田中 花子 王伟
    李娜 김철수 박영희 Иванов Петрова Кузнецов Θεοδωρόπουλος""".split()  # noqa: SIM905
OFTEN_NAMES = """Smith Johnson Williams Brown Jones Garcia Miller Davis Martinez Wilson Anderson Taylor Thomas Moore Jackson
    Martin Lee Thompson White Harris Clark Lewis Robinson Walker Young Allen King Wright Scott Hill Green Adams Nelson
    Baker Hall Campbell Mitchell Carter Turner Parker Collins Edwards Stewart Morris Murphy Cook Rogers Morgan Cooper
    Peterson Reed Bailey Bell Gomez Kelly Howard Ward Cox Diaz Richardson Wood Watson Brooks Bennett Gray James Reyes
    Cruz Hughes Price Myers Long Foster Sanders Ross Morales Powell Sullivan Russell Ortiz Jenkins Perry Butler Barnes
    Fisher Henderson Coleman Simmons Patterson Jordan Reynolds Hamilton Graham Kim Wallace West Cole Hayes Chavez Gibson
    Bryant Ellis Stevens Murray Ford Marshall Owens McDonald Harrison Kennedy Wells Alvarez Woods Mendoza Castillo Olson
    Webb Washington Tucker Freeman Burns Henry Vasquez Snyder Simpson Crawford Jimenez Porter Mason Shaw Gordon Wagner
    Hunter Romero Hicks Dixon Hunt Palmer Robertson Black Holmes Stone Meyer Boyd Mills Warren Fox Rose Rice Schmidt
    Weber Becker Schulz Hoffmann Koch Richter Klein Wolf Schwarz Braun Lange Krause Lehmann Köhler Kaiser Fuchs Peters
    Lang Scholz Möller Weiß Jung Hahn Vogel Friedrich Keller Günther Frank Berger Winkler Roth Beck Lorenz Baumann
    Bernard Petit Robert Richard Durand Moreau Laurent Simon Michel Lefebvre Leroy Roux Fournier Girard Bonnet Dupont
    Rossi Russo Ferrari Esposito Bianchi Romano Colombo Ricci Marino Greco Bruno Gallo Conti Costa Giordano Mancini
    Mary Patricia Jennifer Linda Elizabeth Barbara Susan Jessica Sarah Karen Nancy Lisa Betty Sandra Ashley Kimberly
    Donna Emily Michelle Carol Amanda Melissa Deborah Stephanie Rebecca Laura Helen Anna Rose May Grace Iris Violet Ruby
    Michael William David Joseph Charles Christopher Daniel Matthew Anthony Mark Donald Steven Paul Andrew Joshua Kevin
    Brian George Edward Ronald Timothy Jason Jeffrey Ryan Jacob Gary Nicholas Eric Jonathan Larry Justin Brandon Frank
    Hans Peter Wolfgang Klaus Jürgen Dieter Manfred Uwe Ursula Monika Petra Sabine Renate Karin Helga Axel Max Rene Cor
    Omar Ali Ahmed Fatima Wei Fang Li Na Min Jun Hiroshi Yuki Ivan Olga Sergei Natalia""".split()  # noqa: SIM905
PLACES = ("{}", "CT HEAD {}", "{} T1 tse sag 3mm", "Abdomen_{}_arterial", "thorax-{}-axial", "US ({})", "{0}^{0}",
          "MR Knie, {}, nativ", "Schädel {} 2 Ebenen", "TAC de {}", "post op {} 120kV", "Dr. {} chest", "knee\n{}")  # fmt: skip


def nobody(word: str) -> bool:
    return False


@pytest.mark.parametrize("case", CASES, ids=lambda case: ascii(case[0]))
def test_what_is_left_of_a_text(case: list) -> None:
    """Each text is reduced to what its case says, with the identifying values that it names."""
    text, expected, *more = case
    known = {word for given in more for vr, value in given.items() for word in identifying_words(vr, value)}
    assert SHIPPED.clean(text, known.__contains__) == expected
    assert SHIPPED.clean(expected, known.__contains__) == expected


def test_every_term_says_where_it_comes_from() -> None:
    """Each term of the table stands once, in lower case but for its script's own, with a treatment and a source."""
    assert len({row["term"] for row in ROWS}) == len(ROWS) > 5000
    assert {row["treatment"] for row in ROWS} == {PLAIN, BESIDE, LOWER, NEVER}
    assert all(row["source"] and row["term"] == row["term"].strip() for row in ROWS)
    assert all(unicodedata.is_normalized("NFC", row["term"]) for row in ROWS)


def test_a_term_that_may_stay_stays() -> None:
    """Every plain term is kept, in any case and in NFD."""
    lost = [term for term in TERMS if SHIPPED.clean(term, nobody) != term and not re.fullmatch(r"\S( \S)*", term)]
    assert lost == []
    assert [term for term in LATIN if SHIPPED.clean(term.upper(), nobody) != term.upper()] == []
    assert all(SHIPPED.clean(unicodedata.normalize("NFD", term), nobody) == term for term in TERMS if len(term) > 1)


def test_no_common_name_is_a_plain_word() -> None:
    """Of the commonest family and given names, none stays beside the words of a description, whoever bears it."""
    stay = {
        name
        for name in (*NAMES, *OFTEN_NAMES)
        for place in PLACES
        for written in {name, name.upper()}
        if fold(name) in {word.form for word in words(SHIPPED.clean(place.format(written), nobody))}
    }
    assert stay <= {"Cor", "Min"}, "coronal and minimum"


@pytest.mark.parametrize("name", ["Head", "Hand", "Thorax", "Cor", "Max", "Schädel", "Coeur", "Li", "胸部", "голова"])
def test_a_patient_named_like_a_word(name: str) -> None:
    """Even the plainest word goes where it is the patient's name, in each component, group and spelling."""
    for value in (f"{name}^X", f"X^{name}", f"X^Y^{name}", f"X={name}", f"{name} von X", f"Y-{name}^Z", name.upper()):
        known = identifying_words("PN", value)
        for written in (name, name.upper(), name.lower(), unicodedata.normalize("NFD", name)):
            for place in PLACES:
                left = {word.form for word in words(SHIPPED.clean(place.format(written), known.__contains__))}
                before = {word.form for word in words(place.format("X"))}
                assert fold(name) not in left - before


def test_a_site_adds_its_own_words() -> None:
    """A site's words stay, a phrase's words and numbers among them; still not as the patient's name."""
    text = "Frobnitz protocol PROTO-7A Müller Dixon"
    assert SHIPPED.clean(text, nobody) == "protocol"
    site = Vocabulary(["Frobnitz", "PROTO-7A", "Müller", "Dixon"])
    assert site.clean(text, nobody) == text
    assert site.clean(text, identifying_words("PN", "Müller^X").__contains__) == "Frobnitz protocol PROTO-7A Dixon"
    assert site.clean(text, identifying_words("LO", "proto7a").__contains__) == "Frobnitz protocol Müller Dixon"
    assert pickle.loads(pickle.dumps(site)).clean(text, nobody) == text


def test_words_that_identify() -> None:
    """Names part by part and spelling by spelling, numbers with and without separators; titles and initials never."""
    names = identifying_words("PN", "Müller-Lüdenscheidt^Anna B^^Dr^MD=山田^太郎")
    assert names >= {"muller", "mueller", "ludenscheidt", "luedenscheidt", "mullerludenscheidt", "anna", "山田", "太郎"}
    assert not names & {"b", "dr", "md", ""}
    assert identifying_words("PN", "O'Brien^Seán") >= {"obrien", "brien", "sean"}
    assert identifying_words("LO", "AB-0012.345") >= {"ab0012345", "0012345"}
    assert identifying_words("LO", "0012345") >= {"0012345", "12345"}
    assert identifying_words("SH", "1") == identifying_words("LO", "") == identifying_words("PN", "^^^Mr") == set()
    assert identifying_words("DA", "20240131") >= {"20240131", "31012024", "01312024", "310124", "240131", "311", "131"}
    assert identifying_words("DT", "20240131101500.5+0100") == identifying_words("DA", "20240131")
    assert identifying_words("DA", "2024") == set()
    assert "heart" not in identifying_words("LO", "Heart Center Leipzig") >= {"leipzig"}


TECHNICAL = """T1 b1000 3mm 120kV w/o Mr Dr. by patient: i.v. 512x512 L4/5 2024-01-31 MRN 頭部CT 2024年1月 J. 12:30 0.625 MD
    Thorax3mm B30f a@b.de +49""".split()  # noqa: SIM905
TEXTS = st.lists(
    st.one_of(
        st.sampled_from(TERMS),
        st.sampled_from([*NAMES, *OFTEN_NAMES]),
        st.from_regex(r"[0-9]{1,8}([.,:/-][0-9]{1,4}){0,3}", fullmatch=True),
        st.sampled_from(TECHNICAL),
        st.text(max_size=8),
    ),
    max_size=8,
).flatmap(
    lambda parts: st.lists(
        st.sampled_from([" ", " ", "_", "-", "/", ", ", "", ". ", "(", ")", "\n", "^", ":"]),
        min_size=len(parts),
        max_size=len(parts),
    ).map(lambda gaps: "".join(map("".join, zip(parts, gaps, strict=True))))
)


def _known_to(values: list[tuple[str, str]]) -> set[str]:
    return {word for vr, value in values for word in identifying_words(vr, value)}


@settings(max_examples=400, deadline=None)
@given(TEXTS, st.sets(st.sampled_from([fold(term) for term in LATIN]), max_size=3))
def test_only_words_that_may_stay_are_left(text: str, known: set[str]) -> None:
    """Whatever the text: its words are allowed, none identifies, and cleaning again changes nothing."""
    left = SHIPPED.clean(text, known.__contains__)
    for word in words(left):
        assert word.form not in known
        alone = SHIPPED.clean(left[word.start : word.stop], nobody)
        assert alone or word.form in ALLOWED or word.form.isdigit() or vocabulary._technical(word.form)
    assert SHIPPED.clean(left, known.__contains__) == left
    assert len(left) <= len(unicodedata.normalize("NFC", text)) + 1


@settings(max_examples=400, deadline=None)
@given(TEXTS, st.sampled_from([*NAMES, *OFTEN_NAMES, *LATIN]), st.sampled_from(OFTEN_NAMES), st.data())
def test_no_name_survives(text: str, family: str, given_name: str, data: st.DataObject) -> None:
    """A patient's name in any usual form, wherever it is put, leaves no part behind."""
    known = identifying_words("PN", f"{family}^{given_name}")
    form = data.draw(
        st.sampled_from(
            ["{0}, {1}", "{1} {0}", "{0}^{1}", "{0}_{1}", "{1}.{0}", "{0}{1}", "{0}-{1}", "Dr. {0}", "({0})", "{0}/{1}"]
        )
    )
    change = data.draw(
        st.sampled_from(
            [str, str.upper, str.lower, fold, lambda s: unicodedata.normalize("NFD", s), lambda s: "\u200b".join(s)]
        )
    )
    written = change(form.format(family, given_name))
    left = {word.form for word in words(SHIPPED.clean(f"{text} {written} axial", known.__contains__))}
    assert not left & identifying_words("PN", f"{family}^{given_name}")


@settings(max_examples=400, deadline=None)
@given(
    TEXTS,
    st.from_regex(r"[A-Z]{0,3}[0-9]{3,9}[A-Z]?", fullmatch=True),
    st.sampled_from(["", "-", " ", ".", "_", "/"]),
    st.data(),
)
def test_no_identifier_survives(text: str, identifier: str, separator: str, data: st.DataObject) -> None:
    """A patient's number, whole or cut in two by a separator, goes whole."""
    cut = data.draw(st.integers(1, len(identifier) - 1))
    written = identifier[:cut] + separator + identifier[cut:] if separator else identifier
    known = identifying_words("LO", identifier)
    assert SHIPPED.clean(f"axial ({written}) coronal", known.__contains__) == "axial coronal"
    left = SHIPPED.clean(f"{text} | {written} | axial", known.__contains__)
    assert fold(identifier) not in {word.form for word in words(left)}


DATES = ("%Y%m%d", "%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y", "%d%m%y", "%d %b %Y", "%d %B %Y", "%B %d, %Y", "%d-%b-%y", "%d/%m/%y",
         "%d. %B %Y", "%Y年%m月%d日", "%d %m %Y", "%b %d %Y", "%y%m%d", "%d_%m_%Y", "%Y/%m/%d", "%d.%m.%y", "%d.%m.",
         "%Y.%m.%d", "%Y년 %m월 %d일", "%d.%m", "%m/%d", "%m-%d")  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.dates(date(1900, 1, 1), date(2030, 12, 31)), st.sampled_from(DATES), st.booleans(), st.sampled_from(LATIN))
def test_no_date_survives(day: date, form: str, stripped: bool, word: str) -> None:
    """A date in any usual form leaves nothing of itself, whether it is the patient's or not."""
    written = day.strftime(form)
    if stripped and "%y" not in form:
        written = re.sub(r"\b0", "", written)
    patient = identifying_words("DA", day.strftime("%Y%m%d"))
    ours = SHIPPED.clean(f"CT {written} axial", patient.__contains__)
    assert ours == "CT axial" or len(re.sub(r"\D", "", written)) < 3
    if form not in ("%d.%m", "%m/%d", "%m-%d"):
        assert SHIPPED.clean(f"CT {written} axial", nobody) == "CT axial"
        assert not re.search(r"\d", SHIPPED.clean(f"{word}_{written}", nobody))
