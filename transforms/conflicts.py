"""Inputs that share a SOP Instance UID: settled in the plan, never by who writes first.

Only such groups are read whole. Equal bytes are one instance, and the lowest URI of them stands for it.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace

import apache_beam as beam

from dicomveil.errors import Unsuitable
from dicomveil.scan import InstanceScan
from dicomveil.stream import LARGEST_CHUNK
from dicomveil.uids import distinct_uid
from transforms import stores
from transforms.records import Planned
from transforms.secrets import KeyReference


class SettleConflicts(beam.PTransform):
    """Let one instance pass for each SOP Instance UID.

    Args:
      policy: what becomes of different bytes under one UID: "quarantine" all, or "distinct" new UIDs.
    """

    def __init__(self, key: KeyReference, policy: str) -> None:
        super().__init__()
        self._key, self._policy = key, policy

    def expand(self, planned: beam.PCollection[Planned]) -> beam.PCollection[Planned]:
        return (
            planned
            | "Key by SOP Instance" >> beam.WithKeys(_sop_token).with_output_types(tuple[str, Planned])
            | "Group" >> beam.GroupByKey()
            | "Settle" >> beam.ParDo(_SettleFn(self._key, self._policy)).with_output_types(Planned)
        )


def _sop_token(planned: Planned) -> str:
    """One group a SOP Instance UID; what has none is a group of its own."""
    return planned.sop_token or planned.token


class _SettleFn(beam.DoFn):
    def __init__(self, key: KeyReference, policy: str) -> None:
        self._key, self._policy = key, policy

    def setup(self) -> None:
        self._keys = self._key.keys()

    def process(self, group: tuple[str, Iterable[Planned]]) -> Iterator[Planned]:
        members = sorted(group[1], key=lambda planned: planned.uri)
        if len(members) == 1:
            yield members[0]
            return
        by_content: dict[bytes, list[Planned]] = {}
        for planned in members:
            try:
                by_content.setdefault(_digest(planned), []).append(planned)
            except Unsuitable as unsuitable:
                yield replace(planned, reason=unsuitable.reason)
            except Exception as unforeseen:
                yield replace(planned, reason="internal", path=type(unforeseen).__name__)
        for content, equal in by_content.items():
            first, *others = equal
            yield self._chosen(first, content) if len(by_content) > 1 else first
            for other in others:
                yield replace(other, reason="duplicate")

    def _chosen(self, planned: Planned, content: bytes) -> Planned:
        if self._policy == "quarantine":
            return replace(planned, reason="sop-uid-conflict")
        uid = InstanceScan.decode(planned.scan).sop_instance_uid
        return replace(planned, sop_instance_uid=distinct_uid(self._keys, uid, content))


def _digest(planned: Planned) -> bytes:
    digest = hashlib.sha256()
    with stores.open_version(planned.uri, planned.version) as source:
        for offset in range(0, source.size, LARGEST_CHUNK):
            digest.update(source.read(offset, LARGEST_CHUNK))
    return digest.digest()
