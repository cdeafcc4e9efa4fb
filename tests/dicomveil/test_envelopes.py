"""Originals are sealed for their recipients and come back whole, and nobody else learns anything (PS3.15 E.1.1, E.1.2)."""

import datetime
import io
import json
import pickle
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pydicom
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dicomveil import Deidentifier, standard
from dicomveil.body import parse_request
from dicomveil.certificates import CertificateProblem, fingerprint, read_certificate
from dicomveil.compile import compile_request
from dicomveil.envelopes import MOST, Envelopes
from dicomveil.errors import InvalidInstance, RequestError
from dicomveil.explain import explain
from dicomveil.keys import Keys
from dicomveil.reidentifier import NOT_RESTORED, NotRestored, restore
from dicomveil.request import Request
from dicomveil.rewrite import Rewriter
from dicomveil.scan import scan_instance
from dicomveil.stream import BytesSource, tag_text
from dicomveil.study import Identities, lone_study_map
from dicomveil.testing import BIG, DEFLATED, EXPLICIT, IMPLICIT, UNDEFINED, Syntax, minimal, part10
from tests.corpora import BUNDLED, KEY
from tests.recipients import Recipient, recipient

SYNTAXES = {"explicit": EXPLICIT, "implicit": IMPLICIT, "big endian": BIG, "deflated": DEFLATED}
ENCRYPTED, MODIFIED, CONTENT = 0x04000500, 0x04000550, 0x04000520
DIRECTORY = Path(__file__).parent.parent / "cases"
E = Syntax()
# On the way back alone these differ from the original: what de-identification did is told no more.
MARKS = {0x00120062, 0x00120063, 0x00120064, 0x00280303, ENCRYPTED}


def cases(name: str) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in yaml.safe_load((DIRECTORY / name).read_text("utf-8"))]


def engine(*recipients: Recipient, **members: object) -> Deidentifier:
    body = {"EncryptFor": [it.pem for it in recipients or (recipient(),)], "BurnedIn": "pass", **members}
    return Deidentifier(parse_request(json.dumps(body)), key=KEY)


def read(data: bytes) -> Dataset:
    return pydicom.dcmread(io.BytesIO(data), force=True)


def there_and_back(data: bytes, **members: object) -> tuple[Dataset, Dataset, Dataset]:
    """An instance before, de-identified, and restored."""
    out = engine(**members).rewrite(data)
    return read(data), read(out), read(restore(BytesSource(out), recipient().opener).to_bytes())


def without_sequence(data: bytes) -> bytes:
    """A file in explicit little endian without its Encrypted Attributes Sequence."""
    at = data.index(b"\x00\x04\x00\x05SQ\0\0")
    return data[:at] + data[at + 12 + int.from_bytes(data[at + 8 : at + 12], "little") :]


def sealed(data: bytes, who: Recipient | None = None) -> Dataset:
    """The one Item of originals, opened by pydicom and our key alone."""
    (item,) = read(data)[ENCRYPTED].value
    content = (who or recipient()).opener.open(der(item[CONTENT].value))
    assert content is not None and item.EncryptedContentTransferSyntaxUID == EXPLICIT
    inner = pydicom.dcmread(io.BytesIO(part10(content)))
    assert [element.tag for element in inner] == [MODIFIED]
    (originals,) = inner.ModifiedAttributesSequence
    return originals


def der(content: bytes) -> bytes:
    """A DER value of long length without its padding."""
    assert content[1] == 0x82
    return content[: 4 + int.from_bytes(content[2:4], "big")]


# ------------------------------------------------------------------------------------------------------ certificates


