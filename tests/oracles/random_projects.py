"""Random projects: patients, studies, series and instances that refer to each other in every way that DICOM knows.

Made of bytes laid out by hand, so that names of things can be malformed and any encoding can stand beside any other.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR, tag_for_keyword

from dicomveil.testing import BIG, CT, DEFLATED, EXPLICIT, IMPLICIT, Syntax, minimal, part10

Tree = dict[str, Any]
"""A data set: text, or a list of Items, by keyword, or by tag and VR such as "00291020 SQ"."""

STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"
SOP_CLASSES = {
    "image": CT,
    "enhanced": "1.2.840.10008.5.1.4.1.1.4.1",
    "segmentation": "1.2.840.10008.5.1.4.1.1.66.4",
    "structures": "1.2.840.10008.5.1.4.1.1.481.3",
    "report": "1.2.840.10008.5.1.4.1.1.88.22",
    "registration": "1.2.840.10008.5.1.4.1.1.66.1",
    "presentation": "1.2.840.10008.5.1.4.1.1.11.1",
}
PIXELS = (0x00280002, 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102, 0x7FE00010)
ROOT = "1.2.826.0.1.3680043.8.498."
MALFORMED = [
    "0", "00", "1", "1.02.3", "1..3", ".1", "1.2.", "-1.2", "1.2.X", "letters", "1 2 3", "2.25.0", ROOT + "9" * 60, ROOT + "9" * 61,
    "1.2.840.10008.1.4.1.1.99", "1.2.840.10008.1.4.1.01", "1.2.840.10008.1.4.1.1.", "1.2.840.10008.5.1.4.1.1.2.1.2.3",
]  # fmt: skip
REGISTERED = ["1.2.840.10008.1.4.1.2", "1.2.840.10008.1.4.3.1", "1.2.840.10008.15.1.1", "1.2.840.10008.1.5.1"]


class Target(NamedTuple):
    """What can be referred to: an instance, and what it is part of. It needn't be there."""

    sop_class: str
    sop_instance: str
    series: str
    study: str
    frame: str
    patient: str


class Made(NamedTuple):
    """One stored instance of a project."""

    target: Target
    content: bytes

    def __repr__(self) -> str:
        return f"{self.target!r}, {len(self.content)} bytes"


def reference(target: Target, **more: Any) -> Tree:
    return {"ReferencedSOPClassUID": target.sop_class, "ReferencedSOPInstanceUID": target.sop_instance, **more}


def images(target: Target) -> Tree:
    return {"ReferencedImageSequence": [reference(target, ReferencedFrameNumber="1")]}


def sources(target: Target) -> Tree:
    return {"SourceImageSequence": [reference(target)], "SourceInstanceSequence": [reference(target)]}


def series(target: Target) -> Tree:
    return {"SeriesInstanceUID": target.series, "ReferencedInstanceSequence": [reference(target)]}


def of_series(target: Target) -> Tree:
    return {"ReferencedSeriesSequence": [series(target)]}


def of_other_studies(target: Target) -> Tree:
    item = {"StudyInstanceUID": target.study, "ReferencedSeriesSequence": [series(target)]}
    return {"StudiesContainingOtherReferencedInstancesSequence": [item]}


def structures(target: Target) -> Tree:
    """As RT Structure Sets do it, whose study stands in an attribute for instances."""
    contour = {"SeriesInstanceUID": target.series, "ContourImageSequence": [reference(target), reference(target)]}
    study = {"ReferencedSOPClassUID": STUDY_CLASS, "ReferencedSOPInstanceUID": target.study}
    frame = {"RTReferencedStudySequence": [study | {"RTReferencedSeriesSequence": [contour]}]}
    return {
        "ReferencedFrameOfReferenceSequence": [{"FrameOfReferenceUID": target.frame} | frame],
        "StructureSetROISequence": [{"ReferencedFrameOfReferenceUID": target.frame}],
    }


def segments(target: Target) -> Tree:
    derived = {"DerivationImageSequence": [{"SourceImageSequence": [reference(target)]}]}
    return {
        "PerFrameFunctionalGroupsSequence": [derived, {}, derived],
        "DimensionOrganizationSequence": [{"DimensionOrganizationUID": f"{target.series}.77"}],
        "DimensionIndexSequence": [{"DimensionOrganizationUID": f"{target.series}.77"}],
        "SegmentSequence": [{"TrackingUID": f"{target.sop_instance}.5"}],
    }


def evidence(target: Target) -> Tree:
    """As reports and key object selections do it."""
    series_item = {"SeriesInstanceUID": target.series, "ReferencedSOPSequence": [reference(target)]}
    item = {"StudyInstanceUID": target.study, "ReferencedSeriesSequence": [series_item]}
    return {"CurrentRequestedProcedureEvidenceSequence": [item], "PertinentOtherEvidenceSequence": [item]}


