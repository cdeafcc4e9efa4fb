"""What a request selects, held against what there is: judged when the plan is made, before anything is written."""

from collections.abc import Iterable

from dicomveil.modifier import followed_modules
from dicomveil.request import Request, Resource
from dicomveil.scan import InstanceScan
from dicomveil.study_map import StudyMap
from pipelines.places import RunRefused
from pipelines.runs import Run
from transforms import plans, stores
from transforms.patients import contradictions
from transforms.records import Planned
from transforms.selection import GETS, HAS, THE_STUDY, read_found

_MOST_TOLD = 20
_GIVEN = (
    ("study", "StudyInstanceUID", "a study"),
    ("series", "SeriesInstanceUID", "a series"),
    ("instance", "SOPInstanceUID", "an instance"),
)


def check_resources(run: Run) -> None:
    """Refuse a request that names what there isn't, or what it can't mean; for merge note what the target says.

    Raises:
      RunRefused: all that is wrong, by place in the request and never by value.
    """
    request = run.request
    if not request.selects:
        return
    studies: dict[int, set[str]] = {}
    for number, study in read_found(run.found):
        studies.setdefault(number, set()).add(study)
    problems = [f"{it.where}: there is no such {_called(it, request)} below --input" for it in _unknown(run, studies)]
    if not problems and request.command == "split":
        problems = _split(run, studies)
    if not problems and request.command == "merge":
        problems = _merge(run, studies)
    if problems:
        more = len(problems) - _MOST_TOLD
        told = problems[:_MOST_TOLD] + ([f"... and {more:,} more"] if more > 0 else [])
        raise RunRefused("\n".join([*told, "Nothing was written."]))
    _check_given(run, studies.keys())
    if run.described.exists() and (keywords := contradictions(run.described)):
        raise RunRefused(
            "The Patient ID that Replace gives is another patient's already, of whom "
            f"{', '.join(keywords)} {'is' if len(keywords) == 1 else 'are'} not the same; nothing was written. "
            "Replace them by what that patient has, or give another Patient ID."
        )
    if request.command == "merge":
        _note_target(run, next(iter(studies[THE_STUDY])))


def _unknown(run: Run, studies: dict[int, set[str]]) -> list[Resource]:
    named = list(enumerate(run.request.resources))
    if run.request.study:
        named.append((THE_STUDY, run.request.study))
    return [it for number, it in named if number not in studies]


def _called(resource: Resource, request: Request) -> str:
    anything = "study, series or instance" if request.command == "merge" else "patient, study, series or instance"
    return resource.role or anything


def _split(run: Run, studies: dict[int, set[str]]) -> list[str]:
    """What is taken out must be of one study."""
    sources = studies.get(THE_STUDY) or {study for found in studies.values() for study in found}
    if run.request.study:
        strays = [it.where for number, it in enumerate(run.request.resources) if studies[number] - sources]
        return [f"{where}: is of another study than Study" for where in strays]
    if len(sources) > 1:
        return [f"Series and Instances are of {len(sources)} studies: split one at a time (add Study to say which)"]
    return []


def _merge(run: Run, studies: dict[int, set[str]]) -> list[str]:
    """What is merged must come from elsewhere, and there must be one target."""
    target = studies[THE_STUDY]
    inside = [it.where for number, it in enumerate(run.request.resources) if studies[number] & target]
    return [f"{where}: is of the study that is merged into" for where in inside]


def _check_given(run: Run, numbers: Iterable[int]) -> None:
    """What isn't selected may have the UID that Replace gives only where one is to become of both."""
    asked = run.request.allow_merge and run.request.force
    for role, keyword, called in _GIVEN:
        if {HAS[role], GETS[role]} <= set(numbers) and (role == "instance" or not asked):
            or_else = "" if role == "instance" else ", or add AllowMerge: true and Force: true"
            told = f"Replace {keyword}: {called} that isn't selected has it; nothing was written."
            raise RunRefused(f"{told} Give another one{or_else}.")


def _note_target(run: Run, study_token: str) -> None:
    """Keep what the study that is merged into says of itself: its first instance by SOP Instance UID, as far as they
    can be read."""
    folder = str(run.folder)
    bucket = plans.bucket_holding(folder, study_token)
    if bucket is None:
        raise RunRefused("Study: it is too large (study-too-large): merge it the other way, or name fewer of it.")
    maps = {it.study_token: StudyMap.decode(it.study_map) for it in plans.read_studies(folder, bucket)}
    there = [it for it in plans.read_instances(folder, bucket) if it.study_token == study_token and not it.reason]
    if not there or maps[study_token].conflict:
        raise RunRefused("Study: none of its instances can be read, so there is nothing to merge into.")
    first = min(there, key=_sop_instance_uid)
    with stores.open_version(first.uri, first.version, first.size) as source:
        scan, keys = InstanceScan.decode(first.scan), run.key.keys()
        modules = followed_modules(source, scan, maps[study_token], run.worker_request, keys)
        stores.create_restricted(run.target, modules)


def _sop_instance_uid(planned: Planned) -> str:
    return InstanceScan.decode(planned.scan).sop_instance_uid
