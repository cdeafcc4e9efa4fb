"""Text is read and written under every Specific Character Set of the Standard (PS3.3 C.12.1.1.2, PS3.5 6.1)."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dicomveil import charset
from dicomveil.charset import Undecodable, Unencodable, decode, decode_strict, encode, split_values

CODECS = {
    "100": "iso8859_1",
    "101": "iso8859_2",
    "109": "iso8859_3",
    "110": "iso8859_4",
    "126": "iso8859_7",
    "127": "iso8859_6",
    "138": "iso8859_8",
    "144": "iso8859_5",
    "148": "iso8859_9",
    "166": "tis_620",
    "203": "iso8859_15",
}
SAMPLES = {
    **{f"ISO_IR {number}": (bytes(range(0xA1, 0x100)).decode(codec, "ignore")) for number, codec in CODECS.items()},
    "ISO_IR 13": bytes(range(0xA1, 0xE0)).decode("shift_jis"),
    "ISO_IR 192": "äяع漢한😀",
    "GB18030": "äя漢한😀丂㐀",
    "GBK": "я漢丂镕",
    "\\ISO 2022 IR 87": "漢字かな山田Яα",
    "\\ISO 2022 IR 159": "丂丄丅äé",
    "\\ISO 2022 IR 149": "한국어洪吉洞",
    "\\ISO 2022 IR 58": "王小东张",
}
EXTENDED = {
    **{f"ISO 2022 IR {number}": SAMPLES[f"ISO_IR {number}"] for number in [*CODECS, "13"]},
    **{f"\\ISO 2022 IR {number}": SAMPLES[f"ISO_IR {number}"] for number in [*CODECS, "13"]},
    "ISO 2022 IR 13\\ISO 2022 IR 87\\ISO 2022 IR 159": SAMPLES["ISO_IR 13"] + "漢字丂",
    "ISO 2022 IR 100\\ISO 2022 IR 144\\ISO 2022 IR 126": "éüЯжωα",
    "ISO 2022 IR 6\\ISO 2022 IR 149\\ISO 2022 IR 87\\ISO 2022 IR 58": "한漢东吉",
    "ISO 2022 IR 100\\ISO 2022 IR 149\\ISO 2022 IR 87": "éü한漢é",
}
ALL = SAMPLES | EXTENDED
NOT_PYDICOMS = ("ISO_IR 203", "ISO 2022 IR 203", "\\ISO 2022 IR 203", "58")
VRS = sorted(charset.VRS)


def texts(term: str) -> st.SearchStrategy[str]:
    return st.text(st.sampled_from(ALL[term] + "aZ ~^=\\\n\t\r\f"), max_size=24)


@pytest.mark.parametrize("term", sorted(ALL))
@given(data=st.data())
def test_text_comes_back(term: str, data: st.DataObject) -> None:
    """For every text of a character set: it is read back the same, in each VR that the character set governs."""
    text = data.draw(texts(term))
    for vr in VRS:
        assert decode_strict(encode(text, term, vr == "PN"), term, vr) == text


@pytest.mark.parametrize("term", sorted(term for term in ALL if not term.endswith(NOT_PYDICOMS)))
@given(data=st.data())
def test_pydicom_reads_the_same(term: str, data: st.DataObject) -> None:
    """For every line of text: pydicom reads what was written as we do, in the sets that it knows."""
    text = data.draw(texts(term)).translate({ord(mark): None for mark in "\\^=\n\t\r\f"})
    assert decode(encode(text, term), term) == text


@pytest.mark.parametrize("term", sorted(ALL))
@given(data=st.data())
def test_values_are_parted_at_characters(term: str, data: st.DataObject) -> None:
    """For every list of values: a byte 5CH inside another character parts none (PS3.5 6.1.2.5.3)."""
    values = [text.replace("\\", "") for text in data.draw(st.lists(texts(term), min_size=1, max_size=4))]
    assume(any(values) or len(values) > 1)
    raw = encode("\\".join(values), term)
    assert split_values(raw, term) == values
    assert split_values(encode("\\".join(values), term, pn=True), term, "PN") == values


@pytest.mark.parametrize("term", sorted(ALL))
@given(raw=st.binary(max_size=12) | st.text("\x1b()$-BJIACDaé漢", max_size=12).map(lambda text: text.encode("gb18030")))
def test_what_is_read_strictly_is_what_can_be_written(term: str, raw: bytes) -> None:
    """For every bytes: they are refused, or text that the character set expresses, if not by the same bytes."""
    try:
        text = decode_strict(raw, term, "LO")
    except Undecodable:
        return
    if "\x1b" not in text:
        assert decode_strict(encode(text, term), term, "LO") == text


@pytest.mark.parametrize(
    ("term", "text", "raw"),
    [
        ("ISO_IR 100", "Äneas^Rüdiger", b"\xc4neas^R\xfcdiger"),
        ("ISO_IR 192", "Wang^XiaoDong=王^小东", b"Wang^XiaoDong=\xe7\x8e\x8b^\xe5\xb0\x8f\xe4\xb8\x9c"),
        ("GB18030", "Wang^XiaoDong=王^小东", b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab"),
        (
            "\\ISO 2022 IR 87",
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
        ),
        (
            "ISO 2022 IR 13\\ISO 2022 IR 87",
            "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
            b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
        ),
        (
            "\\ISO 2022 IR 149",
            "Hong^Gildong=洪^吉洞=홍^길동",
            b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
        ),
        ("\\ISO 2022 IR 58", "Zhang^XiaoDong=张^小东", b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab"),
    ],
)
def test_names_are_written_as_in_the_standards_examples(term: str, text: str, raw: bytes) -> None:
    """The names of PS3.5 Annexes H, I, J and K have these bytes."""
    assert encode(text, term, pn=True) == raw
    assert decode_strict(raw, term, "PN") == text


@pytest.mark.parametrize(
    ("term", "text"),
    [
        ("", "Müller"),
        ("ISO_IR 6", "é"),
        ("ISO_IR 100", "漢字"),
        ("ISO_IR 100", "€"),
        ("ISO_IR 100", "\x85"),
        ("ISO_IR 13", "漢"),
        ("ISO_IR 13", "¥"),
        ("\\ISO 2022 IR 149", "똠"),
        ("GBK", "😀"),
        ("ISO_IR 192", "\ud800"),
        ("ISO_IR 192", "a\x1b(B"),
        ("ISO_IR 100", "\x1b"),
        ("ISO 2022 IR 100", "Я"),
    ],
)
def test_what_a_character_set_lacks_is_refused(term: str, text: str) -> None:
    """A character that can't be expressed is never dropped or replaced, and never quoted."""
    with pytest.raises(Unencodable) as caught:
        encode(text, term)
    assert text not in str(caught.value)


