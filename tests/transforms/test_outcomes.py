"""One instance's trouble is that instance's outcome, whatever it is."""

import pytest

from dicomveil.errors import InvalidInstance
from dicomveil.request import Request
from dicomveil.study import NO_LISTS
from dicomveil.study_map import StudyMap
from tests.corpora import KEY
from transforms import conflicts, rewrite, scan, study
from transforms.listing import list_objects
from transforms.records import Outcome, Planned, SourceObject
from transforms.secrets import refer
from transforms.store_failures import StoreFull


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DICOMVEIL_TEST_KEY", KEY.hex())
    return refer("env:DICOMVEIL_TEST_KEY")


def test_the_unforeseen_is_quarantined(key, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """An error that nobody thought of sets its instance aside by its kind, never by its text, and the run goes on."""

    def fail(*_: object) -> None:
        raise KeyError("Bodox")

    path = tmp_path / "a"
    path.write_bytes(b"a")
    (listed,) = list_objects(str(path))
    monkeypatch.setattr(scan, "scan_instance", fail)
    fn = scan._ScanFn(key, str(tmp_path), Request())
    fn.setup()
    (planned,) = fn.process(SourceObject("00", listed.uri, listed.size, listed.version))
    assert (planned.reason, planned.path) == ("internal", "KeyError")
    to = rewrite.Destination(str(tmp_path / "out"), *3 * (str(tmp_path),))
    fn = rewrite._RewriteFn(Request(), "", key, to)
    fn.setup()
    (outcome,) = fn.process((Planned("00", "", 0, "", scan=b"not a scan"), b""))
    assert (outcome.outcome, outcome.reason) == ("quarantined", "internal")
    assert "Bodox" not in repr(outcome) + repr(planned)


def test_the_unforeseen_in_a_group_is_its_members(key, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody thought of in a study, or among inputs of one UID, sets those aside, and the run goes on."""

    def fail(*_: object) -> None:
        raise KeyError("Bodox")

    monkeypatch.setattr(study, "gather", fail)
    gathering, settling = study._GatherFn(key, Request()), study._SettleFn(key, Request(), NO_LISTS)
    gathering.setup()
    settling.setup()
    ((token, said),) = gathering.process(("0a", [Planned("00", "", 0, "", study_token="0a", scan=b"no scan")]))
    ((planned),) = settling.process((token, ([(said, None)], [])))
    assert (planned.study_token, StudyMap.decode(planned.study_map).conflict) == ("0a", "internal")
    monkeypatch.setattr(conflicts, "_digest", fail)
    fn = conflicts._SettleFn(key, Request(), "")
    fn.setup()
    shared = [Planned(token, token, 0, "", sop_token="0b") for token in ("00", "01")]
    settled = list(fn.process(("0b", {"planned": shared})))
    assert [(it.token, it.reason, it.path) for it in settled] == [
        ("00", "internal", "KeyError"),
        ("01", "internal", "KeyError"),
    ]


def test_a_full_disk_is_no_instances_fault(key, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """Where there is no space the run stops: an instance isn't set aside for it."""

    def full(*_: object) -> None:
        raise StoreFull

    to = rewrite.Destination(str(tmp_path / "out"), *3 * (str(tmp_path),))
    fn = rewrite._RewriteFn(Request(), "", key, to)
    fn.setup()
    monkeypatch.setattr(fn, "_rewrite", full)
    monkeypatch.setattr(rewrite.InstanceScan, "decode", lambda _: None)
    monkeypatch.setattr(rewrite.StudyMap, "decode", lambda _: None)
    with pytest.raises(StoreFull):
        next(fn.process((Planned("00", "", 0, "", scan=b"x"), b"x")))


def test_records_show_nothing(tmp_path) -> None:
    """A record's repr tells no URI and no original, since frameworks print it."""
    for record in (
        SourceObject("00", "/bodox", 1, "1"),
        Planned("00", "/bodox", 1, "1"),
        Outcome("00", "/bodox", "1", 1, "", "", ""),
    ):
        assert "bodox" not in repr(record)


def test_reasons_survive_pickling() -> None:
    """An error crosses processes with its reason, path and offset."""
    import pickle

    error = pickle.loads(pickle.dumps(InvalidInstance("length", "(0008,0018)", 7)))
    assert (error.reason, error.path, error.offset) == ("length", "(0008,0018)", 7)