@pytest.mark.parametrize("case", cases("certificates.yaml"))
def test_a_certificate_that_cannot_serve_is_a_mistake_of_the_request(case: dict[str, Any], tmp_path: Path) -> None:
    """What nothing may be encrypted for is refused before anything runs, with line and remedy, and never quoted."""
    made = {
        name: at(value) if name in ("since", "until") else value for name, value in case.get("recipient", {}).items()
    }
    text = (recipient(**made).pem if "recipient" in case else "") * (1 + case.get("twice", False)) + case.get(
        "text", ""
    )
    (tmp_path / "c.pem").write_text(text)
    body = "# a comment\nEncryptFor:\n- c.pem\n"
    if "remedy" not in case:
        request = parse_request(body, "r.yaml", read_in(tmp_path), case.get("today"))
        assert request.encrypt_for == (text,)
        return
    with pytest.raises(RequestError) as refused:
        parse_request(body, "r.yaml", read_in(tmp_path), case.get("today"))
    (problem,) = refused.value.problems
    assert (problem.where, problem.remedy) == ("r.yaml:3 EncryptFor[0]", case["remedy"])
    assert "Zubikax" not in str(refused.value)


def at(day: datetime.date) -> datetime.datetime:
    return datetime.datetime(day.year, day.month, day.day, 12)


def read_in(folder: Path) -> Any:
    return lambda name: (folder / name).read_bytes()


def test_all_that_is_wrong_with_recipients_is_told_at_once(tmp_path: Path) -> None:
    """A file that isn't there, one that is given twice and an attribute that doesn't exist come together."""
    (tmp_path / "a.pem").write_text(recipient().pem)
    body = "EncryptFor: [a.pem,\n missing.pem,\n a.pem]\nEncryptAttributes: [PatientNam]\nKeep: [StudyDay]\n"
    with pytest.raises(RequestError) as refused:
        parse_request(body, "r.yaml", read_in(tmp_path))
    assert [problem.where for problem in refused.value.problems] == [
        "r.yaml:2 EncryptFor[1]", "r.yaml:3 EncryptFor[2]", "r.yaml:4 EncryptAttributes[0]", "r.yaml:5 Keep[0]",
    ]  # fmt: skip


def test_a_body_alone_names_no_files() -> None:
    """Where there is no folder to read from, a path is a mistake and a certificate's own text is not."""
    with pytest.raises(RequestError, match="can't be read from here"):
        parse_request("EncryptFor: [a.pem]")
    assert parse_request(json.dumps({"EncryptFor": [recipient().pem]})).encrypt_for == (recipient().pem,)


@pytest.mark.parametrize("case", cases("encrypted.yaml"))
def test_what_is_encrypted_is_named_at_the_top_level(case: dict[str, Any], tmp_path: Path) -> None:
    """An attribute that can't be sealed and put back as one is refused by name."""
    (tmp_path / "a.pem").write_text(recipient().pem)
    body = f"EncryptFor: [a.pem]\nEncryptAttributes: {json.dumps(case['attributes'])}\n"
    try:
        parse_request(body, "r.yaml", read_in(tmp_path))
        told = {}
    except RequestError as refused:
        told = {problem.where: problem.remedy for problem in refused.problems}
    assert told == case.get("problems", {})


def test_a_line_that_cannot_have_an_effect_is_a_mistake(tmp_path: Path) -> None:
    """Attributes to encrypt for nobody, and a rule for the sequence that is written anyway."""
    with pytest.raises(RequestError, match="has no effect"):
        parse_request("EncryptAttributes: [PatientName]")
    body = {"EncryptFor": [recipient().pem], "Remove": ["EncryptedAttributesSequence"]}
    with pytest.raises(RequestError, match="is written by EncryptFor"):
        parse_request(json.dumps(body))


def test_only_the_certificate_travels() -> None:
    """What else a PEM file says stays behind; the request that goes to workers holds what is public."""
    noisy = b"Bag Attributes: Zubikax\n" + recipient().pem.encode() + b"Zubikax\n"
    assert read_certificate(noisy) == recipient().pem
    request = parse_request(json.dumps({"EncryptFor": [recipient().pem]}))
    assert b"PRIVATE" not in pickle.dumps(request.for_workers())
    assert pickle.loads(pickle.dumps(request.for_workers())) == request


def test_a_request_that_encrypts_survives_being_written_down() -> None:
    """Its members say it in full, its fingerprint follows the certificate, and a request without has its old one."""
    body = {"EncryptFor": [recipient().pem], "EncryptAttributes": ["PatientName", "0010,0020"]}
    request = parse_request(json.dumps(body))
    again = parse_request(json.dumps(request.members()))
    assert again == request and again.fingerprint == request.fingerprint
    other = parse_request(json.dumps(body | {"EncryptFor": [recipient("second").pem]}))
    assert len({request.fingerprint, other.fingerprint, Request().fingerprint}) == 3
    assert Request().fingerprint == "39af5e25953e4555"