@pytest.mark.parametrize(
    ("term", "raw", "vr"),
    [
        ("", b"M\xfcller", "LO"),
        ("ISO_IR 100", b"\x92", "LO"),
        ("ISO_IR 100", b"\x1b-Aa", "LO"),
        ("ISO_IR 13", b"\x8a\xbf", "LO"),
        ("ISO_IR 13", b"\xe0\xa1", "LO"),
        ("ISO_IR 127", b"\xa1", "LO"),
        ("ISO_IR 192", b"\xff", "LO"),
        ("ISO_IR 192", b"\xc0\x80", "LO"),
        ("ISO_IR 192", b"\x1b(B", "LO"),
        ("GB18030", b"\x81", "LO"),
        ("\\ISO 2022 IR 87", b"\x1b$)C\xc8\xab", "LO"),
        ("\\ISO 2022 IR 87", b"\x1b$B;3E", "LO"),
        ("\\ISO 2022 IR 149", b"\xc8\xab", "LO"),
        ("\\ISO 2022 IR 149", b"\x1b$)C\xc8", "LO"),
        ("\\ISO 2022 IR 149", b"\x1b$)C\xc8\xab^\xc8\xab", "PN"),
        ("ISO_IR 192", b"\xc3\xa4", "CS"),
        ("ISO_IR 192", b"\xc3\xa4", "UI"),
    ],
)
def test_bytes_that_mean_nothing_are_refused(term: str, raw: bytes, vr: str) -> None:
    """A byte or escape sequence that the character set lacks is never read as something else, and never quoted."""
    with pytest.raises(Undecodable) as caught:
        decode_strict(raw, term, vr)
    assert repr(raw)[2:-1] not in str(caught.value)


@pytest.mark.parametrize(
    "term",
    [
        "ISO_IR 999",
        "iso_ir 100",
        "ISO IR 100",
        "UTF-8",
        "latin_1",
        "ISO_IR 87",
        "ISO_IR 192\\ISO 2022 IR 87",
        "\\GBK",
        "ISO 2022 IR 100\\",
    ],
)
def test_unknown_character_sets_are_refused(term: str) -> None:
    """Only what the Standard defines, alone or together, says how text is encoded; a Python codec's name doesn't."""
    with pytest.raises(Undecodable):
        decode_strict(b"a", term, "LO")
    with pytest.raises(Unencodable):
        encode("a", term)
    assert decode_strict(b"A", term, "CS") == "A"


def test_a_byte_5c_inside_a_character_is_no_backslash() -> None:
    """The second byte of 誠 in GBK is 5CH, as of ＋ in JIS X 0208 (PS3.5 6.1.2.5.3)."""
    assert encode("誠", "GBK").endswith(b"\\") and split_values(encode("誠\\誠", "GBK"), "GBK") == ["誠", "誠"]
    raw = b"\x1b$B\x21\\\x1b(B\\a"
    assert split_values(raw, "\\ISO 2022 IR 87") == ["＋", "a"]


def test_a_backslash_parts_no_long_text() -> None:
    """ST, LT, UT and UR have one value, in which a backslash is a character (PS3.5 6.2)."""
    assert split_values(b"a\\b", "", "ST") == ["a\\b"] and split_values(b"a\\b ", "", "SH") == ["a", "b "]
    assert split_values(b"", "") == []


def test_every_double_byte_character_is_read_as_python_reads_it() -> None:
    """All 8836 places of each 94x94 set mean what Python's own ISO 2022 codecs mean by them."""
    for term, escape, codec in (("87", b"\x1b$B", "iso2022_jp"), ("159", b"\x1b$(D", "iso2022_jp_2")):
        for place in range(94 * 94):
            raw = escape + bytes([0x21 + place // 94, 0x21 + place % 94])
            try:
                expected = raw.decode(codec)
            except UnicodeDecodeError:
                with pytest.raises(Undecodable):
                    decode_strict(raw, f"\\ISO 2022 IR {term}", "LO")
            else:
                assert decode_strict(raw, f"\\ISO 2022 IR {term}", "LO") == expected
