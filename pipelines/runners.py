"""Where pipelines run: on this machine, or on a cluster."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from pipelines.cluster import Cluster
from pipelines.dataflow import Dataflow
from pipelines.flink import Flink, with_defaults
from pipelines.local import Local
from pipelines.places import Places
from pipelines.prism import Prism
from pipelines.spark import Spark


class Runner(Protocol):
    """What pipelines are handed to.

    Attributes:
      slice: how many instances are rewritten by one pipeline, about; what a slice has settled isn't done again.
      apart: whether its workers may be on other machines.
      said: where it is told what workers say; "" for the file that stands in the folder of each `run`.
    """

    slice: int
    apart: bool
    said: str

    def check(self, where: Places | None, key: str | None) -> None:
        """See that there is one, and that its workers will see what they must.

        Args:
          where, key: as the command has them; None where it has none, or none that could be used.

        Raises:
          DicomveilError: there is none, or they won't; the message names the option.
        """
        ...

    def run(self, build: Callable[[beam.Pipeline], None], name: str, folder: Path) -> None:
        """Build a pipeline and see it to its end.

        Args:
          name: of the job, for whoever looks at the cluster.
          folder: of this machine and this user alone, for what lies between stages and what the workers say.

        Raises:
          RunFailed: the cluster is gone.
          Exception: a worker failed; its text may quote originals.
        """
        ...

    def tasks(self) -> tuple[int, int] | None:
        """Of the pipeline at work how many tasks are done, and of how many; None where nobody tells."""
        ...


def runner_of(workers: int, beam_options: list[str]) -> Runner:
    """The one that some options name; the local one where they name none."""
    runner = PipelineOptions(beam_options).view_as(StandardOptions).runner
    if runner is None:
        return Local(workers, beam_options)
    if runner == "FlinkRunner":
        return Flink(with_defaults(beam_options))
    return {"DataflowRunner": Dataflow, "PrismRunner": Prism, "SparkRunner": Spark}.get(runner, Cluster)(beam_options)
