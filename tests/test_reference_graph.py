"""The reference graph before and after is one graph under two sets of names: random projects, and real ones."""

import contextlib
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from dicomveil import Deidentifier
from dicomveil.body import parse_request
from dicomveil.errors import Unsuitable
from dicomveil.pseudonyms import PLACEHOLDERS
from dicomveil.testing import CT, DEFLATED
from tests.corpora import KEY, instances, label
from tests.oracles.random_projects import ROOT, SHAPES, Made, Target, merged, projects, stored
from tests.oracles.reference_graph import Graph, Instance, Recipe, Rules, compare, edges, read

RECIPE = Recipe(KEY)
# Without shrinking: a project is told by its differences, and smaller ones take minutes to find.
MANY = settings(
    max_examples=20,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
RESEARCH = (Path(__file__).parents[1] / "configs" / "requests" / "research-dates.yaml").read_text()
DATES = ("RetainLongitudinalModifiedDates", "RetainPatientCharacteristics", "CleanDescriptors")
REQUESTS = {
    "basic": ("{}", Rules()),
    "research": (RESEARCH, Rules(DATES)),
    "reports": ("Options: [CleanStructuredContent]", Rules(("CleanStructuredContent",))),
    "private": ("KeepPrivateTags: true", Rules(private=True)),
}


def labelled(project: list[Made]) -> dict[str, bytes]:
    return {f"{number}": made.content for number, made in enumerate(project)}


def inflated(data: bytes) -> bytes:
    """A file's bytes, and those its data set inflates to."""
    meta = 144 + int.from_bytes(data[140:144], "little")
    return data[:meta] + zlib.decompressobj(-15).decompress(data[meta:]) if DEFLATED.encode() in data[:meta] else data


@pytest.mark.parametrize("request_", REQUESTS)
@MANY
@given(project=projects())
def test_every_project_keeps_its_graph(project: list[Made], request_: str) -> None:
    """For every project: each reference is at its path and leads where it led, and two things are one exactly as before."""
    body, rules = REQUESTS[request_]
    engine = Deidentifier(parse_request(body), key=KEY)
    files = labelled(project)
    after = {label: engine.rewrite(content) for label, content in files.items()}
    graph = read(after)
    assert compare(read(files), graph, RECIPE, rules) == []
    assert edges(graph) >= 3 * len(files)
    assert [label for label, content in after.items() if ROOT.encode() in inflated(content)] == []


# ------------------------------------------------------------------------------------------------- the oracle itself

HERE = Target(CT, ROOT + "1.1", ROOT + "1", ROOT + "0", ROOT + "9", "MRN1")
OTHER = Target(CT, ROOT + "2.1", ROOT + "2", ROOT + "0", ROOT + "9", "MRN1")
PAIR = {"0": stored(HERE, merged([shape(OTHER) for shape in SHAPES])), "1": stored(OTHER, {})}


def changed(graph: Graph, label: str, path: str, uid: str | None) -> dict[str, Instance]:
    """A graph with one edge of an instance led elsewhere, or, for None, cut."""
    led = {path: uid for path, uid in {**graph[label].edges, path: uid}.items() if uid is not None}
    return {**graph, label: graph[label]._replace(edges=led)}


def damages() -> dict[str, tuple[str, Callable[[Graph], Graph]]]:
    image, frame = "ReferencedImageSequence[0].ReferencedSOPInstanceUID[0]", "FrameOfReferenceUID[0]"
    new = RECIPE[OTHER.sop_instance]
    return {
        "an instance is missing": ("missing", lambda graph: {"0": graph["0"]}),
        "an instance too many": ("unexpected", lambda graph: {**graph, "2": graph["1"]}),
        "a reference is lost": ("lost", lambda graph: changed(graph, "0", image, None)),
        "a reference leads elsewhere": ("parted", lambda graph: changed(graph, "0", image, "2.25.1")),
        "a reference is invented": ("invented", lambda graph: changed(graph, "1", image, new)),
        "a frame of reference is not shared": ("parted", lambda graph: changed(graph, "1", frame, "2.25.1")),
        "a study and a series are one": ("merged", lambda graph: changed(graph, "1", "StudyInstanceUID[0]", RECIPE[OTHER.series])),
        "one of several values is lost": ("lost", lambda graph: changed(graph, "0", "IrradiationEventUID[3]", None)),
        "an original stays": ("stayed", lambda graph: changed(graph, "0", image, OTHER.sop_instance)),
        "an original stays where a dummy is": ("stayed", lambda graph: changed(graph, "0", "ContentSequence[0].UID[0]", OTHER.study)),
        "a new name is a registered one": ("registered", lambda graph: changed(graph, "0", frame, "1.2.840.10008.1.4.1.2")),
        "the patient is another": ("parted", lambda graph: {**graph, "1": graph["1"]._replace(patient="X")}),
        "a nested patient is another": ("parted", lambda graph: {**graph, "0": graph["0"]._replace(patients=dict.fromkeys(graph["0"].patients, "X"))}),
        "a class changes": ("moved", lambda graph: {**graph, "0": graph["0"]._replace(definitions={**graph["0"].definitions, "SOPClassUID[0]": "1.2"})}),
        "file meta names another": ("meta", lambda graph: changed(graph, "0", "meta.MediaStorageSOPInstanceUID[0]", new)),
    }  # fmt: skip


@pytest.mark.parametrize("damage", damages())
def test_a_graph_that_is_not_the_same_is_told(damage: str) -> None:
    """Each way in which a reference can break is found, and a whole graph has none of them."""
    what, apply = damages()[damage]
    before, after = read(PAIR), read({label: Deidentifier(key=KEY).rewrite(data) for label, data in PAIR.items()})
    assert compare(before, after, RECIPE) == compare(before, after) == []
    assert what in {difference.what for difference in compare(before, apply(after))}


def test_a_crosswalk_that_tells_otherwise_is_told() -> None:
    """A crosswalk that lacks a UID, or gives two originals one new UID, isn't the one of the graph."""
    before, after = read(PAIR), read({label: Deidentifier(key=KEY).rewrite(data) for label, data in PAIR.items()})
    table = {uid: RECIPE[uid] for instance in before.values() for uid in instance.edges.values()}
    assert compare(before, after, table) == []
    assert compare(before, after, {k: v for k, v in table.items() if k != OTHER.series})[0].what == "unlisted"
    assert compare(before, after, table | {"1.2.3.4": table[OTHER.series]})[0].what == "merged"


# ------------------------------------------------------------------------------------------------------ real projects


@pytest.fixture(scope="module")
def real() -> dict[str, Instance]:
    """The graph of every file at hand."""
    return read({label(path): path for path in instances()})


def outputs(engine: Deidentifier) -> Iterator[tuple[str, bytes]]:
    """What becomes of each file at hand that isn't set aside."""
    for path in instances():
        with contextlib.suppress(Unsuitable):
            yield label(path), engine.rewrite(path.read_bytes())


@pytest.mark.parametrize("request_", ["basic", "research"])
def test_real_studies_keep_their_graph(request_: str, real: Graph) -> None:
    """Over every real study at hand, of all makers and kinds: references agree after as they did before."""
    body, rules = REQUESTS[request_]
    after = read(dict(outputs(Deidentifier(parse_request(body), key=KEY))))
    before = {name: real[name] for name in after}
    assert compare(before, after, RECIPE, rules, PLACEHOLDERS) == []
    assert edges(after) > 500
