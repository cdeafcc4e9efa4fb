"""From the inputs to the objects in them, each once."""

import json
from collections.abc import Iterable, Iterator

import apache_beam as beam

from dicomveil.keys import Keys
from transforms import inputs
from transforms.locations import locate
from transforms.records import SourceObject
from transforms.secrets import KeyReference


class MatchSources(beam.PTransform):
    """List every object below the inputs; one reached by several of them counts once.

    Args:
      inputs: file in the restricted zone that holds the roots as a JSON list, and of lists of objects {"list": place};
        the graph carries only its place.
    """

    def __init__(self, inputs: str, key: KeyReference) -> None:
        super().__init__()
        self._inputs, self._key = inputs, key

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[SourceObject]:
        return (
            pipeline
            | "Start" >> beam.Create([self._inputs])
            | "Spread" >> beam.FlatMap(_spread)
            | "Share out" >> beam.Reshuffle()
            | "List" >> beam.ParDo(_ListFn(self._key))
            | "Key by token" >> beam.WithKeys(_token).with_output_types(tuple[str, SourceObject])
            | "Group" >> beam.GroupByKey()
            | "Take one" >> beam.MapTuple(_one).with_output_types(SourceObject)
        )


def source_token(keys: Keys, uri: str, version: str) -> str:
    """Stands for one version of one stored object."""
    return keys.token("source", uri.encode(), version.encode())


def _spread(file: str) -> Iterator[inputs.Task]:
    """What several workers can list at once."""
    for given in json.loads(locate(file).read_bytes()):
        yield from inputs.spread(given) if isinstance(given, str) else inputs.spread_list(given["list"])


def _token(source: SourceObject) -> str:
    return source.token


def _one(token: str, sources: Iterable[SourceObject]) -> SourceObject:
    return next(iter(sources))


class _ListFn(beam.DoFn):
    def __init__(self, key: KeyReference) -> None:
        self._key = key

    def setup(self) -> None:
        self._keys = self._key.keys()

    def process(self, task: inputs.Task) -> Iterator[SourceObject]:
        for found in inputs.carry_out(task):
            token = source_token(self._keys, found.uri, found.version)
            yield SourceObject(
                token, found.uri, found.size, found.version, found.reason, storage_class=found.storage_class
            )
