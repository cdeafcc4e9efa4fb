"""The engine without Beam: one instance in memory, de-identified."""

from collections.abc import Iterator

from dicomveil.compile import compile_request
from dicomveil.errors import Problem, RequestError, Unsuitable
from dicomveil.identities import Identities
from dicomveil.keys import Keys, parse_key
from dicomveil.part10 import Instance, open_instance
from dicomveil.request import Request
from dicomveil.rewrite import Rewriter, Rewritten
from dicomveil.scan import InstanceScan, identify, scan_opened
from dicomveil.stream import BytesSource
from dicomveil.study import lone_study_map


class Deidentifier:
    """De-identifies instances one by one, each with a study map of its own.

    UIDs and known Patient IDs are mapped by their value, so references between instances agree all the same. What
    only a whole study can settle (a Patient ID that one of its instances lacks, inputs that share a SOP Instance UID)
    needs the pipeline.

    Args:
      request: what to do; None for the Basic Profile.
      key: 32 bytes or more, or the text of a key as `dicomveil keygen` prints it. Under the same key the same bytes
        come out, for ever.

    Raises:
      KeyRefused: the key is too short, weak or unreadable.
      RequestError: what the request asks for hangs on more than one instance.
    """

    def __init__(self, request: Request | None = None, *, key: bytes | str) -> None:
        self._keys = Keys(parse_key(key.encode()) if isinstance(key, str) else key)
        self._request = request or Request()
        if problems := tuple(_needing_a_run(self._request)):
            raise RequestError(problems)
        self._identities = Identities(self._keys, self._request)
        self._rewriter = Rewriter(compile_request(self._request), self._keys)

    def rewrite(self, data: bytes) -> bytes:
        """The de-identified DICOM file of one stored instance.

        Raises:
          Filtered: there is nothing to de-identify: no DICOM, or a DICOMDIR.
          InvalidInstance: it can't be done safely. Carries reason, tag path and offset, never a value.
        """
        instance = open_instance(BytesSource(data))
        if self._request.cleans_text:
            return self._rewritten(instance, scan_opened(instance, len(data), listening=True)).to_bytes()
        try:
            rewritten = self._rewritten(instance, identify(instance, len(data)))
        except Unsuitable:
            rewritten = self._rewritten(instance, scan_opened(instance, len(data)))  # raises what the plan would
        rewritten.read_removed()
        return rewritten.to_bytes()

    def _rewritten(self, instance: Instance, scan: InstanceScan) -> Rewritten:
        return self._rewriter.rewrite_opened(instance, scan, lone_study_map(scan, self._identities))


def _needing_a_run(request: Request) -> Iterator[Problem]:
    """What one instance alone can't be obeyed by."""
    for member, asked, why in (
        (request.command, request.alters, "leaves people identified"),
        (
            "ExternalReferences",
            request.external_references == "remove",
            "needs to know which instances there are, which one alone can't tell",
        ),
        ("Resources", request.resources, "selects among instances, and here is one"),
        ("Transcode", request.transcode, "is carried out in processes of their own, which a run has"),
        ("KeepSource", not request.keep_source, "is about files, and here are none"),
    ):
        if asked:
            yield Problem(member, why, "use dicomveil anonymize")
