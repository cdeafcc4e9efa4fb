"""Modify, split and merge by the engine alone: the plan's part and each instance's, without a run.

What a run settles through shuffles is settled here by loops, so that the properties that hundreds of projects must
have don't take a pipeline each. Which instances a request means is read by pydicom.
"""

import io
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import pydicom
import yaml

from dicomveil import merging
from dicomveil.alterations import altered, scope_of, settled
from dicomveil.body import parse_request
from dicomveil.keys import Keys
from dicomveil.modifier import Modifier, followed_modules
from dicomveil.request import Request
from dicomveil.scan import InstanceScan, scan_instance
from dicomveil.stream import BytesSource
from dicomveil.study import study_token
from dicomveil.study_map import lettered
from tests.corpora import KEY

Body = dict[str, Any]
IDENTIFIERS = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


class Altered(NamedTuple):
    """What became of some instances.

    Attributes:
      outputs: the file of each instance of a study that was concerned, by label.
      selected: the labels of those that the request means.
    """

    outputs: dict[str, bytes]
    selected: frozenset[str]


class _Instance(NamedTuple):
    content: bytes
    scan: InstanceScan
    study: str
    selected: bool
    target: bool


def alter(command: str, body: Body, files: Mapping[str, bytes], key: bytes = KEY) -> Altered:
    """Carry out one request over some stored instances.

    Args:
      files: by a label each; with different SOP Instance UIDs.

    Raises:
      RequestError: the body is none.
      InvalidInstance: an instance can't be done.
    """
    request, keys = parse_request(yaml.safe_dump(body), command=command), Keys(key)
    request = replace(request, scope=scope_of(request, keys))
    read = {label: _read(content, request, body, keys) for label, content in files.items()}
    concerned = {it.study for it in read.values() if it.selected or it.target}
    read = {label: it for label, it in read.items() if it.study in concerned}
    if command == "merge":
        first = min((it for it in read.values() if it.target), key=lambda it: it.scan.sop_instance_uid)
        source = BytesSource(first.content)
        plain = merging.into(request, merging.module_data_set(source))
        there = _maps(list(read.values()), plain, keys)[first.study]
        request = merging.into(request, followed_modules(source, first.scan, there, request, keys))
    maps, modifier = _maps(list(read.values()), request, keys), Modifier(request, keys)
    outputs = {}
    for label, it in read.items():
        rewritten = modifier.rewrite(BytesSource(it.content), it.scan, maps[it.study], it.selected)
        outputs[label] = rewritten.to_bytes()
        assert rewritten.place.name == modifier.name(it.scan, maps[it.study], it.selected)
    return Altered(outputs, frozenset(label for label, it in read.items() if it.selected))


def _read(content: bytes, request: Request, body: Body, keys: Keys) -> _Instance:
    scan = scan_instance(BytesSource(content), private=request.keeps_private)
    ds = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True, force=True)
    named = [it for member in ("Resources", "Series", "Instances") for it in body.get(member, ())]
    target = is_of(ds, body["Study"]) if "Study" in body else False
    selected = any(is_of(ds, it) for it in named) if named or request.command != "modify" else True
    return _Instance(content, scan, study_token(scan, keys), selected, target)


def is_of(ds: pydicom.Dataset, resource: Mapping[str, str]) -> bool:
    """Whether an instance is of what a request names by a DICOM identifier."""
    return all(str(ds.get(keyword, "")).strip(" \0") == value for keyword, value in resource.items())


def _maps(instances: list[_Instance], request: Request, keys: Keys) -> dict[str, Any]:
    studies: dict[str, list[_Instance]] = defaultdict(list)
    for it in instances:
        studies[it.study].append(it)
    alterations = {
        study: altered([(it.scan, it.selected) for it in group], request, keys) for study, group in studies.items()
    }
    changed: dict[bytes, list[tuple[str, bool]]] = defaultdict(list)
    for one in alterations.values():
        for torn, tokens in ((False, one.changed), (True, one.torn)):
            for role, token in lettered(tokens):
                changed[token].append((role, torn))
    return {
        study: settled(study, one, [(uid, *sorted(changed[uid])[0]) for uid in one.referred if uid in changed])
        for study, one in alterations.items()
    }
