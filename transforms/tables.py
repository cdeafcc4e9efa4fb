"""The Parquet tables that runs leave behind: schemas, versions, and how a part is written.

Columns are only ever added, and nullable. What docs/audit.md says of them is held to these schemas by a test.
"""

import io
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from transforms import stores
from transforms.locations import Location, locate, table_file

SCHEMA_VERSION: Final = 1

_TEXT = pa.string()
_CHANGE = pa.struct([(name, _TEXT) for name in ("path", "keyword", "vr", "action", "rule")])
_FROZEN = pa.struct([("path", _TEXT), ("keyword", _TEXT), ("original_uids", pa.int32())])


def _schema(name: str, *columns: tuple[str, pa.DataType]) -> pa.Schema:
    return pa.schema(list(columns), {"table": name, "schema_version": str(SCHEMA_VERSION)})


INSTANCES: Final = _schema(
    "instances",
    ("source_token", _TEXT),
    ("outcome", _TEXT),
    ("reason", _TEXT),
    ("stage", _TEXT),
    ("patient_id", _TEXT),
    ("study_instance_uid", _TEXT),
    ("series_instance_uid", _TEXT),
    ("sop_instance_uid", _TEXT),
    ("sop_class_uid", _TEXT),
    ("transfer_syntax_uid", _TEXT),
    ("name", _TEXT),
    ("bytes", pa.int64()),
    ("sha256", _TEXT),
    ("request_fingerprint", _TEXT),
    ("removed", pa.int32()),
    ("emptied", pa.int32()),
    ("replaced", pa.int32()),
    ("mapped", pa.int32()),
    ("late_uids", pa.int32()),
    ("changes", pa.list_(_CHANGE)),
    ("cleaned", pa.int32()),
    ("risk", _TEXT),
    ("frozen", pa.list_(_FROZEN)),
    ("followed", pa.int32()),
    ("run_id", _TEXT),  # not "run": readers make a column of that of the folders' names
)
STUDIES: Final = _schema(
    "studies",
    ("study_instance_uid", _TEXT),
    ("patient_id", _TEXT),
    ("instances", pa.int64()),
    ("series", pa.int64()),
    ("frames_of_reference", pa.int64()),
    ("uids_inside", pa.int64()),
    ("uids_outside", pa.int64()),
    ("reason", _TEXT),
    ("uids_elsewhere", pa.int64()),
    ("uids_known", pa.int64()),
    ("uids_external", pa.int64()),
    ("run_id", _TEXT),
)
CROSSWALK_UIDS: Final = _schema(
    "crosswalk/uids", ("role", _TEXT), ("original", _TEXT), ("new", _TEXT), ("inside", pa.bool_()), ("late", pa.bool_())
)
CROSSWALK_PATIENTS: Final = _schema(
    "crosswalk/patients",
    ("original", _TEXT),
    ("issuer", _TEXT),
    ("new", _TEXT),
    ("study_instance_uid", _TEXT),
    ("days", pa.int32()),
)
CROSSWALK_STUDIES: Final = _schema(
    "crosswalk/studies",
    ("study_token", _TEXT),
    ("original", _TEXT),
    ("new", _TEXT),
    ("facts", pa.binary()),
    ("map_token", _TEXT),
)
CROSSWALK_GIVEN: Final = _schema(
    "crosswalk/given",
    ("kind", _TEXT),
    ("token", _TEXT),
    ("original", _TEXT),
    ("issuer", _TEXT),
    ("new", _TEXT),
    ("days", pa.int32()),
    ("anchor", _TEXT),
)
CROSSWALK_INSTANCES: Final = _schema(
    "crosswalk/instances",
    ("source_token", _TEXT),
    ("source_uri", _TEXT),
    ("source_version", _TEXT),
    ("original_sop_instance_uid", _TEXT),
    ("sop_instance_uid", _TEXT),
    ("name", _TEXT),
    ("source_size", pa.int64()),
    ("study_token", _TEXT),
    ("sop_token", _TEXT),
    ("source_sha256", _TEXT),
    ("original_series_instance_uid", _TEXT),
    ("series_instance_uid", _TEXT),
    ("original_study_instance_uid", _TEXT),
    ("study_instance_uid", _TEXT),
)
QUARANTINE: Final = _schema(
    "quarantine",
    ("source_token", _TEXT),
    ("source_uri", _TEXT),
    ("source_version", _TEXT),
    ("outcome", _TEXT),
    ("stage", _TEXT),
    ("reason", _TEXT),
    ("path", _TEXT),
    ("study_token", _TEXT),
    ("sop_token", _TEXT),
)
LEDGER: Final = _schema(
    "ledger",
    ("source_token", _TEXT),
    ("uri_token", _TEXT),
    ("source_uri", _TEXT),
    ("source_version", _TEXT),
    ("outcome", _TEXT),
    ("reason", _TEXT),
    ("name", _TEXT),
    ("study_token", _TEXT),
    ("sop_token", _TEXT),
    ("request_fingerprint", _TEXT),
    ("table_fingerprint", _TEXT),
)
GONE: Final = _schema(
    "gone",
    ("source_token", _TEXT),
    ("uri_token", _TEXT),
    ("source_uri", _TEXT),
    ("source_version", _TEXT),
    ("outcome", _TEXT),
    ("reason", _TEXT),
    ("name", _TEXT),
    ("study_token", _TEXT),
    ("sop_token", _TEXT),
)
PLAN_INSTANCES: Final = _schema(
    "plan/instances",
    ("token", _TEXT),
    ("uri", _TEXT),
    ("size", pa.int64()),
    ("version", _TEXT),
    ("study_token", _TEXT),
    ("sop_token", _TEXT),
    ("series_token", _TEXT),
    ("scan", pa.binary()),
    ("sop_instance_uid", _TEXT),
    ("reason", _TEXT),
    ("path", _TEXT),
    ("former", _TEXT),
    ("selected", pa.bool_()),
    ("rejoins", pa.bool_()),
    ("storage_class", _TEXT),
)
PLAN_STUDIES: Final = _schema(
    "plan/studies",
    ("study_token", _TEXT),
    ("study_map", pa.binary()),
    ("facts", pa.binary()),
    ("map_token", _TEXT),
    ("changed", pa.bool_()),
    ("elsewhere", pa.int64()),
    ("known", pa.int64()),
    ("external", pa.int64()),
)
PLAN_FORMER: Final = _schema(
    "plan/former",
    ("token", _TEXT),
    ("uri_token", _TEXT),
    ("uri", _TEXT),
    ("version", _TEXT),
    ("name", _TEXT),
    ("study_token", _TEXT),
    ("sop_token", _TEXT),
    ("by", _TEXT),
    ("purged", pa.bool_()),
    ("standing", _TEXT),
)
PLAN_DUE: Final = _schema(
    "plan/due",
    ("token", _TEXT),
    ("uri", _TEXT),
    ("size", pa.int64()),
    ("version", _TEXT),
    ("reason", _TEXT),
    ("storage_class", _TEXT),
)
PLAN_UNCHANGED: Final = _schema("plan/unchanged", ("token", pa.binary(16)), ("by_other_request", pa.bool_()))
PURGE_LIST: Final = _schema(
    "purge",
    ("source_token", _TEXT),
    ("source_uri", _TEXT),
    ("source_version", _TEXT),
    ("source_size", pa.int64()),
    ("name", _TEXT),
    ("bytes", pa.int64()),
    ("sha256", _TEXT),
    ("reason", _TEXT),
)
PURGE_SETTLED: Final = _schema(
    "purge", ("source_token", _TEXT), ("source_uri", _TEXT), ("outcome", _TEXT), ("reason", _TEXT)
)

