"""Options that are not ours: checked against what Beam declares, since Beam itself only warns."""

import argparse
import difflib
import os
from collections.abc import Iterable, Mapping

import click

from transforms.object_stores import bucket_of, scheme_of

REPLACED = {"--direct_num_workers": "--workers", "--direct_running_mode": "--workers"}
LOCAL_RUNNERS = ("DirectRunner", "FnApiRunner", "direct", "local")
CLUSTERS = ("DataflowRunner", "FlinkRunner", "PortableRunner", "PrismRunner", "SparkRunner")


def beam_options(ours: Iterable[str], extra: list[str], undeclared: list[str]) -> list[str]:
    """What is handed to Beam: options that it declares, and after `--` whatever the user vouches for.

    A runner is named among them where it isn't the local one.

    Raises:
      click.UsageError: an option that nobody knows, or a runner that can't be used; all at once.
    """
    parser = _parser()
    known, unknown = parser.parse_known_args(extra)
    problems = [_unknown(word, [*ours, *_names(parser)]) for word in _astray(extra, unknown)]
    names = {word.split("=")[0] for word in extra}
    problems += [f"{theirs}: say {our} instead" for theirs, our in REPLACED.items() if theirs in names]
    local = known.runner is None or known.runner in LOCAL_RUNNERS
    if not local and known.runner not in CLUSTERS:
        problems.append(f"--runner: can't be used; name one of DirectRunner, {', '.join(CLUSTERS)}")
    for option in ("flink_job_server_jar", "spark_job_server_jar"):
        jar = getattr(known, option)
        if jar and "://" not in jar and not os.path.isfile(jar):
            problems.append(f"--{option}: there is no such file")
    if problems:
        raise click.UsageError("\n".join(problems))
    return (_without_runner(extra) if local else extra) + undeclared


def declared() -> set[str]:
    """Every option that Beam declares."""
    return set(_names(_parser()))


def _parser() -> argparse.ArgumentParser:
    from apache_beam.options.pipeline_options import PipelineOptions

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for options in PipelineOptions.__subclasses__():
        options._add_argparse_args(parser)
    return parser


def _names(parser: argparse.ArgumentParser) -> list[str]:
    return [name for action in parser._actions for name in action.option_strings]


def check_apart(words: Iterable[str], places: Mapping[str, str]) -> None:
    """Refuse options of Beam's that lead into places which are shared: what it keeps there are originals.

    Args:
      places: such as they are, by their options.

    Raises:
      click.UsageError: for all of them at once.
    """
    problems, option = [], ""
    for word in words:
        name, _, value = word.partition("=") if word.startswith("-") else (option, "", word)
        option = name
        for place, root in places.items():
            if value and _shares(value, root):
                problems.append(
                    f"{name}: leads into {place} or its bucket, and will hold originals; name another place"
                )
    if problems:
        raise click.UsageError("\n".join(problems))


def _shares(value: str, root: str) -> bool:
    """Whether who may read a root may read what lies at a value."""
    if scheme_of(root):
        return (scheme_of(value), bucket_of(value)) == (scheme_of(root), bucket_of(root))
    path = value.removeprefix("file://")
    return path.startswith("/") and os.path.commonpath((os.path.realpath(path), root)) == root


def _astray(extra: list[str], unknown: list[str]) -> list[str]:
    """The words that nobody knows, without those that are the value of one."""
    pairs = zip(["", *extra], extra, strict=False)
    return [word for before, word in pairs if word in unknown and (word.startswith("-") or before not in unknown)]


def _unknown(word: str, known: list[str]) -> str:
    name = word.split("=")[0]
    if not name.startswith("-"):
        return f"{name}: what is this? Values stand after an option"
    close = difflib.get_close_matches(name, known, 1, 0.6)
    hint = f"did you mean {close[0]}?" if close else "options of a runner that Beam doesn't declare go after --"
    return f"{name}: no such option; {hint}"


def _without_runner(extra: list[str]) -> list[str]:
    """The local runner is chosen by us, so its name isn't handed on."""
    kept, skip = [], False
    for word in extra:
        if skip:
            skip = False
        elif word == "--runner":
            skip = True
        elif not word.startswith("--runner="):
            kept.append(word)
    return kept
