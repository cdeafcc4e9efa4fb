"""What a Flink cluster is asked beside Beam's job service: by its REST interface, about jobs of a name."""

from contextlib import suppress
from typing import Any, Final

import requests

from dicomveil.errors import DicomveilError

_SECONDS: Final = 10


class FlinkRefused(DicomveilError):
    """A cluster can't be used; the message names the option and what to do."""


def check(master: str, version: str) -> None:
    """See that a cluster answers, and is of the version that jobs are made for.

    Args:
      master: http:// and the JobManager's host and port.
      version: as in 1.19.

    Raises:
      FlinkRefused: it doesn't, or isn't.
    """
    if not master.startswith("http"):
        raise FlinkRefused("--flink_master: name the JobManager's host and port; on this machine alone say --workers")
    try:
        there = str(_get(f"{master}/overview")["flink-version"])
    except (requests.RequestException, ValueError, KeyError, TypeError):
        raise FlinkRefused(f"--flink_master: no JobManager of Flink answers at {master}") from None
    minor = there.rpartition(".")[0]
    if minor != version:
        raise FlinkRefused(f"--flink_version: is {version}, and the cluster is of {there}: say --flink_version={minor}")


def cancel(master: str, name: str) -> None:
    """Cancel what runs by a name; that the cluster can't be asked is no error, since nothing else could be done.

    Args:
      master: as `check` has it.
    """
    with suppress(requests.RequestException, ValueError, KeyError):
        for job in _get(f"{master}/jobs/overview")["jobs"]:
            if job["name"] == name and job["end-time"] < 0:
                requests.patch(f"{master}/jobs/{job['jid']}", params={"mode": "cancel"}, timeout=_SECONDS)


def _get(url: str) -> Any:
    answer = requests.get(url, timeout=_SECONDS)
    answer.raise_for_status()
    return answer.json()
