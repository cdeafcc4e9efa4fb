"""One instance, one outcome: the engine alone and the pipeline's plan and rewrite come to the same."""

import random
from pathlib import Path

import pytest

from dicomveil import Deidentifier
from dicomveil.body import parse_request
from dicomveil.compile import compile_request
from dicomveil.errors import RequestError, Unsuitable
from dicomveil.keys import Keys
from dicomveil.request import Request
from dicomveil.rewrite import Rewriter
from dicomveil.scan import scan_instance
from dicomveil.stream import BytesSource
from dicomveil.study import Identities, build_study_map
from tests.corpora import KEY, instances, label

KEYS = Keys(KEY)
ENGINE, REWRITER = Deidentifier(key=KEY), Rewriter(compile_request(Request()), KEYS)


def alone(data: bytes) -> bytes | tuple[str, str]:
    try:
        return ENGINE.rewrite(data)
    except Unsuitable as unsuitable:
        return unsuitable.reason, unsuitable.path


def planned(data: bytes) -> bytes | tuple[str, str]:
    try:
        scan = scan_instance(BytesSource(data))
        return REWRITER.rewrite(
            BytesSource(data), scan, build_study_map((scan,), Identities(KEYS, Request()))
        ).to_bytes()
    except Unsuitable as unsuitable:
        return unsuitable.reason, unsuitable.path


@pytest.mark.parametrize("path", [path for path in instances() if path.stat().st_size < 200_000][::3], ids=label)
def test_both_doors_lead_to_the_same(path: Path) -> None:
    """An instance, also a damaged one, has the same bytes or the same reason at the same place through both."""
    data, draw = path.read_bytes(), random.Random(label(path))
    assert alone(data) == planned(data)
    for _ in range(12):
        broken = bytearray(data)
        for _ in range(draw.randint(1, 3)):
            broken[draw.randrange(len(broken))] = draw.choice([0, 255, draw.randrange(256)])
        assert alone(bytes(broken)) == planned(bytes(broken))


@pytest.mark.parametrize(
    ("command", "body", "member"),
    [
        ("anonymize", "Transcode: RLELossless", "Transcode"),
        ("anonymize", "Resources: [{PatientID: P1}]", "Resources"),
        ("anonymize", "KeepSource: false", "KeepSource"),
        ("modify", "Replace: {PatientName: A^B}", "modify"),
    ],
)
def test_what_needs_a_run_or_is_no_de_identification_is_refused(command: str, body: str, member: str) -> None:
    """Nothing that a request says is passed over: what one instance alone can't obey is one clear mistake."""
    with pytest.raises(RequestError) as refused:
        Deidentifier(parse_request(body, command=command), key=KEY)
    assert [problem.where for problem in refused.value.problems] == [member]