def registration(target: Target) -> Tree:
    item = {"FrameOfReferenceUID": target.frame, "ReferencedImageSequence": [reference(target)]}
    return {"RegistrationSequence": [item], "SourceFrameOfReferenceUID": target.frame}


def presentation(target: Target) -> Tree:
    item = {"SeriesInstanceUID": target.series, "ReferencedImageSequence": [reference(target)] * 2}
    return {
        "ReferencedSeriesSequence": [item],
        "BlendingSequence": [{"StudyInstanceUID": target.study, **of_series(target)}],
    }


def pictured(target: Target) -> Tree:
    """A presentation state's own way to name images; those of another study it can blend alone."""
    return {"BlendingSequence": presentation(target)["BlendingSequence"]}


def frames(target: Target) -> Tree:
    """The other attributes that name a frame of reference."""
    return {
        "SynchronizationFrameOfReferenceUID": target.frame,
        "FrameOfReferenceRelationshipSequence": [{"RelatedFrameOfReferenceUID": target.frame}],
        "CTPositionSequence": [{"VolumeFrameOfReferenceUID": target.frame, "TableFrameOfReferenceUID": target.frame}],
        "EquipmentFrameOfReferenceUID": target.frame,
        "TargetFrameOfReferenceUID": target.frame,
    }


def things(target: Target) -> Tree:
    """What is no study, series, instance or frame: some with several values, as they may have."""
    several = "\\".join((f"{target.study}.1", target.sop_instance, f"{target.study}.1", "1.2.3"))
    return {
        "IrradiationEventUID": several,
        "DeviceUID": f"{target.study}.8\\{target.study}.9",
        "FailedSOPInstanceUIDList": f"{target.sop_instance}\\{target.sop_instance}",
        "ConcatenationUID": f"{target.sop_instance}.2",
        "SOPInstanceUIDOfConcatenationSource": target.sop_instance,
        "SpecimenDescriptionSequence": [{"SpecimenUID": f"{target.patient}.4"}],
        "DoseReferenceSequence": [{"DoseReferenceUID": f"{target.study}.6"}],
        "InstanceCreatorUID": "1.2.3",
        "TransactionUID": "",
    }


def taken_away(target: Target) -> Tree:
    """What the Basic Profile takes away with all that is in it."""
    return {
        "ReferencedStudySequence": [reference(target)],
        "OriginalAttributesSequence": [{"ModifiedAttributesSequence": [{"StudyInstanceUID": target.study}]}],
        "ReferencedPatientSequence": [reference(target)],
    }


def of_study(target: Target) -> Tree:
    """A study by its class and "instance", and what it was called before."""
    study = {"ReferencedSOPClassUID": STUDY_CLASS, "ReferencedSOPInstanceUID": target.study}
    return taken_away(target) | {"ReferencedStudySequence": [study]}


def people(target: Target) -> Tree:
    """Somebody's Patient ID in an Item, where it is mapped by its own value."""
    return {"ReferencedInstanceSequence": [reference(target, PatientID=target.patient)]}


def content(target: Target) -> Tree:
    """A report's content tree, with UIDs as values, and frames of reference of regions."""

    def node(value_type: str, concept: str, **more: Any) -> Tree:
        code = [{"CodeValue": concept, "CodingSchemeDesignator": "DCM", "CodeMeaning": "-"}]
        return {"RelationshipType": "CONTAINS", "ValueType": value_type, "ConceptNameCodeSequence": code, **more}

    nodes = [
        node("TEXT", "121071", TextValue="of Bodox"),
        node("UIDREF", "110180", UID=target.study),
        node("UIDREF", "112002", UID=target.series),
        node("UIDREF", "113769", UID=f"{target.study}.1"),
        node("UIDREF", "112040", UID=f"{target.sop_instance}.5"),
        node("IMAGE", "121112", ReferencedSOPSequence=[reference(target)]),
        node("SCOORD3D", "111030", ReferencedFrameOfReferenceUID=target.frame, GraphicType="POINT"),
    ]
    return {"ContentSequence": [*nodes, node("CONTAINER", "126010", ContentSequence=nodes)], "ValueType": "CONTAINER"}


def private(target: Target) -> Tree:
    """References in private elements, also below a sequence of the Standard's."""
    block = {
        "00290010 LO": "IMAGINARY",
        "00291010 UI": f"{target.series}\\{target.sop_instance}",
        "00291020 SQ": [
            reference(target, FrameOfReferenceUID=target.frame),
            {"00290010 LO": "B", "00291001 UI": target.study},
        ],
    }
    return {"ReferencedInstanceSequence": [block], **block}


def deep(levels: int) -> Callable[[Target], Tree]:
    def made(target: Target) -> Tree:
        tree = images(target)
        for _ in range(levels):
            tree = {"ReferencedSeriesSequence": [tree, {"SeriesInstanceUID": target.series}]}
        return tree

    return made


SHAPES = [
    images, sources, of_series, of_other_studies, structures, segments, evidence, registration, presentation, frames, things,
    taken_away, people, content, private, deep(3), deep(17),
]  # fmt: skip


