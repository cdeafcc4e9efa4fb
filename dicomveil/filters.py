"""Which instances a run takes: by modality, SOP Class, study date, Study Instance UID and Accession Number.

What a filter names are originals, so it has no repr, and no message quotes it. How it gets to the workers is settled
elsewhere.
"""

import datetime
import difflib
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, NamedTuple

from dicomveil.markup import Way, read_markup
from dicomveil.mistakes import Mistakes, closest

STUDY_DATE: Final = "StudyDate"
LISTED: Final = ("Modality", "SOPClassUID", "StudyInstanceUID", "AccessionNumber")
NOT: Final = "not"
ANY: Final = "any"
MEMBERS: Final = (*LISTED, STUDY_DATE, NOT, ANY)
LARGEST_LIST: Final = 1 << 28
"""Bytes of a file that a filter names: some four million UIDs."""
_IN_FILES: Final = ("StudyInstanceUID", "AccessionNumber")
_BOUNDS: Final = ("from", "to", "absent")
_MOST_TOLD: Final = 20
_MOST_NESTED: Final = 16
_WRITTEN: Final = r"[0-9]{8}|[0-9]{4}-[0-9]{2}-[0-9]{2}"
_SPAN: Final = re.compile(rf"(?:({_WRITTEN})|({_WRITTEN})?\s*-\s*({_WRITTEN})?)")
_STORED: Final = re.compile(r"[0-9]{8}|[0-9]{4}\.[0-9]{2}\.[0-9]{2}")
_CODE: Final = re.compile(r"[A-Z0-9 _]{1,16}")
_UID: Final = re.compile(r"(?=.{3,64}$)[0-9]+(?:\.[0-9]+)+")  # leading zeros are wrong, and stored all the same


class Days(NamedTuple):
    """A range of days, both ends in it, as YYYYMMDD; "" for an open end.

    Attributes:
      absent: whether what has no date is in it, or one that is none.
    """

    first: str
    last: str
    absent: bool = False

    def holds(self, study_date: str) -> bool:
        """Whether a Study Date as it is stored, YYYYMMDD or as ACR-NEMA had it YYYY.MM.DD, is in the range."""
        day = study_date.replace(".", "") if _STORED.fullmatch(study_date) else ""
        if not _is_day(day):
            return self.absent
        return self.first <= day <= (self.last or day)


@dataclass(frozen=True, repr=False)
class Filter:
    """What must be so of an instance that is taken: every member that is given.

    Attributes:
      listed: attributes by keyword, with the values of which each must have one.
      days: in which the Study Date must lie.
      none_of: what must not be so.
      any_of: of which one must be so; empty for no such condition.
    """

    listed: tuple[tuple[str, frozenset[str]], ...] = ()
    days: Days | None = None
    none_of: "Filter | None" = None
    any_of: tuple["Filter", ...] = ()

    def takes(self, said: Mapping[str, str]) -> bool:
        """Whether an instance is taken that says this of itself, by keyword; what it lacks is absent or ""."""
        return (
            all(said.get(keyword, "") in values for keyword, values in self.listed)
            and (self.days is None or self.days.holds(said.get(STUDY_DATE, "")))
            and (self.none_of is None or not self.none_of.takes(said))
            and (not self.any_of or any(it.takes(said) for it in self.any_of))
        )

    @property
    def needs(self) -> frozenset[str]:
        """The keywords of all that it asks about."""
        inside = [*self.any_of, *([self.none_of] if self.none_of else [])]
        own = {keyword for keyword, _ in self.listed} | ({STUDY_DATE} if self.days else set())
        return frozenset(own.union(*(it.needs for it in inside)))

    def encode(self) -> bytes:
        """As bytes that `decode` reads back, the same for the same filter; they hold originals."""
        return json.dumps(self._plain(), separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes) -> "Filter":
        return cls._of(json.loads(data))

    def _plain(self) -> list[Any]:
        listed = [[keyword, sorted(values)] for keyword, values in self.listed]
        none_of = self.none_of._plain() if self.none_of else None
        return [listed, self.days, none_of, [it._plain() for it in self.any_of]]

    @classmethod
    def _of(cls, plain: list[Any]) -> "Filter":
        listed, days, none_of, any_of = plain
        return cls(
            tuple((keyword, frozenset(values)) for keyword, values in listed),
            Days(*days) if days else None,
            cls._of(none_of) if none_of else None,
            tuple(map(cls._of, any_of)),
        )


