"""Job files: what a scheduler starts is the very command that a person would have typed."""

import json
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from dicomveil.errors import RequestError
from dicomveil.schema import COMMANDS
from dicomveil.testing import write_demo_study
from pipelines.cli import cli
from pipelines.jobs import PLACES, QUANTITIES, options_of, published, read_job, schema
from pipelines.options import check_apart
from tests.corpora import KEY
from tests.pipelines.test_anonymize import contents

ROOT = Path(__file__).parents[2]
JOBS = sorted((ROOT / "configs/jobs").glob("*.yaml"))
SOUND: dict[str, Any] = {
    "command": "anonymize",
    "input": "in",
    "output": "out",
    "key": "env:DICOMVEIL_KEY",
    "request": {"DicomVersion": "2026d"},
}


def written(folder: Path, job: dict[str, Any] | str) -> str:
    """A job's file."""
    file = folder / "night.yaml"
    file.write_text(job if isinstance(job, str) else yaml.safe_dump(job, sort_keys=False))
    return str(file)


def told(folder: Path, job: dict[str, Any] | str) -> list[str]:
    """What is wrong with a job, as line, member and what."""
    name = written(folder, job)
    with pytest.raises(RequestError) as refused:
        read_job(name, cli.commands)
    assert all(it.remedy for it in refused.value.problems)
    return [f"{it.where.removeprefix(name + ':')}: {it.what}" for it in refused.value.problems]


def parsed(words: list[str], command: str) -> dict[str, Any]:
    """What a command understands of a command line."""
    context = cli.commands[command].make_context(command, list(words))
    return context.params | {"beam": context.args, "undeclared": context.meta["after"]}


# ------------------------------------------------------------------------------------ the command line and its jobs


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_a_member(command: str, tmp_path: Path) -> None:
    """A job that gives each option a value is understood as the command line that gives them."""
    options = options_of(cli.commands[command])
    job: dict[str, Any] = {"command": command}
    words = []
    for member, option in options.items():
        name = option.opts[0]
        if option.is_flag:
            job[member] = True
            words.append(name)
        elif option.multiple:
            job[member] = [f"/{member}/1", f"/{member}/2"]
            words += [name, *job[member]]
        else:
            job[member] = "env:K" if member == "key" else example(option.type, f"/{member}")
            words += [name, str(job[member])]
    if command == "anonymize":
        (tmp_path / "request.yaml").write_text("DicomVersion: 2026d")
        words[words.index("/request")] = job["request"] = str(tmp_path / "request.yaml")
    job |= {"runner": "DirectRunner", "beam": ["--temp_location=/t", "--", "--undeclared"]}
    words += ["--runner=DirectRunner", "--temp_location=/t", "--", "--undeclared"]
    assert parsed(list(read_job(written(tmp_path, job), cli.commands).words), command) == parsed(words, command)
    assert set(schema(cli.commands[command])["properties"]) == job.keys()


def example(kind: click.ParamType, otherwise: str) -> str | int:
    """Something that an option takes."""
    if isinstance(kind, click.IntRange):
        return kind.min or 1
    if isinstance(kind, click.Choice):
        return str(kind.choices[0])
    return otherwise if kind is click.STRING else 7


def test_every_place_is_shown_as_one() -> None:
    """An option that leads somewhere says so where its value is shown, so that a job knows what it may not take as it
    stands."""
    shown = {option.metavar for command in COMMANDS for option in options_of(cli.commands[command]).values()}
    assert shown <= {*PLACES, *QUANTITIES, "REF", "N", "NAME", None}


def test_places_lead_from_the_job_on(tmp_path: Path) -> None:
    """Relative places are those of the job's folder, wherever it is started; URIs and absolute ones stay."""
    job = SOUND | {"input": ["in", "/abs", "gs://b/n"], "restricted": "../r", "key": "file:k/p.key", "workers": 2}
    words = read_job(written(tmp_path, job), cli.commands).words
    assert words == (
        f"--input={tmp_path}/in",
        "--input=/abs",
        "--input=gs://b/n",
        f"--output={tmp_path}/out",
        f"--key=file:{tmp_path}/k/p.key",
        f"--restricted={tmp_path}/../r",
        "--workers=2",
    )


