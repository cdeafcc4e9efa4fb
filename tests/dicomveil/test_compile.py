"""The compiled decisions against a naive reading of the same rules, row by row."""

import csv
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dicomveil
from dicomveil import marks, standard
from dicomveil.compile import DecisionTable, compile_request
from dicomveil.request import Request

TABLES = Path(dicomveil.__file__).parent / "tables"
OF_UNKNOWN = {"X/Z": "Z", "X/D": "D", "Z/D": "D", "X/Z/D": "D"}
AS_TYPE_3 = {"X/Z": "X", "X/D": "X", "Z/D": "Z", "X/Z/D": "X"}


def rows(name: str) -> list[dict[str, str]]:
    with (TABLES / name).open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


E1_1 = {row["tag"]: row["basic"] for row in rows("2026d/e1_1.csv")}
SUPPLEMENT = {row["tag"]: row["action"] for row in rows("supplement.csv")}
IODS = {row["uid"]: row["iod"] for row in rows("sop_classes.csv")}
BY_TYPE = {"X/Z": "DZ", "X/D": "DD", "Z/D": "DZ", "X/Z/D": "DZ", "X/Z/U*": "UZ"}  # of Types 1 and 2
IN_MANDATORY = {("X", "1"): "D", ("X", "2"): "Z", ("Z", "1"): "D"}


def typed() -> dict[tuple[str, str], str]:
    """The action of each path of each IOD that has a Type there, by the strictest of the modules that hold it."""
    held: dict[tuple[str, str], list[tuple[str, str]]] = {}
    modules: dict[str, list[tuple[str, str]]] = {}
    for row in rows("types.csv"):
        modules.setdefault(row["module"], []).append((row["path"], row["type"]))
    for row in rows("iods.csv"):
        for path, kind in modules.get(row["module"], []):
            held.setdefault((row["iod"], path), []).append((kind, "a" if row["usage"] == "M" else "b"))
    found = {}
    for (iod, path), kinds in held.items():
        name = f"({path[-8:-4]},{path[-4:]})"
        code = E1_1.get(name) or SUPPLEMENT.get(name, "K")
        kind, usage = min(kinds)  # "1" < "1C" < "2" < "2C", and "a" before "b"
        if code in BY_TYPE:
            found[iod, path] = BY_TYPE[code]["12".index(kind[0])]
        elif usage == "a" and (code, kind) in IN_MANDATORY:
            found[iod, path] = IN_MANDATORY[code, kind]
    return found


TYPED = typed()
DICTIONARY = {row["tag"]: row["vr"] for row in rows("data_elements.csv")}
SEQUENCES = sorted(tag for tag, vr in DICTIONARY.items() if vr == "SQ" and tag > "0006")
PATHS = sorted(key for key in TYPED if key[0] in IODS.values())
MARKS = {"00100020", "00120062", "00120063", "00120064", "00280303"}
COMPILED = compile_request(Request())


def naive(sop_class: str, path: list[str]) -> str:
    """What the rules say of the last tag of a path: one of X Z D U, K for keep (and enter, for a sequence)."""
    tag = path[-1]
    if tag not in DICTIONARY or tag[:4] in ("0000", "0002", "0004") or tag[4:] == "0000":
        return "X"
    name = f"({tag[:4]},{tag[4:]})"
    if tag == "00100020" or (tag == "00100010" and len(path) == 1) or (len(path) == 1 and tag in MARKS):
        return "D"
    code = E1_1.get(name) or SUPPLEMENT.get(name, "K")
    if code == "code-meaning":
        return "D"
    if code == "X/Z/U*":
        return "K"
    if code in ("K", "U"):
        action = code
    elif sop_class not in IODS:
        action = OF_UNKNOWN.get(code, code)
    else:
        action = TYPED.get((IODS[sop_class], ">".join(path)), AS_TYPE_3.get(code, code))
    return "U" if action == "D" and DICTIONARY[tag] == "UI" else action


