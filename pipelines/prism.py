"""Beam's portable runner for one machine, Prism, as a runner: a program of its own, which holds all in memory."""

import os
from functools import cached_property

from apache_beam.options.pipeline_options import PipelineOptions, PrismRunnerOptions
from apache_beam.runners.portability.prism_runner import PrismRunner
from apache_beam.runners.runner import PipelineRunner

from dicomveil.errors import DicomveilError
from pipelines.cluster import Cluster
from pipelines.places import Places


class PrismRefused(DicomveilError):
    """There is no Prism to be used; the message names the option and what to do."""


class Prism(Cluster):
    """A program that works through a pipeline, with workers in this process unless it is told otherwise."""

    said = ""

    def __init__(self, options: list[str]) -> None:
        super().__init__([*options, "--prism_log_kind=json"])  # else Beam has its errors told, with what they quote

    def check(self, where: Places | None, key: str | None) -> None:
        location = PipelineOptions(self.options).view_as(PrismRunnerOptions).prism_location
        if not location or not os.path.isfile(location):
            raise PrismRefused(
                "--prism_location: name the program, or its zip file: go install "
                "github.com/apache/beam/sdks/v2/go/cmd/prism makes it"
            )

    @cached_property
    def _runner(self) -> PipelineRunner:
        return PrismRunner()