def shapes_for(own: Target) -> list[Callable[[Target], Tree]]:
    """The shapes, but that what the Common Instance Reference Module lists stands in the sequence where it belongs."""

    def listed(target: Target) -> Tree:
        return of_series(target) if target.study == own.study else of_other_studies(target)

    misplaced = (of_series, of_other_studies, presentation, taken_away)
    return [*(shape for shape in SHAPES if shape not in misplaced), listed, listed, pictured, of_study]


def shapes_of_instances(own: Target) -> list[Callable[[Target], Tree]]:
    """The same without what the instances of a study share: merge takes that over."""
    return [shape for shape in shapes_for(own) if shape is not of_study]


def merged(trees: list[Tree]) -> Tree:
    """One data set of several: Items one behind the other, and of two values the first."""
    found: Tree = {}
    for tree in trees:
        for keyword, value in tree.items():
            found[keyword] = [*found.get(keyword, []), *value] if isinstance(value, list) else found.get(keyword, value)
    return found


def encode(tree: Tree, syntax: Syntax, undefined: bool) -> dict[int, bytes]:
    """The elements of a data set, each encoded, by tag."""
    elements = {}
    for keyword, value in tree.items():
        tag, vr = _attribute(keyword)
        if syntax.implicit and vr == "UI" and tag & 0x10000:
            continue  # a private element whose VR stands nowhere: nobody can tell that it is a UID
        if isinstance(value, list):
            items = [b"".join(each for _, each in sorted(encode(item, syntax, undefined).items())) for item in value]
            elements[tag] = syntax.sequence(tag, items, undefined, item_undefined=undefined)
        else:
            elements[tag] = syntax.element(tag, vr, value)
    return elements


def _attribute(name: str) -> tuple[int, str]:
    tag = tag_for_keyword(name)
    return (int(name[:8], 16), name[9:]) if tag is None else (tag, dictionary_VR(tag))


def stored(target: Target, tree: Tree, syntax: str = EXPLICIT, undefined: bool = False) -> bytes:
    """The file of an instance: its own identifiers, and what else it holds."""
    own = {
        "SOPClassUID": target.sop_class,
        "SOPInstanceUID": target.sop_instance,
        "SeriesInstanceUID": target.series,
        "StudyInstanceUID": target.study,
        "FrameOfReferenceUID": target.frame,
        "PatientID": target.patient,
    }
    layout = Syntax(syntax)
    elements = encode(tree | own, layout, undefined)
    if target.sop_class != CT:
        elements |= dict.fromkeys(PIXELS, b"")
    return part10(minimal(layout, *elements.items()), syntax, target.sop_class)


@st.composite
def projects(
    draw: st.DrawFn, most: int = 3, shapes: Callable[[Target], list[Callable[[Target], Tree]]] = lambda own: SHAPES
) -> list[Made]:
    """A project of a few instances; frames of reference and names are shared as they please.

    Args:
      most: patients, studies a patient, series a study and instances a series, at most.
      shapes: in which an instance may refer to others.
    """
    odd = draw(st.lists(st.sampled_from(MALFORMED), unique=True, max_size=6))
    counter = iter(range(1, 10_000))

    def name() -> str:
        if odd and draw(st.integers(0, 4)) == 0:
            return odd.pop()
        return f"{ROOT}{next(counter)}.20240305101112"

    def some(least: int = 1) -> range:
        return range(draw(st.integers(least, most)))

    shared = [name() for _ in range(2)] + [draw(st.sampled_from(REGISTERED)), ""]
    targets = []
    for patient in some():
        for _ in some():
            study, of_study = name(), name()
            for _ in some():
                series_uid = name()
                frame = draw(st.sampled_from([*shared, of_study, study]))
                for _ in some():
                    kind = draw(st.sampled_from(sorted(SOP_CLASSES)))
                    targets.append(Target(SOP_CLASSES[kind], name(), series_uid, study, frame, f"MRN{patient}"))
    absent = [Target(CT, name(), name(), name(), name(), f"MRN{9 + number}") for number in range(2)]
    absent += [draw(st.sampled_from(targets))._replace(sop_class=CT, sop_instance=name())]  # of a series that is there
    reachable = st.sampled_from([*targets, *absent])
    return [Made(target, draw(_contents(target, reachable, shapes(target)))) for target in targets]


@st.composite
def _contents(
    draw: st.DrawFn, target: Target, reachable: st.SearchStrategy[Target], shapes: list[Callable[[Target], Tree]]
) -> bytes:
    drawn = draw(st.lists(st.sampled_from(shapes), max_size=4))
    tree = merged([shape(draw(reachable)) for shape in drawn])
    return stored(
        target, tree, draw(st.sampled_from([EXPLICIT, EXPLICIT, IMPLICIT, BIG, DEFLATED])), draw(st.booleans())
    )
