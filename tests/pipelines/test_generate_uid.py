"""Identifiers on demand: random ones, and those that a key gives a text for ever."""

import json
import re
import uuid
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from pydicom.uid import UID

from dicomveil.keys import Keys
from dicomveil.pseudonyms import patient_pseudonym
from dicomveil.uids import LEVELS, new_uid
from pipelines.cli import cli
from tests.corpora import KEY

VECTORS = json.loads((Path(__file__).parents[2] / "docs" / "identity-vectors.json").read_bytes())["keys"]["another"]
WITH_KEY = ("--key", "env:DICOMVEIL_KEY")


def dicomveil(*arguments: object, status: int = 0, stdin: bytes = b"") -> Result:
    keys = {"DICOMVEIL_KEY": KEY.hex(), "PUBLISHED_KEY": VECTORS["secret"]}
    done = CliRunner(env=keys).invoke(cli, ["generate-uid", *map(str, arguments)], input=stdin)
    assert done.exit_code == status, done.output
    return done


def made(*arguments: object, stdin: bytes = b"") -> list[str]:
    return dicomveil(*arguments, stdin=stdin).stdout.splitlines()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("how", [(), (*WITH_KEY, "--text", "phantom 7")], ids=["random", "keyed"])
def test_an_identifier_is_what_its_level_takes(level: str, how: tuple[str, ...]) -> None:
    """A patient gets a UUID, as from Orthanc; a study, series or instance a valid UID below 2.25 (PS3.5 B.2)."""
    found = made("--level", level, *how, "--count", 50)
    assert len(set(found)) == 50
    for identifier in found:
        number = uuid.UUID(identifier) if level == "patient" else uuid.UUID(int=int(identifier.removeprefix("2.25.")))
        assert (str(number) if level == "patient" else f"2.25.{number.int}") == identifier
        assert number.version == (8 if how else 4) and number.variant == uuid.RFC_4122
        assert level == "patient" or UID(identifier).is_valid


def test_random_ones_never_come_twice() -> None:
    """Two calls share nothing."""
    assert not set(made("--level", "study", "--count", 20)) & set(made("--level", "study", "--count", 20))


def test_a_key_and_a_text_give_the_same_for_ever() -> None:
    """They are the published ones, whether one is asked for or several; another key gives others."""
    for case in VECTORS["generated"]:
        asked = ["--level", case["level"], "--text", case["text"], "--count", case["number"]]
        assert made(*asked, "--key", "env:PUBLISHED_KEY")[-1] == case["new"]
        assert made(*asked, *WITH_KEY)[-1] != case["new"]


def test_a_text_can_be_kept_from_others_on_the_machine() -> None:
    """Standard input gives the same as the command line, with or without an end of its line."""
    asked = ["--level", "series", *WITH_KEY, "--text"]
    for stdin in (b"M\xc3\xbcller", b"M\xc3\xbcller\n", b"M\xc3\xbcller\r\n"):
        assert made(*asked, "-", stdin=stdin) == made(*asked, "Müller")


def test_it_is_never_what_an_instance_gets() -> None:
    """Who gives a UID or a Patient ID as the text doesn't get what anonymize makes of it, nor that of another level."""
    keys = Keys(KEY)
    found = {made("--level", level, *WITH_KEY, "--text", "1.2.3")[0].removeprefix("2.25.") for level in LEVELS}
    found |= {str(uuid.UUID(made("--level", "patient", *WITH_KEY, "--text", "1.2.3")[0]).int)}
    assert len(found) == 5
    assert not found & {new_uid(keys, "1.2.3").removeprefix("2.25."), patient_pseudonym(keys, "1.2.3")}


MISTAKES = {
    "a text without a key": (["--text", "Qzanary"], "--key and --text go together"),
    "a key without a text": ([*WITH_KEY], "--key and --text go together"),
    "no text": ([*WITH_KEY, "--text", ""], "--text is blank"),
    "nothing on standard input": ([*WITH_KEY, "--text", "-"], "--text is blank"),
    "a key that isn't there": (["--key", "env:QZANARY_KEY", "--text", "Qzanary"], "is not set"),
    "no reference to a key": (["--key", "Qzanary", "--text", " "], "--text is blank.*--key takes env:NAME"),
    "a text that is too long": ([*WITH_KEY, "--text", "Qzanary" * 10_000], "65,536 bytes"),
    "none": (["--count", 0], "--count"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told(name: str) -> None:
    """What is wrong is said with its remedy, all at once, and the text isn't repeated."""
    arguments, told = MISTAKES[name]
    said = dicomveil("--level", "study", *arguments, status=2)
    assert re.search(told, said.stderr, re.DOTALL) and "qzanary" not in said.output.lower() and not said.stdout


@pytest.mark.parametrize(
    ("stdin", "told"),
    [(b"Qzanary\nQzanary\n", "holds several"), (b"Qzanary\xff\n", "UTF-8"), (b"Qzanary" * 10_000, "65,536 bytes")],
)
def test_what_is_no_line_of_text_is_refused(stdin: bytes, told: str) -> None:
    """Standard input gives one text: several lines could mean one or many."""
    said = dicomveil("--level", "study", *WITH_KEY, "--text", "-", stdin=stdin, status=2)
    assert told in said.stderr and "Qzanary" not in said.output


def test_a_level_must_be_named() -> None:
    """There is no usual level, as Orthanc has none."""
    assert "--level" in dicomveil(status=2).stderr
    assert "frame" in dicomveil("--level", "frame", status=2).stderr
