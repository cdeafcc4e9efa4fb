"""The command line without a process of its own: seconds less for each of the many runs that a property needs."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from click.testing import CliRunner, Result

from pipelines.cli import cli
from tests.corpora import KEY
from tests.oracles.reference_graph import Instance, read
from tests.pipelines.test_anonymize import table


class Site:
    """A place where runs are made: a key, and folders of its own.

    Args:
      folder: what it writes in; made where it is missing.
      key: None for a key of each run.
      command: anonymize, modify, split or merge.
    """

    def __init__(self, folder: Path, key: bytes | None = KEY, request: str = "", command: str = "anonymize") -> None:
        self.folder, self.out, self._command = folder, folder / "out", command
        self._key, self._request = key, request
        # A process resolves a reference to a key once, so that each key needs a reference of its own.
        self._variable = "SITE_KEY_" + hashlib.sha256(key or b"").hexdigest()[:8]
        folder.mkdir(parents=True, exist_ok=True)

    def run(self, files: Iterable[Path], *more: str, output: str = "out", status: int = 0) -> Result:
        """Carry out its request over some files, into one of its outputs; its crosswalk and audit are the same for all of them."""
        (self.folder / "request.yaml").write_text(self._request)
        command = [self._command, "--output", str(self.folder / output), "--request", str(self.folder / "request.yaml")]
        command += ["--audit", str(self.folder / "audit"), "--restricted", str(self.folder / "restricted"), *more]
        for file in files:
            command += ["--input", str(file)]
        if self._key is not None:
            command += ["--key", f"env:{self._variable}"]
        done = CliRunner(env={self._variable: (self._key or b"").hex()}).invoke(cli, command)
        assert done.exit_code == status, done.output
        return done

    def outputs(self) -> dict[str, bytes]:
        """Every instance in its outputs, by its name there."""
        files = [path for root in self.folder.glob("out*") for path in root.rglob("*.dcm")]
        return {"/".join(path.parts[-4:]): path.read_bytes() for path in files}

    def graph(self) -> dict[str, Instance]:
        """The graph of its outputs, each under its source's name."""
        sources = {row["name"]: row["source_uri"] for row in table(self.folder / "restricted", "crosswalk/instances")}
        return read({Path(sources[name]).name: content for name, content in self.outputs().items()})

    def uids(self) -> dict[str, str]:
        """The crosswalk of UIDs, over all of its runs.

        Raises:
          AssertionError: two runs tell of one UID otherwise.
        """
        found: dict[str, str] = {}
        for row in table(self.folder / "restricted", "crosswalk/uids"):
            assert found.setdefault(row["original"], row["new"]) == row["new"]
        return found

    def patients(self) -> dict[str, str]:
        """The crosswalk of those patients that have an ID, likewise."""
        found: dict[str, str] = {}
        for row in table(self.folder / "restricted", "crosswalk/patients"):
            if row["original"]:
                assert found.setdefault(row["original"], row["new"]) == row["new"]
        return found
