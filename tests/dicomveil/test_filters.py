"""What a filter takes, what it says of mistakes, and what a scan reads for it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dicomveil import filters
from dicomveil.errors import Filtered, InvalidInstance, RequestError
from dicomveil.filters import Filter, parse_filter
from dicomveil.scan import scan_instance
from dicomveil.stream import BytesSource
from dicomveil.testing import CT, Syntax, minimal, part10

CASES = yaml.safe_load((Path(__file__).parent.parent / "cases" / "filters.yaml").read_text("utf-8"))
MARK = "Zubikax"


def read(case: dict[str, Any]) -> Filter:
    asked, files = case["filter"], case.get("files", {})
    text = asked if isinstance(asked, str) else yaml.safe_dump(asked)
    return parse_filter(text, "f.yaml", lambda name: files[name].encode())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_filter_takes_what_it_says(case: dict[str, Any]) -> None:
    """What is taken and left is as the case says, also by a worker that has the filter from a file."""
    taking = read(case)
    for it in (taking, Filter.decode(taking.encode())):
        assert [said for said in case["takes"] if not it.takes(said)] == []
        assert [said for said in case["leaves"] if it.takes(said)] == []
    assert Filter.decode(taking.encode()) == taking


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_filter_needs_no_more_than_it_says(case: dict[str, Any]) -> None:
    """What it doesn't name makes no difference to it."""
    taking = read(case)
    for said in case["takes"] + case["leaves"]:
        only = {keyword: value for keyword, value in said.items() if keyword in taking.needs}
        assert taking.takes(said) == taking.takes(only)


@given(st.text("0123456789.-", max_size=12))
def test_no_study_date_breaks_a_filter(study_date: str) -> None:
    """A date that is none is absent, whatever is written there."""
    inside, outside = parse_filter("StudyDate: 00010101-", "f"), parse_filter("StudyDate: {to: 99991231}", "f")
    assert inside.takes({"StudyDate": study_date}) == outside.takes({"StudyDate": study_date})


WRONG = {
    "Modalty: [CT]": ["f.yaml:1 Modalty: is no member of a filter (did you mean Modality?)"],
    "Modality: [ct]": ["f.yaml:1 Modality[0]: is no modality (write it as stored, such as CT)"],
    "Modality: []": ["f.yaml:1 Modality: is empty, and would take nothing (name something, or leave it out)"],
    "Modality: true": ["f.yaml:1 Modality: has a value of the wrong type (write text)"],
    "Modality: CT\nModality: MR": ["f.yaml:2 Modality: is given twice"],
    "SOPClassUID: [CTImageStorag]": ["f.yaml:1 SOPClassUID[0]: is no SOP Class (did you mean CTImageStorage?)"],
    "StudyDate: soon": ["f.yaml:1 StudyDate: is no date and no range"],
    "StudyDate: '-'": ["f.yaml:1 StudyDate: is no date and no range"],
    "StudyDate: 20200231": ["f.yaml:1 StudyDate: names a day that no calendar has (check month and day)"],
    "StudyDate: 2020-12-31-2020-01-01": ["f.yaml:1 StudyDate: ends before it begins (write the earlier day first)"],
    "StudyDate:\n  form: 2020-01-01": [
        "f.yaml:1 StudyDate: has neither from nor to (give one of them)",
        "f.yaml:2 StudyDate form: is no member of StudyDate (did you mean from?)",
    ],
    "StudyDate: {from: 2020, absent: maybe}": [
        "f.yaml:1 StudyDate from: is no date (write it as 2020-12-31 or 20201231)",
        "f.yaml:1 StudyDate absent: has a value that isn't known (write take or leave)",
    ],
    f"StudyInstanceUID:\n- 1.2\n- {MARK}\n- 1.{'2' * 64}": [
        "f.yaml:3 StudyInstanceUID[1]: is no UID",
        "f.yaml:4 StudyInstanceUID[2]: is no UID",
    ],
    f"AccessionNumber: ['{MARK}\\{MARK}', '']": [
        "f.yaml:1 AccessionNumber[0]: is no Accession Number",
        "f.yaml:1 AccessionNumber[1]: is no Accession Number",
    ],
    "StudyInstanceUID: {file: absent.txt}": ["f.yaml:1 StudyInstanceUID: names a file that can't be read"],
    "StudyInstanceUID: {file: latin.txt}": ["f.yaml:1 StudyInstanceUID: names a file that is no text in UTF-8"],
    "StudyInstanceUID: {file: empty.txt}": ["f.yaml:1 StudyInstanceUID empty.txt: has no values"],
    "StudyInstanceUID: {file: wrong.txt}": ["f.yaml:1 StudyInstanceUID wrong.txt:2: is no UID"],
    "StudyInstanceUID: {flie: a}": ["f.yaml:1 StudyInstanceUID: is neither a list nor a file"],
    "Modality: {file: empty.txt}": ["f.yaml:1 Modality: has a value of the wrong type"],
    "{}": ["f.yaml:1: is empty, and would take everything"],
    "any: []": ["f.yaml:1 any: is no list of filters"],
    "any: [{}]": ["f.yaml:1 any[0]: is empty, and would take everything"],
    "not: CT": ["f.yaml:1 not: is no mapping of members to values"],
    "any: [{Modality: [CT]},\n      {not: {Modaliti: [MR]}}]": [
        "f.yaml:2 any[1] not Modaliti: is no member of a filter (did you mean Modality?)"
    ],
    "not: {" * 40 + "}" * 40: ["nested too deep"],
    "- CT": ["f.yaml:1: is no mapping of members to values"],
    "Modality: [CT": ["is neither YAML nor JSON"],
}


