"""Runs anonymize bodies through a real Orthanc that nobody else can reach, and stores what comes out.

It is a process of its own, for its network namespace: `python orthanc_server.py FOLDER` reads FOLDER/job.json and
writes FOLDER/answers.json and the files that it tells of. What to make of them is not known here.
"""

import ctypes
import fcntl
import http.client
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ORTHANC = shutil.which("Orthanc", path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin")
ABSENT = "Orthanc is not installed (Debian: apt install orthanc)"
DICTIONARY = {"0029,1011": ["LO", "ImaginaryText", 1, 1, "IMAGINARY CSA"]}
"""The private elements that Orthanc knows."""
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP, _PR_SET_PDEATHSIG = 0x8913, 0x8914, 1, 1


@dataclass(frozen=True)
class Answer:
    """What Orthanc made of one request.

    Attributes:
      status: of HTTP; 200 where it was done.
      detail: what Orthanc says of a refusal.
      outputs: new file by source file; an instance that it didn't take or lost is missing.
    """

    status: int
    detail: str
    outputs: dict[Path, Path]


def anonymize(
    folder: Path, studies: dict[str, list[Path]], requests: list[tuple[str, dict[str, Any]]], timeout: int = 600
) -> list[Answer]:
    """Start an Orthanc in a network of its own, run the requests, stop it.

    Args:
      folder: empty; takes the server's store and the outputs.
      studies: the files of each, by a name; those of one name are anonymized in one job.
      requests: (name of the studies, anonymize body) each.
      timeout: in seconds, for all of it.
    """
    job = {
        "studies": {name: [str(path) for path in paths] for name, paths in studies.items()},
        "requests": [{"study": study, "body": body} for study, body in requests],
    }
    (folder / "job.json").write_text(json.dumps(job))
    command = [*_alone(), sys.executable, __file__, str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    if run.returncode:
        raise RuntimeError(f"the Orthanc driver ended with {run.returncode}: {run.stderr[-2000:]}")
    answers = json.loads((folder / "answers.json").read_text())
    return [
        Answer(one["status"], one["detail"], {Path(old): Path(new) for old, new in one["outputs"].items()})
        for one in answers
    ]


def _alone() -> list[str]:
    """The command that gives a process a network of its own; empty where this machine doesn't allow it."""
    for command in (["unshare", "-n"], ["unshare", "-rn"]):
        if shutil.which("unshare") and subprocess.run([*command, "true"], capture_output=True).returncode == 0:
            return command
    return []


def _raise_loopback() -> None:
    """In a new namespace the loopback interface is down; elsewhere this changes nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(control, _SIOCGIFFLAGS, request))[1]
        if not flags & _IFF_UP:
            fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Server:
    """An Orthanc with an empty store under `folder`, while the context lasts."""

    def __init__(self, folder: Path) -> None:
        self.port = _free_port()
        self.log = folder / "orthanc.log"
        store = folder / "store"
        configuration = {
            "Name": "oracle",
            "StorageDirectory": str(store),
            "IndexDirectory": str(store),
            "HttpPort": self.port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "HttpDescribeErrors": True,
            "DicomServerEnabled": False,
            "Plugins": [],
            "Dictionary": DICTIONARY,
            "JobsHistorySize": 10,
            "SaveJobs": False,
        }
        self._configuration = folder / "orthanc.json"
        self._configuration.write_text(json.dumps(configuration))

    def __enter__(self) -> "Server":
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(ORTHANC), str(self._configuration)], stdout=log, stderr=log, preexec_fn=_die_with_parent
            )
        self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        for _ in range(300):
            try:
                self.call("GET", "/system")
                return self
            except OSError:
                self._connection.close()
                if self._process.poll() is not None:
                    break
                time.sleep(0.1)
        self.__exit__()
        raise RuntimeError(f"Orthanc doesn't start: {self.log.read_text(errors='replace')[-1000:]}")

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def call(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        self._connection.request(method, path, body)
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def get(self, path: str) -> Any:
        return json.loads(self.call("GET", path)[1])

    def upload(self, path: Path) -> str | None:
        """Orthanc's name of the instance; None where it doesn't take the file, or has its like."""
        status, told = self.call("POST", "/instances", path.read_bytes())
        answer = json.loads(told) if status == 200 else {}
        return answer["ID"] if answer.get("Status") == "Success" else None

    def anonymize(self, body: dict[str, Any], sources: dict[str, str], folder: Path) -> dict[str, Any]:
        """Run one request over all that is stored, fetch the outputs, and take them out of the store again.

        Args:
          sources: source file by Orthanc's name of the instance.
        """
        whole = body | {"Resources": self.get("/studies"), "Synchronous": True, "KeepSource": True}
        status, told = self.call("POST", "/tools/bulk-anonymize", json.dumps(whole).encode())
        if status != 200:
            return {"status": status, "detail": json.loads(told).get("Details", ""), "outputs": {}}
        outputs = {}
        for made in json.loads(told)["Resources"]:
            if made["Type"] == "Instance":
                _, source = self.call("GET", f"/instances/{made['ID']}/metadata/AnonymizedFrom")
                out = folder / f"{len(outputs)}.dcm"
                out.write_bytes(self.call("GET", f"/instances/{made['ID']}/file")[1])
                outputs[sources[source.decode()]] = str(out)
        for identity in set(self.get("/instances")) - sources.keys():
            self.call("DELETE", f"/instances/{identity}")
        return {"status": status, "detail": "", "outputs": outputs}

    def clear(self) -> None:
        for identity in self.get("/patients"):
            self.call("DELETE", f"/patients/{identity}")


def _run(folder: Path) -> None:
    job = json.loads((folder / "job.json").read_text())
    answers: dict[int, dict[str, Any]] = {}
    with Server(folder) as server:
        for study, paths in job["studies"].items():
            stored = {server.upload(Path(path)): path for path in paths}
            sources = {identity: path for identity, path in stored.items() if identity}
            for number, request in enumerate(job["requests"]):
                if request["study"] == study:
                    outputs = folder / "outputs" / str(number)
                    outputs.mkdir(parents=True)
                    answers[number] = server.anonymize(request["body"], sources, outputs)
            server.clear()
    (folder / "answers.json").write_text(json.dumps([answers[number] for number in sorted(answers)]))


if __name__ == "__main__":
    _raise_loopback()
    _run(Path(sys.argv[1]))
