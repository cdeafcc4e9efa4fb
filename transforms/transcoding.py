"""Instances on their way into another transfer syntax: written aside, transcoded by a child, and read from there."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dicomveil.transcoder import Transcoded
from transforms import files
from transforms.children import Children


class Transcoding:
    """What becomes of instances where a request names a transfer syntax; made in a DoFn's `setup`.

    Args:
      transfer_syntax_uid: the target.
      quality: of lossy ones.
    """

    def __init__(self, transfer_syntax_uid: str, quality: int) -> None:
        self._uid, self._quality, self._children = transfer_syntax_uid, quality, Children()

    def close(self) -> None:
        """End the child."""
        self._children.close()

    @contextmanager
    def written(self, chunks: Iterable[bytes], aside: Path) -> Iterator[tuple[Iterator[bytes], Transcoded]]:
        """An instance in the target syntax, as long as the context lasts.

        Args:
          chunks: of the file as it is.
          aside: a name of this process alone, in a folder that nobody reads.

        Raises:
          InvalidInstance: it can't be produced.
          StoreFailed: it can't be written aside.
          ChildrenUnable: no child can be started at all.
        """
        before, after = aside.with_suffix(".before"), aside.with_suffix(".after")
        try:
            files.write_aside(before, chunks)
            transcoded = self._children.transcode(str(before), str(after), self._uid, self._quality)
            yield files.read_aside(after), transcoded
        finally:
            before.unlink(missing_ok=True)
            after.unlink(missing_ok=True)