@pytest.mark.parametrize("text", WRONG, ids=lambda text: text.splitlines()[0][:40])
def test_every_mistake_is_told_at_once_and_no_value(text: str) -> None:
    """Each mistake comes with its file, line, member and remedy; values may be a patient's, and aren't quoted."""
    files = {"latin.txt": b"1.2\n\xe4", "empty.txt": b"\n \n", "wrong.txt": f"1.2\n{MARK}\n".encode()}

    def file(name: str) -> bytes:
        if name not in files:
            raise FileNotFoundError(2, "No such file or directory")
        return files[name]

    with pytest.raises(RequestError) as refused:
        parse_filter(text, "f.yaml", file)
    told = [str(problem) for problem in refused.value.problems]
    assert len(told) >= len(WRONG[text]) and MARK not in str(refused.value)
    for expected in WRONG[text]:
        assert any(expected in line for line in told), told


def test_a_list_of_many_uids_is_read(tmp_path: Path) -> None:
    """Files of a hundred thousand UIDs are read, and of many wrong lines the first are told."""
    many = "\n".join(f"1.2.{number}" for number in range(100_000)).encode()
    taking = parse_filter("StudyInstanceUID: {file: many}", "f", lambda name: many)
    assert taking.takes({"StudyInstanceUID": "1.2.99999"}) and not taking.takes({"StudyInstanceUID": "1.2.100000"})
    with pytest.raises(RequestError) as refused:
        parse_filter("StudyInstanceUID: {file: many}", "f", lambda name: b"x\n" * 1000)
    assert len(refused.value.problems) == 21 and "has 980 more such lines" in str(refused.value)


# ------------------------------------------------------------------------------------------------------------ scan


class Counting:
    """A source that notes how far it was read."""

    def __init__(self, data: bytes) -> None:
        self._source, self.size, self.furthest = BytesSource(data), len(data), 0

    def read(self, offset: int, length: int) -> bytes:
        self.furthest = max(self.furthest, offset + length)
        return self._source.read(offset, length)


E = Syntax().element


def stored(*more: tuple[int, bytes]) -> bytes:
    """A CT image of 15 March 2020 with the Accession Number Ä-1."""
    own = (0x00080020, E(0x00080020, "DA", "20200315")), (0x00080050, E(0x00080050, "SH", b"\xc4-1 "))
    return part10(minimal(Syntax(), *own, *more))


def scanned(text: str) -> bool:
    """Whether a scan under a filter takes that."""
    try:
        scan_instance(BytesSource(stored()), taking=parse_filter(text, "f"))
    except Filtered as filtered:
        assert filtered.reason == "not-taken"
        return False
    return True


@pytest.mark.parametrize(
    ("text", "taken"),
    {
        "Modality: CT": True,
        "Modality: MR": False,
        "StudyDate: 2020-03-15": True,
        "StudyDate: -20200314": False,
        "AccessionNumber: Ä-1": True,
        "AccessionNumber: A-1": False,
        f"SOPClassUID: {CT}": True,
        "SOPClassUID: MRImageStorage": False,
        "not: {StudyDate: 2020-03-15}": False,
    }.items(),
)
def test_a_scan_asks_the_instance_itself(text: str, taken: bool) -> None:
    """Decoded as its character set says, blanks around it dropped."""
    assert scanned(text) is taken


def test_an_instance_that_is_left_is_read_no_further_than_its_study() -> None:
    """What is left out costs the head of the file, however much stands behind it."""
    data = stored((0x7FE00010, E(0x7FE00010, "OW", bytes(4 << 20))))
    source = Counting(data)
    with pytest.raises(Filtered, match="not-taken"):
        scan_instance(source, taking=parse_filter("Modality: MR", "f"))
    assert source.furthest <= 2 << 20
    with pytest.raises(Filtered, match="not-taken"):  # and nothing behind that is judged
        scan_instance(BytesSource(data[:-9]), taking=parse_filter("Modality: MR", "f"))
    with pytest.raises(InvalidInstance, match="truncated"):
        scan_instance(BytesSource(data[:-9]), taking=parse_filter("Modality: CT", "f"))


def test_what_may_still_come_is_waited_for() -> None:
    """Where an attribute isn't where its tag would have it, the instance is read to its end before it is left out."""
    data, modality = stored((0x00080060, b""), (0x7FE00010, b"")), E(0x00080060, "CS", "CT")
    assert scan_instance(BytesSource(data + modality), taking=parse_filter("Modality: CT", "f")).modality == "CT"
    with pytest.raises(Filtered, match="not-taken"):
        scan_instance(BytesSource(data + modality), taking=parse_filter("Modality: MR", "f"))


def test_a_filter_changes_nothing_about_what_it_takes() -> None:
    """The plan knows of an instance what it would know without a filter."""
    data = stored()
    taking = parse_filter("{Modality: CT, StudyDate: 2020-01-01-, AccessionNumber: Ä-1}", "f")
    assert scan_instance(BytesSource(data), taking=taking) == scan_instance(BytesSource(data))


def test_filters_and_scan_name_the_same_attributes() -> None:
    """Every attribute that a filter may name is one that the scan asks for."""
    from dicomveil import scan

    assert set(scan._FILTERED.values()) == {*filters.LISTED, filters.STUDY_DATE}