def parse_filter(text: str, name: str, read: Callable[[str], bytes] | None = None) -> Filter:
    """Read a filter in YAML or JSON.

    Args:
      name: of the file, for messages.
      read: gives the content of a file that the filter names, up to `LARGEST_LIST` and a byte more, or raises OSError;
        None where it may name none.

    Raises:
      RequestError: with every mistake at once, each with its line, none with a value.
    """
    root, body = read_markup(text, name, MEMBERS)
    mistakes = Mistakes(root, name)
    mistakes.tell_repeated()
    taking = read_filter(body, mistakes, (), read)
    mistakes.stop()
    return taking


def read_filter(given: Any, mistakes: Mistakes, way: Way, read: Callable[[str], bytes] | None = None) -> Filter:
    """Read a filter that is a member of another file.

    Args:
      given: the filter, every scalar in it as text.
      mistakes: of that file, which gather what is wrong with it; `way` leads there.

    Returns:
      The filter; a meaningless one where there are mistakes.
    """
    return _Reading(mistakes, read).filter(way, given)


class _Reading:
    """One filter being read."""

    def __init__(self, mistakes: Mistakes, read: Callable[[str], bytes] | None) -> None:
        self._tell, self._read = mistakes.tell, read

    def filter(self, way: Way, given: Any) -> Filter:
        if not isinstance(given, dict):
            self._tell(way, "is no mapping of members to values", "write Modality: [CT] or its like")
            return Filter()
        if not given:
            self._tell(way, "is empty, and would take everything", f"give it members, or leave it out: {_all(MEMBERS)}")
        if len(way) > 2 * _MOST_NESTED:
            self._tell(way, "is nested too deep", "say it in fewer levels")
            return Filter()
        for member in given.keys() - set(MEMBERS):
            self._tell((*way, member), "is no member of a filter", _meant(member, MEMBERS))
        return Filter(
            tuple((it, frozenset(self._values((*way, it), given[it]))) for it in LISTED if it in given),
            self._days((*way, STUDY_DATE), given[STUDY_DATE]) if STUDY_DATE in given else None,
            self.filter((*way, NOT), given[NOT]) if NOT in given else None,
            tuple(self._any((*way, ANY), given[ANY])) if ANY in given else (),
        )

    def _any(self, way: Way, given: Any) -> Iterator[Filter]:
        if not isinstance(given, list) or not given:
            self._tell(way, "is no list of filters", "write [{Modality: [CT]}, {Modality: [MR]}] or its like")
            return
        for number, it in enumerate(given):
            yield self.filter((*way, number), it)

    def _values(self, way: Way, given: Any) -> Iterator[str]:
        """The values of a member: one, several, or the lines of a file."""
        member = str(way[-1])
        if isinstance(given, dict) and member in _IN_FILES:
            yield from self._lines(way, given)
            return
        entries = given if isinstance(given, list) else [given]
        if not entries:
            self._tell(way, "is empty, and would take nothing", "name something, or leave it out")
        for number, entry in enumerate(entries):
            at = (*way, number) if isinstance(given, list) else way
            if not isinstance(entry, str):
                self._tell(at, "has a value of the wrong type", "write text")
                continue
            value, problem = _VALUES[member](entry.strip(" \0"))
            if problem:
                self._tell(at, *problem)
            yield value

    def _lines(self, way: Way, given: dict[str, Any]) -> Iterator[str]:
        """What stands in a file, a value a line."""
        file = given.get("file")
        if set(given) != {"file"} or not isinstance(file, str) or not file.strip():
            return self._tell(way, "is neither a list nor a file", "write {file: NAME}, with a value a line in it")
        try:
            if self._read is None:
                return self._tell(way, "may name no file here", "write the values themselves")
            content = self._read(file)
            lines = content.decode("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as failed:
            why = "is no text in UTF-8" if isinstance(failed, ValueError) else f"can't be read: {failed.strerror}"
            return self._tell(way, f"names a file that {why}", "check it; it is looked for beside this one")
        if len(content) > LARGEST_LIST:
            return self._tell(way, f"names a file of more than {LARGEST_LIST >> 20} MiB", "split what is to be done")
        found, wrong = 0, 0
        for number, line in enumerate(lines, 1):
            if not (written := line.strip(" \t\0")):
                continue
            found += 1
            value, problem = _VALUES[str(way[-1])](written)
            if problem and (wrong := wrong + 1) <= _MOST_TOLD:
                self._tell((*way, f"{file}:{number}"), *problem)
            yield value
        if wrong > _MOST_TOLD:
            self._tell((*way, file), f"has {wrong - _MOST_TOLD:,} more such lines", "mend them all")
        if not found:
            self._tell((*way, file), "has no values, and would take nothing", "write a value a line")
        return None

    def _days(self, way: Way, given: Any) -> Days:
        if isinstance(given, dict):
            return self._bounded(way, given)
        span = _SPAN.fullmatch(given.strip()) if isinstance(given, str) else None
        if not span or not any(span.groups()):
            self._tell(way, "is no date and no range", "write 20200101-20201231, or {from: 2020-01-01, to: 2020-12-31}")
            return Days("", "")
        one, first, last = ((it or "").replace("-", "") for it in span.groups())
        return self._checked(way, Days(one or first, one or last))

    def _bounded(self, way: Way, given: dict[str, Any]) -> Days:
        for member in given.keys() - set(_BOUNDS):
            self._tell((*way, member), "is no member of StudyDate", _meant(member, _BOUNDS))
        first, last = (self._end((*way, member), given[member]) if member in given else "" for member in ("from", "to"))
        if not given.keys() & {"from", "to"}:
            self._tell(way, "has neither from nor to", "give one of them")
        absent = given.get("absent", "leave")
        if absent not in ("leave", "take"):
            self._tell((*way, "absent"), "has a value that isn't known", "write take or leave")
        return self._checked(way, Days(first, last, absent == "take"))

    def _end(self, way: Way, given: Any) -> str:
        if isinstance(given, str) and re.fullmatch(_WRITTEN, given.strip()):
            return given.strip().replace("-", "")
        self._tell(way, "is no date", "write it as 2020-12-31 or 20201231")
        return ""

    def _checked(self, way: Way, days: Days) -> Days:
        if any(end and not _is_day(end) for end in days[:2]):
            self._tell(way, "names a day that no calendar has", "check month and day")
        elif days.last and days.first > days.last:
            self._tell(way, "ends before it begins", "write the earlier day first")
        return days


Read = tuple[str, tuple[str, str] | None]
"""What a value stands for, and what is wrong with it with its remedy."""


def _modality(text: str) -> Read:
    return text, None if _CODE.fullmatch(text) else ("is no modality", "write it as stored, such as CT")


def _sop_class(text: str) -> Read:
    if _UID.fullmatch(text):
        return text, None
    known = _sop_classes()
    if uid := known.get(_folded(text)):
        return uid, None
    close = difflib.get_close_matches(_folded(text), known, 1, 0.6)
    hint = f"did you mean {_keyword(known[close[0]])}?" if close else "write its UID, or its keyword in PS3.6"
    return "", ("is no SOP Class", hint)


def _uid(text: str) -> Read:
    return text, None if _UID.fullmatch(text) else (
        "is no UID",
        "write numbers with dots between, 64 characters at most",
    )


def _accession_number(text: str) -> Read:
    wrong = not text or len(text) > 64 or "\\" in text  # SH has 16, and what is stored has more now and then
    return text, ("is no Accession Number", "write a text of at most 64 characters, a line each") if wrong else None


_VALUES: Final[dict[str, Callable[[str], Read]]] = {
    "Modality": _modality,
    "SOPClassUID": _sop_class,
    "StudyInstanceUID": _uid,
    "AccessionNumber": _accession_number,
}


@cache
def _sop_classes() -> dict[str, str]:
    """UIDs by keyword and by name, letters and digits alone."""
    from pydicom.uid import UID_dictionary  # which workers do without

    return {
        _folded(text): uid
        for uid, (name, kind, _, _, keyword) in UID_dictionary.items()
        if kind == "SOP Class"
        for text in (name, keyword)
    }


def _keyword(uid: str) -> str:
    from pydicom.uid import UID_dictionary

    return str(UID_dictionary[uid][4])


def _folded(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _is_day(text: str) -> bool:
    try:
        return bool(text) and bool(datetime.date(int(text[:4]), int(text[4:6]), int(text[6:])))
    except ValueError:
        return False


def _meant(member: str, known: Collection[str]) -> str:
    return closest(member, known, f"there are {_all(known)}")


def _all(known: Collection[str]) -> str:
    return ", ".join(known)