def test_a_quantity_may_be_a_number(tmp_path: Path) -> None:
    """Nobody has to know which numbers are text."""
    job = SOUND | {"max-failures": 5, "max-bytes": "20GiB", "max-instances": 100}
    words = read_job(written(tmp_path, job), cli.commands).words
    assert {"--max-failures=5", "--max-bytes=20GiB", "--max-instances=100"} <= set(words)


def test_a_value_that_begins_like_an_option_stays_a_value(tmp_path: Path) -> None:
    """A folder may be called --overwrite; nothing is overwritten for that."""
    words = read_job(written(tmp_path, SOUND | {"output": "/o", "input": "--overwrite"}), cli.commands).words
    understood = parsed(list(words), "anonymize")
    assert understood["inputs"] == (f"{tmp_path}/--overwrite",)
    assert not understood["overwrite"]


# ---------------------------------------------------------------------------------------------------------- mistakes


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    """Each with its line and what to write instead, the request's among them."""
    assert told(
        tmp_path,
        """\
command: anonymise
inputs: x
output: out
workers: 900
overwrite: "yes"
output: other
request:
  DicomVersion: 2026d
  Replce: {}
""",
    ) == [
        "1: names no input",
        "1 command: has a value that isn't known",
        "2 inputs: is no member of this job",
        "4 workers: is out of range",
        "5 overwrite: has a value of the wrong type",
        "6 output: is given twice",
        "9 Replce: is no member of a request",
    ]


@pytest.mark.parametrize("text", ["", "[]", "a: [", "command: *x", "\0"])
def test_what_is_no_job_is_refused(text: str, tmp_path: Path) -> None:
    """Any text has an answer."""
    assert told(tmp_path, text)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"request": {}}, "request: pins no edition"),
        ({"request": "loose.yaml"}, "request: names a request that pins no edition"),
        ({"request": None}, "has no request"),
    ],
)
def test_an_edition_is_pinned(change: dict[str, Any], line: str, tmp_path: Path) -> None:
    """A job names the edition of its rules, so that an upgrade never changes them unnoticed."""
    (tmp_path / "loose.yaml").write_text("Options: []")
    job = {name: value for name, value in (SOUND | change).items() if value is not None}
    (problem,) = told(tmp_path, job)
    assert line in problem


def test_commands_without_an_edition_pin_none(tmp_path: Path) -> None:
    """Modify, split and merge apply no rules of an edition."""
    job = SOUND | {"command": "modify", "request": {"Remove": ["PatientComments"]}}
    assert read_job(written(tmp_path, job), cli.commands).inline["request"].command == "modify"


@pytest.mark.parametrize("member", ["key", "audit", "secret", "beam"])
@pytest.mark.parametrize("form", ["{}", "env:{}"])
def test_a_key_in_a_job_is_refused_and_not_told(member: str, form: str, tmp_path: Path) -> None:
    """Whoever reads a job, or what is said of it, learns no key."""
    secret = form.format(KEY.hex()[::-1])
    name = written(tmp_path, SOUND | {member: [secret] if member == "beam" else secret})
    done = CliRunner().invoke(cli, ["run", name])
    assert done.exit_code == 2
    assert "looks like a key itself" in done.output
    assert KEY.hex()[::-1] not in done.output


@pytest.mark.parametrize("place", ["$HOME/out", "${OUT}", "~/out", "gs://b/${DAY}"])
def test_nothing_is_expanded_silently(place: str, tmp_path: Path) -> None:
    """A place that names a variable is refused, and not created by that name."""
    assert told(tmp_path, SOUND | {"output": place}) == [
        "3 output: names a variable or a home, and nothing is expanded in a job"
    ]