def test_the_statement_tells_what_is_encrypted() -> None:
    """PS3.15 E.1.3: attributes, transfer syntax and certificates of the encrypted sets are told."""
    request = parse_request(json.dumps({"EncryptFor": [recipient().pem]}))
    statement = explain(request)
    assert fingerprint(recipient().pem) in statement and "BEGIN CERTIFICATE" not in statement
    assert "(0400,0500) | EncryptedAttributesSequence | removed, and originals are encrypted" in statement
    named = parse_request(json.dumps({"EncryptFor": [recipient().pem], "EncryptAttributes": ["PatientName"]}))
    assert "The originals of PatientName" in explain(named)
    assert "Nothing is encrypted" in explain(Request())


# ------------------------------------------------------------------------------------------------------ there and back


@pytest.mark.parametrize("uid", SYNTAXES.values(), ids=SYNTAXES)
def test_what_was_changed_at_the_top_comes_back(uid: str) -> None:
    """Every top-level attribute of a small image comes back to the byte, in each transfer syntax, and says so."""
    data = part10(minimal(Syntax(uid)), uid)
    before, out, after = there_and_back(data)
    assert not {str(before.PatientName), before.PatientID, before.StudyDate} & {
        str(out.PatientName),
        out.PatientID,
        out.StudyDate,
    }
    assert [after[e.tag] for e in before] == list(before)
    assert {int(e.tag) for e in after} - {int(e.tag) for e in before} == {0x00120062, 0x00280303}
    assert (after.PatientIdentityRemoved, after.LongitudinalTemporalInformationModified) == ("NO", "UNMODIFIED")
    assert after.file_meta.MediaStorageSOPInstanceUID == before.SOPInstanceUID
    assert after.file_meta.TransferSyntaxUID == uid
    assert [int(e.tag) for e in out] == sorted(int(e.tag) for e in out)


TEXTS = st.text("abcXYZ äßé^=-", max_size=12).map(str.strip)
NAMES = [
    (0x00080050, "SH"), (0x00080081, "ST"), (0x00080090, "PN"), (0x00081030, "LO"), (0x00081070, "PN"),
    (0x00100010, "PN"), (0x00104000, "LT"), (0x00204000, "LT"), (0x00321060, "LO"), (0x00380010, "LO"),
]  # fmt: skip
DAYS = st.dates(datetime.date(1900, 1, 1), datetime.date(2100, 1, 1)).map(lambda day: f"{day:%Y%m%d}")
NUMBERS = st.lists(st.integers(1, 10**9), min_size=2, max_size=6).map(lambda them: "1." + ".".join(map(str, them)))


@st.composite
def files(draw: st.DrawFn) -> tuple[bytes, str]:
    """A small image whose texts, dates, numbers and UIDs are drawn, some of them missing; and its transfer syntax."""
    uid = draw(st.sampled_from(sorted(SYNTAXES.values())))
    syntax = Syntax(uid)
    order = syntax.order
    more = [(tag, syntax.element(tag, vr, padded(draw(TEXTS)))) for tag, vr in NAMES if draw(st.booleans())]
    more += [(tag, syntax.element(tag, "DA", draw(DAYS))) for tag in (0x00080020, 0x00080021) if draw(st.booleans())]
    more += [(tag, syntax.element(tag, "UI", draw(NUMBERS))) for tag in (0x00080018, 0x0020000D, 0x00200052)]
    weight = struct.pack(order + "d", draw(st.floats(1, 300)))
    more.append((0x00189073, syntax.element(0x00189073, "FD", weight)))
    item = syntax.element(0x00081150, "UI", "1.2.840.10008.5.1.4.1.1.2") + syntax.element(
        0x00081155, "UI", draw(NUMBERS)
    )
    item += syntax.element(0x00189074, "DT", draw(DAYS)) + syntax.element(0x00189087, "FD", weight)
    undefined, inside = draw(st.booleans()), draw(st.booleans())
    more.append(
        (0x00081140, syntax.sequence(0x00081140, [item] * draw(st.integers(0, 3)), undefined, item_undefined=inside))
    )
    return part10(minimal(syntax, *more), uid), uid