AUDIT: Final = (INSTANCES, STUDIES)
"""What may be shared: no original value, and nothing computed from one without the key."""

RESTRICTED: Final = (
    CROSSWALK_UIDS,
    CROSSWALK_PATIENTS,
    CROSSWALK_STUDIES,
    CROSSWALK_INSTANCES,
    CROSSWALK_GIVEN,
    QUARANTINE,
    LEDGER,
    GONE,
)
"""What leads back to the originals."""


def name_of(schema: pa.Schema) -> str:
    """The table's name, which is its folder's."""
    return str(schema.metadata[b"table"].decode())


def write_part(root: str, run: str, schema: pa.Schema, part: str, rows: list[dict[str, Any]]) -> tuple[str, int]:
    """Write one part of a table atomically, under a deterministic name, so that a retry writes it again.

    Returns:
      Its path below the root, and its number of rows; no rows, no file.
    """
    name = f"{name_of(schema)}/run={run}/part-{part}.parquet"
    if rows and "run_id" in schema.names:
        rows = [row | {"run_id": run} for row in rows]
    if rows:
        create = stores.create_small if schema in AUDIT else stores.create_restricted
        create(locate(root) / name, encoded(schema, rows))
    return name, len(rows)


def encoded(schema: pa.Schema, rows: list[dict[str, Any]]) -> bytes:
    """Rows as a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), buffer, compression="zstd")
    return buffer.getvalue()


def read_part(path: Location) -> list[dict[str, Any]]:
    """The rows of one part."""
    rows: list[dict[str, Any]] = pq.read_table(table_file(path), partitioning=None).to_pylist()
    return rows
