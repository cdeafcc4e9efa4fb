"""Runs bodies through a real Orthanc that nobody else can reach, and stores what comes out; or asks it things.

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
_NAMING = ("Resources", "Series", "Instances")
_ROUTES = {"Patient": "/patients", "Study": "/studies", "Series": "/series", "Instance": "/instances"}
_PATHS = dict(
    zip(("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"), _ROUTES.values(), strict=True)
)
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


@dataclass(frozen=True)
class Altered:
    """What Orthanc made of one request to modify, split or merge.

    Attributes:
      status, detail: as in `Answer`.
      stored: the files that it took; of those that it didn't it knows nothing.
      outputs: (source file, or None where Orthanc doesn't tell, new file) each.
    """

    status: int
    detail: str
    stored: list[Path]
    outputs: list[tuple[Path | None, Path]]


Request = tuple[str, str, dict[str, Any]]
"""Name of the studies; modify, split or merge; and the body, in which resources are named by DICOM identifiers."""


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
    answers = _answers(folder, studies, [(study, "anonymize", body) for study, body in requests], timeout)
    return [
        Answer(one["status"], one["detail"], {Path(old): Path(new) for old, new in one["outputs"].items()})
        for one in answers
    ]


def alter(folder: Path, studies: dict[str, list[Path]], requests: list[Request], timeout: int = 600) -> list[Altered]:
    """The same for modify, split and merge."""
    return [
        Altered(
            one["status"],
            one["detail"],
            [Path(path) for path in one["stored"]],
            [(Path(old) if old else None, Path(new)) for old, new in one["outputs"]],
        )
        for one in _answers(folder, studies, requests, timeout)
    ]


def _answers(
    folder: Path, studies: dict[str, list[Path]], requests: list[Request], timeout: int
) -> list[dict[str, Any]]:
    job = {
        "studies": {name: [str(path) for path in paths] for name, paths in studies.items()},
        "requests": [{"study": study, "command": command, "body": body} for study, command, body in requests],
    }
    answers: list[dict[str, Any]] = _driven(folder, job, timeout)
    return answers


@dataclass(frozen=True)
class Asked:
    """What Orthanc says of itself.

    Attributes:
      stored: its answer to each file, in their order.
      answers: (status, what it said: JSON read, other text as it is) of each call.
    """

    stored: list[dict[str, Any]]
    answers: list[tuple[int, Any]]


Call = tuple[str, str, dict[str, Any] | None]


def ask(folder: Path, files: list[Path], calls: list[Call], timeout: int = 600) -> Asked:
    """Start an Orthanc in a network of its own, store files there, make calls, stop it.

    Args:
      folder: empty; takes the server's store.
      calls: (method, path, body) each.
      timeout: in seconds, for all of it.
    """
    found = _driven(folder, {"files": [str(path) for path in files], "calls": calls}, timeout)
    return Asked(found["stored"], [(status, told) for status, told in found["answers"]])


def _driven(folder: Path, job: dict[str, Any], timeout: int) -> Any:
    """What the process of its own answers to a job."""
    (folder / "job.json").write_text(json.dumps(job))
    command = [*_alone(), sys.executable, __file__, str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    if run.returncode:
        raise RuntimeError(f"the Orthanc driver ended with {run.returncode}: {run.stderr[-2000:]}")
    return json.loads((folder / "answers.json").read_text())


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
        self._remove_all_but(sources)
        return {"status": status, "detail": "", "outputs": outputs}

    def alter(self, command: str, body: dict[str, Any], sources: dict[str, str], folder: Path) -> dict[str, Any]:
        """Modify, split or merge by the route that a body asks for, fetch the outputs, and take them out again.

        Args:
          body: as dicomveil has it: resources by DICOM identifier, the study beside them.
        """
        route, whole = self._route(command, dict(body))
        status, told = self.call("POST", route, json.dumps(whole).encode())
        answer: dict[str, Any] = {"status": status, "detail": "", "stored": list(sources.values()), "outputs": []}
        if status != 200:
            detail = json.loads(told)
            return answer | {"detail": detail.get("Details") or detail.get("Message", "")}
        if route.startswith("/instances/"):
            (out := folder / "0.dcm").write_bytes(told)
            answer["outputs"].append((sources[route.split("/")[2]], str(out)))
        for number, identity in enumerate(sorted(set(self.get("/instances")) - sources.keys())):
            found, source = self.call("GET", f"/instances/{identity}/metadata/ModifiedFrom")
            (out := folder / f"{number}.dcm").write_bytes(self.call("GET", f"/instances/{identity}/file")[1])
            answer["outputs"].append((sources[source.decode()] if found == 200 else None, str(out)))
        self._remove_all_but(sources)
        return answer

    def _route(self, command: str, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """The route, and the body with Orthanc's names of what it is about."""
        named = {member: [self._known(it) for it in body.pop(member)] for member in _NAMING if member in body}
        ours = {member: [identity for identity, _ in found] for member, found in named.items()}
        study = self._known(body.pop("Study")) if "Study" in body else None
        body |= {"Synchronous": True, "KeepSource": True}
        if command == "merge" and study:
            return f"{study[1]}/merge", body | ours
        if command == "split":
            study = study or self._known_study(*next(found for it in named.values() for found in it))
            return f"{study[1]}/split", body | ours
        level, resources = body.pop("Level", "Instance"), named["Resources"]
        if len(resources) == 1 and resources[0][1].startswith(_ROUTES[level]):
            return f"{resources[0][1]}/modify", body
        return "/tools/bulk-modify", body | {"Level": level} | ours

    def _known(self, resource: dict[str, str]) -> tuple[str, str]:
        """(Orthanc's identifier, path) of what a DICOM identifier names; those of nothing where there is none."""
        ((keyword, value),) = resource.items()
        found = json.loads(self.call("POST", "/tools/lookup", value.encode())[1])
        of_level = [(it["ID"], it["Path"]) for it in found if it["Path"].startswith(_PATHS[keyword])]
        assert len(of_level) < 2, f"{value} is several"
        return of_level[0] if of_level else ("nothing", f"{_PATHS[keyword]}/nothing")

    def _known_study(self, identity: str, path: str) -> tuple[str, str]:
        above = path if path.startswith("/series") else f"/series/{self.get(path)['ParentSeries']}"
        parent = self.get(above)["ParentStudy"]
        return parent, f"/studies/{parent}"

    def _remove_all_but(self, sources: dict[str, str]) -> None:
        for identity in set(self.get("/instances")) - sources.keys():
            self.call("DELETE", f"/instances/{identity}")

    def clear(self) -> None:
        for identity in self.get("/patients"):
            self.call("DELETE", f"/patients/{identity}")


def _read(status: int, told: bytes) -> tuple[int, Any]:
    try:
        return status, json.loads(told)
    except ValueError:
        return status, told.decode("utf-8", "replace")


def _ask(folder: Path, job: dict[str, Any]) -> None:
    with Server(folder) as server:
        stored = [_read(*server.call("POST", "/instances", Path(path).read_bytes()))[1] for path in job["files"]]
        answers = [
            _read(*server.call(method, path, body if body is None else json.dumps(body).encode()))
            for method, path, body in job["calls"]
        ]
    (folder / "answers.json").write_text(json.dumps({"stored": stored, "answers": answers}))


def _run(folder: Path, job: dict[str, Any]) -> None:
    answers: dict[int, dict[str, Any]] = {}
    with Server(folder) as server:
        for study, paths in job["studies"].items():
            stored = {server.upload(Path(path)): path for path in paths}
            sources = {identity: path for identity, path in stored.items() if identity}
            for number, request in enumerate(job["requests"]):
                if request["study"] == study:
                    outputs = folder / "outputs" / str(number)
                    outputs.mkdir(parents=True)
                    command, body = request["command"], request["body"]
                    answers[number] = (
                        server.anonymize(body, sources, outputs)
                        if command == "anonymize"
                        else server.alter(command, body, sources, outputs)
                    )
            server.clear()
    (folder / "answers.json").write_text(json.dumps([answers[number] for number in sorted(answers)]))


if __name__ == "__main__":
    _raise_loopback()
    _given = json.loads((Path(sys.argv[1]) / "job.json").read_text())
    (_ask if "calls" in _given else _run)(Path(sys.argv[1]), _given)