def padded(text: str) -> bytes:
    raw = text.encode("iso8859-1")
    return raw + b" " * (len(raw) % 2)


@settings(max_examples=60)
@given(files(), st.booleans())
def test_there_and_back_is_where_it_began(drawn: tuple[bytes, str], named: bool) -> None:
    """Whatever the top level holds, it comes back as it was, a sequence too where it is named; pixels never move."""
    data, uid = drawn
    node = compile_request(Request()).node("1.2.840.10008.5.1.4.1.1.2")
    changed = [
        e.keyword
        for e in read(data)
        if node[int(e.tag)] and int(e.tag) not in MARKS and e.keyword != "SpecificCharacterSet"
    ]
    changed = [it for it in changed if it not in ("PixelData",)]
    before, out, after = there_and_back(data, **({"EncryptAttributes": changed} if named else {}))
    assert after.file_meta.TransferSyntaxUID == out.file_meta.TransferSyntaxUID == uid
    for element in before:
        if element.VR != "SQ" or named:
            assert after[element.tag] == element, tag_text(element.tag)
    assert ENCRYPTED not in after and out.PixelData == before.PixelData == after.PixelData
    nested = bool(before.ReferencedImageSequence)
    assert after.LongitudinalTemporalInformationModified == ("REMOVED" if nested and not named else "UNMODIFIED")


def test_a_sequence_that_is_named_comes_back_whole() -> None:
    """Numbers, private elements and Items of Items are what they were, in each encoding; without it they stay changed."""
    for uid in SYNTAXES.values():
        s = Syntax(uid)
        deep = s.sequence(0x0040A170, [s.element(0x00080104, "LO", "of Zubikax")], True)
        private = s.element(0x00290010, "LO", "ACME") + s.element(0x00291001, "LO", "of Zubikax")
        item = s.element(0x00081155, "UI", "1.2.3") + s.element(0x00280010, "US", 258) + private + deep
        data = part10(minimal(s, (0x00081140, s.sequence(0x00081140, [item, item], True, item_undefined=True))), uid)
        before, out, after = there_and_back(data, EncryptAttributes=["ReferencedImageSequence"])
        for mine, theirs in zip(after[0x00081140].value, before[0x00081140].value, strict=True):
            assert mine.to_json() == theirs.to_json()
        assert after.PatientName == out.PatientName != before.PatientName
        _, out, after = there_and_back(data)
        assert after[0x00081140].to_json(0, None) == out[0x00081140].to_json(0, None)


CHARSETS = {"latin": ("ISO_IR 100", "Bödöx^Kälex"), "greek": ("ISO_IR 126", "Διονυσιος"), "none": ("", "Bodox")}


@pytest.mark.parametrize("charset", CHARSETS.values(), ids=CHARSETS)
@pytest.mark.parametrize("sequence", [False, True], ids=["top", "sequence"])
def test_text_is_what_it_was_where_the_instance_became_utf_8(charset: tuple[str, str], sequence: bool) -> None:
    """Originals keep their character set in the envelope, and follow the instance's when they are put back."""
    ds = read(part10(minimal(E)))
    term, name = charset
    ds.SpecificCharacterSet, ds.PatientName, ds.StudyDescription = term, name, name
    item = Dataset()
    item.PatientName = name
    ds.ReferencedPatientSequence = Sequence([item])
    stored = io.BytesIO()
    ds.save_as(stored)
    members = {"Replace": {"SpecificCharacterSet": "ISO_IR 192"}}
    if sequence:
        members |= {"EncryptAttributes": ["ReferencedPatientSequence", "PatientName"]}
    before, _, after = there_and_back(stored.getvalue(), **members)
    assert after.SpecificCharacterSet == "ISO_IR 192" and after.PatientName == before.PatientName == name
    originals = sealed(engine(**members).rewrite(stored.getvalue()))
    assert originals.PatientName == name and originals.get("SpecificCharacterSet", "") == term
    if sequence:
        assert after.ReferencedPatientSequence[0].PatientName == name
    else:
        assert after.StudyDescription == name


