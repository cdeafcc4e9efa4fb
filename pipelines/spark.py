"""Apache Spark as a runner, through Beam's job server for it."""

from functools import cached_property

from apache_beam.runners.portability.spark_runner import SparkRunner
from apache_beam.runners.runner import PipelineRunner

from pipelines.cluster import Cluster


class Spark(Cluster):
    """A Spark cluster, or a Spark inside the job server."""

    said = "Spark's logs"

    @cached_property
    def _runner(self) -> PipelineRunner:
        return SparkRunner()
