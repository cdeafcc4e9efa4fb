"""Apache Spark as a runner, through Beam's job server for it."""

from functools import cached_property

from apache_beam.options.pipeline_options import PipelineOptions, SparkRunnerOptions
from apache_beam.runners.portability.spark_runner import SparkRunner
from apache_beam.runners.runner import PipelineRunner

from dicomveil.errors import DicomveilError
from pipelines.cluster import Cluster
from pipelines.places import Places


class SparkRefused(DicomveilError):
    """There is no job server to be used; the message names the option and what to do."""


class Spark(Cluster):
    """A Spark cluster, or a Spark inside the job server."""

    said = "Spark's logs"

    def check(self, where: Places | None, key: str | None) -> None:
        if not PipelineOptions(self.options).view_as(SparkRunnerOptions).spark_job_server_jar:
            raise SparkRefused("--spark_job_server_jar: name Beam's job server: make spark makes it")

    @cached_property
    def _runner(self) -> PipelineRunner:
        return SparkRunner()