def compiled(table: DecisionTable, sop_class: str, path: list[str]) -> str:
    node = table.node(sop_class)
    for step in path[:-1]:
        node = node.child(int(step, 16))
    decision = node[int(path[-1], 16)]
    return "K" if decision is None else decision.action


CLASSES = st.sampled_from([*sorted(IODS), "1.2.840.10008.5.1.4.1.1.9999", "1.2.3"])


@settings(max_examples=600, deadline=None)
@given(CLASSES, st.lists(st.sampled_from(SEQUENCES), max_size=4), st.sampled_from(sorted(DICTIONARY)))
def test_any_attribute_anywhere(sop_class: str, above: list[str], tag: str) -> None:
    """At any depth, in any SOP Class, an attribute gets what its row says on its Type there (PS3.15 E.1.1)."""
    assert compiled(COMPILED, sop_class, [*above, tag]) == naive(sop_class, [*above, tag])


@settings(max_examples=600, deadline=None)
@given(CLASSES, st.sampled_from(PATHS))
def test_where_a_type_decides(sop_class: str, typed: tuple[str, str]) -> None:
    """A path that is Type 1 or 2 in one IOD is decided by that IOD, and by no other that has the same path."""
    path = typed[1].split(">")
    for uid in (sop_class, next(uid for uid, iod in IODS.items() if iod == typed[0])):
        assert compiled(COMPILED, uid, path) == naive(uid, path)


@given(CLASSES, st.integers(0x0008, 0xFFFC).filter(lambda group: group % 2), st.integers(0, 0xFFFF))
def test_no_table_keeps_what_is_private(sop_class: str, group: int, element: int) -> None:
    """No decision names a private element: they go before any table is asked (row gggg,eeee of E.1-1)."""
    decision = COMPILED.node(sop_class)[group << 16 | element]
    assert decision is not None and decision.action == "X"


@pytest.mark.parametrize("row", standard.rows("2026d"), ids=lambda row: row.tag)
def test_every_row_is_obeyed(row: standard.Row) -> None:
    """Each row of Table E.1-1 protects its attribute in an unknown SOP Class, repeating groups included."""
    tag = row.tag.strip("()").replace(",", "").replace("x", "0").replace("g", "1").replace("e", "1")
    decided = compiled(COMPILED, "", [tag])
    assert decided != "K" or row.basic in ("X/Z/U*", "K")


def test_supplement_off_means_off() -> None:
    """Without our supplement what Table E.1-1 doesn't name is kept, and what it names stays protected."""
    bare = compile_request(Request(supplement=False))
    only_ours = [tag for tag in SUPPLEMENT if tag not in E1_1 and "x" not in tag]
    assert {compiled(bare, "", [tag[1:5] + tag[6:10]]) for tag in only_ours if tag[1:5] > "0004"} <= {"K", "D"}
    assert compiled(bare, "", ["00100030"]) == "Z"


def test_by_type_is_the_strict_reading() -> None:
    """Under ReferenceSequences: by-type a Referenced Image Sequence goes where its Type is 3 (E.1-1, X/Z/U*)."""
    strict = compile_request(Request(reference_sequences="by-type"))
    assert compiled(strict, "1.2.840.10008.5.1.4.1.1.2", ["00081140"]) == "X"
    assert compiled(COMPILED, "1.2.840.10008.5.1.4.1.1.2", ["00081140"]) == "K"


def test_a_table_travels_small_and_whole() -> None:
    """What workers get decides the same, and says so by its fingerprint; another request has another."""
    again = pickle.loads(pickle.dumps(COMPILED))
    assert again.fingerprint == COMPILED.fingerprint != compile_request(Request(supplement=False)).fingerprint
    assert len(pickle.dumps(COMPILED)) < 2000
    assert compiled(again, "1.2.3", ["00100010"]) == "D"


def test_marks_are_ours() -> None:
    """The implementation's UID is one that anybody may derive, and the name carries the recipe, not the version."""
    assert marks.IMPLEMENTATION_CLASS_UID.startswith("2.25.") and len(marks.IMPLEMENTATION_VERSION_NAME) <= 16
    assert "0.1" not in marks.IMPLEMENTATION_VERSION_NAME
