"""De-identify DICOM instances as PS3.15 Annex E asks, on their encoded bytes.

This package is the engine: it knows no storage and no Beam. `transforms` carries it over an archive,
`pipelines` are its doors.
"""

from typing import TYPE_CHECKING, Any

from dicomveil.deidentifier import Deidentifier as Deidentifier

if TYPE_CHECKING:
    from dicomveil.body import parse_request as parse_request


def __getattr__(name: str) -> Any:
    """`parse_request` when it is asked for: workers get requests that are read, and do without YAML and its schemas."""
    if name == "parse_request":
        from dicomveil.body import parse_request

        return parse_request
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
