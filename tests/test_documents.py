"""What the repository says of itself is so: documents, configurations and names."""

import importlib.metadata
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pydicom
import pytest
import yaml
from click.testing import CliRunner
from pydicom.data import get_testdata_file

from dicomveil import Deidentifier, filters, media
from dicomveil.body import parse_request
from dicomveil.errors import REASONS
from dicomveil.explain import explain
from dicomveil.keys import Keys
from dicomveil.pseudonyms import patient_pseudonym
from dicomveil.request import Request
from dicomveil.schema import COMMANDS, MEMBERS, PIXEL_OPTIONS, obeyed, published
from dicomveil.uids import new_uid
from pipelines.cli import anonymize, cli
from pipelines.options import declared
from transforms import tables

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
CONFIGS = sorted([*ROOT.glob("configs/requests/*.yaml"), *ROOT.glob("configs/requests/*.json")])
CASES = [
    *sorted(ROOT.glob("tests/cases/orthanc/*.yaml")),
    ROOT / "tests/cases/modify.yaml",
    ROOT / "tests/cases/split_merge.yaml",
]
PACKAGES = ("dicomveil", "transforms", "pipelines")


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def section(text: str, heading: str) -> str:
    """What stands under the first second-level heading that starts so."""
    return text.split(f"\n## {heading}")[1].split("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of every Markdown table in a text, headings and rules aside."""
    lines = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


# -------------------------------------------------------------------------------------------------------- requests


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_request_loads(path: Path) -> None:
    """A request that the repository offers is one that it obeys: under the command that begins its name, or anonymize."""
    command = path.name.split("-")[0]
    parse_request(path.read_text("utf-8"), path.name, command=command if command in COMMANDS else "anonymize")


def test_every_request_is_explained() -> None:
    """docs/requests.md tells what each request that the repository offers is for."""
    listed = re.findall(r"^\| \[(.+?)\]", section(read("docs/requests.md"), "Ready requests"), re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in CONFIGS)


def test_the_basic_request_says_everything() -> None:
    """basic.yaml names every member that has a default, with it."""
    text = read("configs/requests/basic.yaml")
    assert parse_request(text) == Request()
    assert re.findall(r"^(\w+):", text, re.MULTILINE) == [
        name for name in obeyed() if "default" in MEMBERS[name].schema
    ]


def test_the_published_schema_is_the_one_in_use() -> None:
    """Who checks a request with the published schema gets our answer."""
    assert json.loads(read("docs/request.schema.json")) == published()


def test_every_member_is_documented() -> None:
    """docs/requests.md tells of each member and all of its values, and of nothing that isn't built."""
    documented = {row[0].strip("`"): row[1] for row in rows(section(read("docs/requests.md"), "Members"))[1:]}
    assert tuple(documented) == obeyed()
    for member, values in documented.items():
        assert not values.startswith("`") or re.findall("`(.+?)`", values) == values_of(member), member
        assert values.startswith("`") or not values_of(member), member


def test_every_member_of_the_other_commands_is_documented() -> None:
    """docs/modify.md tells of each member that anonymize doesn't know, which commands do, and all of its values."""
    documented = {row[0].strip("`"): row[1:3] for row in rows(section(read("docs/modify.md"), "Members"))[1:]}
    assert documented.keys() == {name for command in COMMANDS for name in obeyed(command)} - set(obeyed())
    for member, (commands, values) in documented.items():
        assert tuple(commands.split(", ")) == MEMBERS[member].commands
        assert not values_of(member) or re.findall("`(.+?)`", values) == values_of(member), member


def values_of(member: str) -> list[str]:
    """All that a member can be, where those are few; Options without those that are refused."""
    schema = MEMBERS[member].schema
    if "boolean" in schema.get("type", ()):
        return ["true", "false"]
    refused = PIXEL_OPTIONS if member == "Options" else ()
    return [value for value in schema.get("enum", schema.get("items", {}).get("enum", [])) if value not in refused]


def test_every_option_is_documented() -> None:
    """docs/requests.md says of each Option what it does."""
    documented = [row[0].strip("`") for row in rows(section(read("docs/requests.md"), "Options and"))[1:]]
    assert documented == values_of("Options")


# ------------------------------------------------------------------------------------------------------------ Orthanc


@cache
def known_tests() -> frozenset[str]:
    """The names of all tests, and of the cases after Orthanc's."""
    functions = {
        name
        for path in ROOT.glob("tests/**/test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)
    }
    return frozenset(functions | {case["name"] for path in CASES for case in yaml.safe_load(path.read_text("utf-8"))})


@pytest.mark.parametrize("name", ["What differs", "Defects that are not repeated", "Orthanc's own tests"])
def test_what_is_said_of_orthanc_is_shown(name: str) -> None:
    """Each difference, each defect and each of Orthanc's tests names a test of ours that there is."""
    lines = rows(section(read("docs/orthanc.md"), name).split("### Left out")[0])[1:]
    assert lines
    for line in lines:
        named = re.findall("`(.+?)`", line[-1])
        assert named, line
        assert set(named) <= known_tests(), set(named) - known_tests()


def test_every_story_is_shown() -> None:
    """docs/stories.md tells the thirteen stories, the first test of each is its own, and all tests that it names are there."""
    text = read("docs/stories.md")
    lines = [line for heading in ("References", "Dates") for line in rows(section(text, heading))[1:]]
    assert [line[0] for line in lines] == [f"A{n}" for n in range(1, 9)] + [f"B{n}" for n in range(9, 14)]
    stories = set(re.findall(r"^def (test_\w+)", read("tests/test_stories.py"), re.MULTILINE))
    for number, _, shown in lines:
        named = re.findall("`(.+?)`", shown)
        assert set(named) <= known_tests(), set(named) - known_tests()
        assert named[0].startswith(f"test_{number.lower()}_")
        stories.discard(named[0])
    assert stories == set()


def test_every_defect_has_its_line() -> None:
    """docs/orthanc.md counts the thirteen defects, and each case that names a defect names one of them."""
    numbers = [int(line[0]) for line in rows(section(read("docs/orthanc.md"), "Defects"))[1:]]
    assert numbers == list(range(1, 14))
    assert {case["defect"] for case in yaml.safe_load(read("tests/cases/orthanc/defects.yaml"))} <= set(numbers)


def test_every_test_of_orthancs_is_accounted_for() -> None:
    """A test of Orthanc's that a case names stands in docs/orthanc.md."""
    listed = section(read("docs/orthanc.md"), "Orthanc's own tests")
    for path in CASES:
        for case in yaml.safe_load(path.read_text("utf-8")):
            for name in re.findall(r"\btest_\w+", case.get("orthanc", "")):
                assert name in listed or f"{name.rsplit('_', 1)[0]}_*" in listed, name


# --------------------------------------------------------------------------------------------------- what comes out


def test_the_conformance_statement_is_what_explain_prints() -> None:
    """docs/conformance.md is the statement of the default request, and README claims what it claims."""
    statement = explain(Request())
    assert read("docs/conformance.md") == statement + "\n"
    claimed = re.findall(r"^- (\d{6} .+)$", statement, re.MULTILINE)
    assert claimed and all(claim in " ".join(read("README.md").split()) for claim in claimed)


def test_every_reason_is_documented() -> None:
    """docs/reasons.md is the list of reasons, word for word."""
    documented = rows(read("docs/reasons.md"))[1:]
    assert documented == [[f"`{name}`", *reason] for name, reason in REASONS.items()]


def test_every_reason_of_media_is_documented() -> None:
    """docs/inputs.md tells why an instance isn't on a medium, word for word, and names every member of a filter."""
    text = read("docs/inputs.md")
    documented = rows(section(text, "A DICOMDIR for the output"))[1:]
    assert documented == [[f"`{name}`", *told] for name, told in media.REASONS.items()]
    told = re.findall("`(.+?)`", " ".join(row[0] for row in rows(section(text, "Filters"))[1:]))
    assert sorted(told) == sorted(filters.MEMBERS)
    assert {name for name in REASONS if "zip" in name} == set(re.findall("`([a-z]*-?zip-?[a-z-]*)`", text))
    example = text.split("```yaml\n")[1].split("```")[0]
    filters.parse_filter(example, "example", lambda name: b"1.2.3")


def test_every_column_is_documented() -> None:
    """docs/audit.md lists each table's columns in their order, with their types."""
    text = read("docs/audit.md")
    for table in (*tables.AUDIT, *tables.RESTRICTED):
        section = re.split(r"^##+ ", text.split(f"### `{tables.name_of(table)}/`")[1], flags=re.MULTILINE)[0]
        columns = [
            [f"`{field.name}`", "list of struct" if field.name in ("changes", "frozen") else str(field.type)]
            for field in table
        ]
        assert rows(section)[1:] == columns


def test_the_recipe_gives_its_own_example() -> None:
    """The worked example of docs/identity.md holds, so that another program can check its own derivation by it."""
    text, keys = read("docs/identity.md"), Keys(bytes(range(32)))
    for value in (keys.fingerprint, new_uid(keys, "1.2.3"), patient_pseudonym(keys, "4711")):
        assert f"`{value}`" in text


# --------------------------------------------------------------------------------------------------------- the README


def test_the_options_of_the_readme_exist() -> None:
    """Every option and every command that the documents name is one that the command line has, or one of Beam's."""
    known = {name for command in cli.commands.values() for option in command.params for name in option.opts}
    known |= declared() | {"--execution_mode_for_batch"}  # which only the job server knows
    for path in DOCUMENTS:
        text = path.read_text("utf-8")
        assert set(re.findall(r"`(--[a-z_-]+)", text)) <= known, path.name
        assert set(re.findall(r"^dicomveil ([\w-]+)|`dicomveil ([\w-]+)", text, re.MULTILINE)) <= {
            pair for name in cli.commands for pair in ((name, ""), ("", name))
        }, path.name


def test_the_readme_tells_the_exit_statuses_that_help_tells() -> None:
    """One list of exit statuses."""
    statuses = re.findall(r"\b([0-3]) (?:all|finished|wrong|failure)", read("README.md").replace("\n", " "))
    told = CliRunner().invoke(cli, ["--help"]).output
    assert statuses == re.findall(r"\b([0-3]) (?:all|finished|wrong|failure)", " ".join(told.split())) != []


def test_the_readmes_python_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The few lines of Python de-identify an instance."""
    code = re.search(r"```python\n(.+?)```", read("README.md"), re.DOTALL)
    assert code
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(cli, ["keygen", "--output", "project.key"]).exit_code == 0
    names: dict[str, object] = {"data": Path(str(get_testdata_file("CT_small.dcm", download=False))).read_bytes()}
    exec(code[1], names)
    (tmp_path / "out.dcm").write_bytes(names["deidentified"])
    assert pydicom.dcmread(tmp_path / "out.dcm").PatientIdentityRemoved == "YES"
    assert names["Deidentifier"] is Deidentifier


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    """A link inside the repository names a file that is there."""
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text("utf-8")):
        assert (path.parent / target).exists(), target


def test_make_targets_are_those_of_the_documents() -> None:
    """Each `make` that a document names is a target, and the two first ones stand in the README."""
    targets = set(re.findall(r"^(\w+):", read("Makefile"), re.MULTILINE))
    assert {"run", "test", "install", "lint", "bench"} <= targets
    for path in DOCUMENTS:
        named = re.findall(r"(?:^|`)make (\w+)", path.read_text("utf-8"), re.MULTILINE)
        assert set(named) <= targets, path.name
    assert re.findall(r"^make (\w+)", read("README.md"), re.MULTILINE) == ["run", "test"]


def test_what_changes_outputs_stands_first() -> None:
    """The changelog opens with what makes yesterday's input give other bytes today."""
    unreleased = read("CHANGELOG.md").split("## Unreleased")[1]
    assert unreleased.split("###")[1].splitlines()[0].strip() == "Changes to output"


# --------------------------------------------------------------------------------------------------------------- names


def test_the_packages_are_ours_alone() -> None:
    """No other distribution installs a package of one of our three names, which would shadow it or be shadowed."""
    owners = importlib.metadata.packages_distributions()
    assert {name: set(owners[name]) for name in PACKAGES} == {name: {"dicomveil"} for name in PACKAGES}


def test_help_needs_no_beam() -> None:
    """`--help` answers at once: what takes seconds to import is imported when a run needs it."""
    code = "import sys, pipelines.cli; sys.exit(bool({'apache_beam', 'pyarrow', 'pydicom'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
    assert {option.name for option in anonymize.params} >= {"inputs", "output", "request", "key", "audit", "restricted"}


def texts() -> list[Path]:
    """What is written by hand: code, documents and configurations."""
    kinds = (".py", ".md", ".yaml", ".toml", ".json", "")
    folders = [ROOT / name for name in (*PACKAGES, "tests", "benchmarks", "tools", "docs", "configs", "deploy", ".ci")]
    found = [*ROOT.iterdir(), *(path for folder in folders for path in folder.rglob("*"))]
    return [path for path in found if path.suffix in kinds and path.is_file() and "cache" not in str(path)]


def test_the_repository_stands_alone() -> None:
    """No file names a place on the machine it was written on, or a number of an issue."""
    machine = re.compile(r"(?<![\w.])/(?:work|home|root|tmp)/\w")
    issue = re.compile(r"(?:^|[\s(])#\d+\b|\bissue \d", re.MULTILINE)
    for path in texts():
        text = path.read_text("utf-8", "ignore")
        assert not machine.search(text), path
        assert not issue.search(text), path
