"""De-identify DICOM instances as PS3.15 Annex E asks, on their encoded bytes.

This package is the engine: it knows no storage and no Beam. `transforms` carries it over an archive,
`pipelines` are its doors.
"""

from dicomveil.body import parse_request as parse_request
from dicomveil.deidentifier import Deidentifier as Deidentifier