def test_a_missing_job_is_told(tmp_path: Path) -> None:
    """No traceback where the file isn't there, and the status of wrong usage."""
    done = CliRunner().invoke(cli, ["run", str(tmp_path / "none.yaml")])
    assert (done.exit_code, done.exception.__class__) == (2, SystemExit)
    assert "No such file" in done.output


# --------------------------------------------------------------------------------------------- what is published


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_every_job_loads(path: Path) -> None:
    """A job that the repository offers is one that is obeyed, and that the published schema takes."""
    read_job(str(path), cli.commands)
    assert list(Draft202012Validator(published(cli.commands)).iter_errors(yaml.safe_load(path.read_text()))) == []


def test_the_published_schema_is_the_one_in_use() -> None:
    """Who checks a job with the published schema gets our answer."""
    assert json.loads((ROOT / "docs/job.schema.json").read_text("utf-8")) == published(cli.commands)
    validator = Draft202012Validator(published(cli.commands))
    assert validator.is_valid(SOUND)
    assert not validator.is_valid(SOUND | {"command": "modify", "settle-anew": True})
    assert not validator.is_valid(SOUND | {"key": KEY.hex()})


# ---------------------------------------------------------------------------------------------------------- it runs


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a made-up study, a key and a job beside it."""
    folder = tmp_path_factory.mktemp("night")
    write_demo_study(folder / "in")
    (folder / "project.key").write_text(KEY.hex())
    (folder / "project.key").chmod(0o600)
    written(folder, SOUND | {"key": "file:project.key"})
    return folder


def test_a_dry_run_leaves_nothing_but_its_word(archive: Path) -> None:
    """It plans and tells what there is to do; the next run looks for itself."""
    done = CliRunner().invoke(cli, ["run", str(archive / "night.yaml"), "--dry-run"])
    assert done.exit_code == 0, done.output
    assert not (archive / "out").exists()
    assert not list((archive / "out-restricted").glob("run=*"))


def test_a_job_does_what_its_command_does(archive: Path) -> None:
    """The same bytes, from another folder than the job's."""
    done = CliRunner().invoke(cli, ["run", str(archive / "night.yaml")])
    assert done.exit_code in (0, 3), done.output
    (archive / "request.yaml").write_text("DicomVersion: 2026d")
    words = [
        "anonymize", "--input", archive / "in", "--output", archive / "typed", "--key", f"file:{archive}/project.key",
        "--request", archive / "request.yaml",
    ]  # fmt: skip
    assert CliRunner().invoke(cli, list(map(str, words))).exit_code == done.exit_code
    assert contents(archive / "out") == contents(archive / "typed") != {}


# ------------------------------------------------------------------------------------------------ what Beam may hold


@pytest.mark.parametrize(
    ("output", "word", "refused"),
    [
        ("gs://release/images", "--temp_location=gs://release/beam", True),
        ("gs://release/images", "--staging_location=gs://restricted/beam", False),
        ("gs://release/images", "--temp_location=s3://release/beam", False),
        ("/release", "--temp_location=/release/beam", True),
        ("/release", "--temp_location=file:///release", True),
        ("/release", "--temp_location=/released", False),
        ("/release", "--experiments=use_x", False),
    ],
)
def test_what_beam_keeps_never_lies_beside_the_output(output: str, word: str, refused: bool) -> None:
    """Temporary and staged files hold originals, and a bucket's readers may read all of it."""
    for words in ([word], word.split("=")):
        if not refused:
            check_apart(words, {"--output": output})
            continue
        with pytest.raises(click.UsageError, match="leads into --output or its bucket, and will hold originals"):
            check_apart(words, {"--output": output})


def test_a_job_is_held_to_it(archive: Path) -> None:
    """By whatever way an option comes."""
    job = SOUND | {"key": "file:project.key", "beam": [f"--temp_location={archive}/out/beam"]}
    (archive / "shared.yaml").write_text(yaml.safe_dump(job))
    done = CliRunner().invoke(cli, ["run", str(archive / "shared.yaml")])
    assert done.exit_code == 2
    assert "--temp_location: leads into --output" in done.output