def test_dates_are_told_changed_as_long_as_any_is() -> None:
    """(0028,0303) is restored only where no date is left behind, and to what it was (PS3.3 C.12.1)."""
    dates = parse_request(json.dumps({"EncryptFor": [recipient().pem], "EncryptAttributes": ["PatientName"]}))
    some = Deidentifier(dates, key=KEY).rewrite(part10(minimal(E)))
    assert (
        read(restore(BytesSource(some), recipient().opener).to_bytes()).LongitudinalTemporalInformationModified
        == "REMOVED"
    )
    gone = E.sequence(0x00400275, [E.element(0x00400002, "DA", "20240101")])
    *_, after = there_and_back(part10(minimal(E, (0x00400275, gone))))
    assert after.LongitudinalTemporalInformationModified == "REMOVED"
    said = E.element(0x00280303, "CS", "MODIFIED")
    *_, after = there_and_back(part10(minimal(E, (0x00280303, said))))
    assert after.LongitudinalTemporalInformationModified == "MODIFIED"


def test_an_envelope_of_the_input_is_not_passed_on() -> None:
    """What somebody else had sealed identifies too: it is removed, also where it comes twice, and ours takes its place."""
    theirs = E.sequence(ENCRYPTED, [E.element(CONTENT, "OB", b"Zubikax!")])
    for times in (1, 2):
        data = part10(minimal(E, (ENCRYPTED, theirs * times)))
        out = engine().rewrite(data)
        assert b"Zubikax" not in out and out.count(b"\x00\x04\x00\x05SQ") == 1
        assert read(restore(BytesSource(out), recipient().opener).to_bytes()).PatientID == "4711"


def test_a_request_that_changes_nothing_named_encrypts_nothing() -> None:
    """An attribute that stays as it is needs no envelope."""
    out = engine(EncryptAttributes=["Modality", "PatientComments"]).rewrite(part10(minimal(E)))
    assert ENCRYPTED not in read(out)
    theirs = E.sequence(ENCRYPTED, [E.element(CONTENT, "OB", b"Zubikax!")])
    out = engine(EncryptAttributes=["Modality"]).rewrite(part10(minimal(E, (ENCRYPTED, theirs))))
    assert ENCRYPTED not in read(out) and b"Zubikax" not in out


def test_originals_that_cannot_be_held_set_the_instance_aside() -> None:
    """Memory is bounded: more than 16 MiB of originals is a reason, and told by tag."""
    text = E.element(0x0040A160, "UT", b"x" * (MOST + 2))
    with pytest.raises(InvalidInstance) as raised:
        engine().rewrite(part10(minimal(E, (0x0040A160, text))))
    assert (raised.value.reason, raised.value.path) == ("envelope-size", "(0040,A160)")


# ------------------------------------------------------------------------------------------------------- what it costs


def test_two_runs_agree_but_for_the_envelope() -> None:
    """Reproducible but for (0400,0500), and without EncryptFor to the byte."""
    data = part10(minimal(E))
    first, second = (engine().rewrite(data) for _ in range(2))
    assert first != second and without_sequence(first) == without_sequence(second)
    plain = Deidentifier(Request(burned_in="pass"), key=KEY).rewrite(data)
    assert without_sequence(first) == plain == Deidentifier(Request(burned_in="pass"), key=KEY).rewrite(data)


def test_who_does_not_encrypt_never_loads_the_library() -> None:
    """The rule is off by default and then costs nothing, not even an import."""
    code = (
        "import sys; from dicomveil import Deidentifier; from dicomveil.testing import *; import pipelines.cli;"
        f"Deidentifier(key={KEY!r}).rewrite(part10(minimal(Syntax()))); sys.exit('cryptography' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=DIRECTORY.parent.parent).returncode == 0


def test_the_audit_names_the_sequence_and_its_rule() -> None:
    """One change more, by rule EncryptFor, and none of what is in it."""
    request = parse_request(json.dumps({"EncryptFor": [recipient().pem]}))
    source, keys = BytesSource(part10(minimal(E))), Keys(KEY)
    scan = scan_instance(source)
    rewritten = Rewriter(compile_request(request), keys).rewrite(
        source, scan, lone_study_map(scan, Identities(keys, request))
    )
    (change,) = [change for change in rewritten.changes if change.rule == "EncryptFor"]
    assert change == ("(0400,0500)", "EncryptedAttributesSequence", "SQ", "D", "EncryptFor")


# ------------------------------------------------------------------------------------------------------------- who opens


def test_each_recipient_opens_and_nobody_else() -> None:
    """Of one envelope both recipients read the same; a third, or a wrong key, reads nothing."""
    first, second, third = recipient("first"), recipient("second"), recipient("third")
    data = part10(minimal(E))
    out = engine(first, second).rewrite(data)
    both = [restore(BytesSource(out), who.opener).to_bytes() for who in (first, second)]
    assert both[0] == both[1] and read(both[0]).PatientID == "4711"
    assert len(read(out)[ENCRYPTED].value) == 1
    with pytest.raises(NotRestored) as raised:
        restore(BytesSource(out), third.opener)
    assert raised.value.reason == "other-recipient"
    with pytest.raises(NotRestored) as raised:
        restore(BytesSource(out), Recipient(first.certificate, third.key).opener)
    assert raised.value.reason == "not-opened"


def test_an_instance_without_an_envelope_is_told_so() -> None:
    """There is nothing to restore where nothing was encrypted."""
    out = Deidentifier(key=KEY).rewrite(part10(minimal(E)))
    with pytest.raises(NotRestored) as raised:
        restore(BytesSource(out), recipient().opener)
    assert raised.value.reason == "no-envelope" and set(NOT_RESTORED) >= {raised.value.reason}


@settings(max_examples=80)
@given(st.data())
def test_a_broken_envelope_restores_nothing_and_quotes_nothing(data: st.DataObject) -> None:
    """Whatever bytes of the sequence are changed, it is refused or opens to the very originals; no value is told."""
    out = bytearray(part10_sealed())
    begin = out.index(b"\x00\x04\x00\x05SQ")
    where = data.draw(st.integers(begin + 12, begin + 12 + int.from_bytes(out[begin + 8 : begin + 12], "little") - 1))
    out[where] ^= data.draw(st.integers(1, 255))
    try:
        restore(BytesSource(bytes(out)), recipient().opener).to_bytes()
    except (NotRestored, InvalidInstance) as refused:
        assert not any(word in str(refused) for word in ("Bodox", "4711", "20240102"))


def part10_sealed() -> bytes:
    return engine().rewrite(part10(minimal(E)))


FORBIDDEN = {
    "meta": E.element(0x00020003, "UI", "1.2.3"),
    "group length": E.element(0x00080000, "UL", 4),
    "directory": E.element(0x00041130, "CS", "X"),
}


@pytest.mark.parametrize("element", FORBIDDEN.values(), ids=FORBIDDEN)
def test_an_envelope_cannot_put_back_what_no_data_set_holds(element: bytes) -> None:
    """Whoever has the certificate can make an envelope: groups of files and directories are refused."""
    with pytest.raises(NotRestored) as raised:
        restore(BytesSource(foreign(E.sequence(MODIFIED, [element]))), recipient().opener)
    assert raised.value.reason == "not-opened"


def foreign(content: bytes, syntax: str = EXPLICIT) -> bytes:
    """An instance with an envelope that another tool made."""
    envelope = Envelopes((recipient().pem,)).seal(content)
    item = E.element(0x04000510, "UI", syntax) + E.element(CONTENT, "OB", envelope + b"\0" * (len(envelope) % 2))
    return part10(minimal(E, (ENCRYPTED, E.sequence(ENCRYPTED, [item], True, item_undefined=True))))


def test_envelopes_of_other_tools_open() -> None:
    """Implicit little endian, undefined lengths and several Items, the first of which wins, come back too."""
    i = Syntax(IMPLICIT)
    content = i.sequence(MODIFIED, [i.element(0x00100010, "PN", "Zubikax")], True, item_undefined=True)
    after = read(restore(BytesSource(foreign(content, IMPLICIT)), recipient().opener).to_bytes())
    assert after.PatientName == "Zubikax" and after.PatientIdentityRemoved == "NO"
    with pytest.raises(NotRestored):
        restore(BytesSource(foreign(content, "1.2.840.10008.1.2.4.50")), recipient().opener)
    with pytest.raises(NotRestored):
        restore(BytesSource(foreign(b"")), recipient().opener)


def test_pixels_of_any_length_stay_where_they_are() -> None:
    """Encapsulated Pixel Data and all that isn't restored is copied byte for byte, there and back."""
    fragments = E.item(b"") + E.item(bytes(range(256)) * 5000)
    pixels = E.element(0x7FE00010, "OB", fragments + E.tag(0xFFFEE0DD) + bytes(4), UNDEFINED)
    out = engine(BitstreamComments="keep").rewrite(part10(minimal(E, (0x7FE00010, pixels)), "1.2.840.10008.1.2.4.90"))
    back = restore(BytesSource(out), recipient().opener).to_bytes()
    assert pixels in out and pixels in back


def test_nothing_that_is_shown_holds_a_key_or_a_value() -> None:
    """An opener is never pickled, and neither it nor a restored instance prints what it holds."""
    with pytest.raises(TypeError):
        pickle.dumps(recipient().opener)
    restored = restore(BytesSource(part10_sealed()), recipient().opener)
    assert repr(restored) == "Restored(count=7)"
    with pytest.raises(CertificateProblem) as refused:
        read_certificate(b"Zubikax")
    assert "Zubikax" not in repr(refused.value)


# -------------------------------------------------------------------------------------------------------------- oracles


OPENSSL = shutil.which("openssl")


@pytest.mark.skipif(not OPENSSL, reason="openssl is not installed")
def test_openssl_opens_what_we_seal(tmp_path: Path) -> None:
    """Another implementation of CMS reads AES-256 in CBC mode under RSA, and gets the data set that we meant."""
    who, out = recipient(), part10_sealed()
    (tmp_path / "key.pem").write_bytes(who.key_pem())
    (tmp_path / "certificate.pem").write_text(who.pem)
    (tmp_path / "envelope").write_bytes(read(out)[ENCRYPTED][0][CONTENT].value)
    command = [str(OPENSSL), "cms", "-inform", "DER", "-in", "envelope"]
    opened = subprocess.run([*command, "-decrypt", "-binary", "-inkey", "key.pem", "-recip", "certificate.pem"],
                            cwd=tmp_path, capture_output=True, check=True).stdout  # fmt: skip
    originals = pydicom.dcmread(io.BytesIO(part10(opened))).ModifiedAttributesSequence[0]
    assert {e.keyword: str(e.value) for e in originals} == {
        "SpecificCharacterSet": "ISO_IR 100", "SOPInstanceUID": "1.2.3.4.5", "StudyDate": "20240102",
        "PatientName": "Bodox^Kalex", "PatientID": "4711", "StudyInstanceUID": "1.2.3.4", "SeriesInstanceUID": "1.2.3.4.1",
        "FrameOfReferenceUID": "1.2.3.4.9", "LongitudinalTemporalInformationModified": "UNMODIFIED",
    }  # fmt: skip
    told = subprocess.run([*command, "-cmsout", "-print"], cwd=tmp_path, capture_output=True, check=True).stdout
    assert b"aes-256-cbc" in told and b"rsaEncryption" in told


REAL = [
    BUNDLED / "test_files" / name
    for name in ("CT_small.dcm", "MR_small.dcm", "rtplan.dcm", "rtstruct.dcm", "test-SR.dcm")
]


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_real_instances_come_back(path: Path) -> None:
    """Of real instances too every top-level attribute that was changed and is no sequence is what it was."""
    before, out, after = there_and_back(path.read_bytes())
    private = {int(e.tag) for e in before if e.tag.is_private}
    known = standard.dictionary()
    for element in before:
        if int(element.tag) in MARKS | private or element.VR in ("SQ", "OB", "OW") or int(element.tag) not in known:
            continue
        if element.tag.element:
            assert after[element.tag] == element, tag_text(element.tag)
    assert after.get("PixelData") == out.get("PixelData")
