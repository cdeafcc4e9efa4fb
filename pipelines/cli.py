"""The command line: parse, check, hand over. Beam is imported only when a run needs it."""

import datetime
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import click
from rich.console import Console

EXIT_USAGE, EXIT_FAILURE, EXIT_KEPT = 2, 1, 3
_LONGEST_CERTIFICATE = 1 << 20
_T = TypeVar("_T")
_Function = Callable[..., Any]
_Option = Callable[[Any], Any]


class _Command(click.Command):
    """A command whose --input takes several values, and which leaves options it doesn't know to Beam."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        before, after = (args[: args.index("--")], args[args.index("--") + 1 :]) if "--" in args else (args, [])
        ctx.meta["after"] = after
        return super().parse_args(ctx, _spread(before, ("--input", "--crosswalk-in")))


def _spread(args: list[str], options: tuple[str, ...]) -> list[str]:
    """`--input a b` as `--input a --input b`."""
    out: list[str] = []
    taking = ""
    for word in args:
        if word.startswith("-"):
            taking = word.split("=")[0] if word.split("=")[0] in options else ""
            out.append(word)
        elif taking and out[-1] != taking:
            out += [taking, word]
        else:
            out.append(word)
    return out


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dicomveil")
def cli() -> None:
    """De-identify DICOM archives: the PS3.15 Basic Profile, references intact, the same result for the same key.

    Exit status: 0 all well, 3 finished with quarantined instances or kept sources, 2 wrong usage or configuration,
    1 failure.
    """


_OPTIONS: Final[tuple[_Option, ...]] = (
    click.option("--input", "inputs", multiple=True, required=True, metavar="URI...", help="Files or folders to read."),
    click.option("--output", required=True, metavar="URI", help="Where the instances go, and nothing else."),
    click.option("--request", metavar="FILE", help="What to do, in YAML or JSON."),
    click.option(
        "--key",
        metavar="REF",
        help="env:NAME, file:PATH or gcp-secret:NAME. The same key gives the same result, for ever.",
    ),
    click.option("--audit", metavar="URI", help="Where the records go; <output>-audit where absent."),
    click.option(
        "--restricted", metavar="URI", help="What leads back to the originals; <output>-restricted where absent."
    ),
    click.option("--workers", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes."),
    click.option(
        "--plan-only", is_flag=True, help="Stop after the plan; the same command without it goes on from there."
    ),
    click.option(
        "--overwrite", is_flag=True, help="Go on in an output made with another request, edition, recipe or key."
    ),
)
"""Of every command that reads instances and writes others."""


def _run_command(*more: _Option) -> Callable[[_Function], click.Command]:
    """A command that carries out a run: with these options, some more, and any of Beam's."""

    def decorate(function: _Function) -> click.Command:
        for option in reversed((*_OPTIONS, *more)):
            function = option(function)
        settings = {"ignore_unknown_options": True, "allow_extra_args": True}
        return cli.command(cls=_Command, context_settings=settings)(click.pass_context(function))

    return decorate


@_run_command(
    click.option(
        "--crosswalk-in",
        "crosswalks",
        multiple=True,
        metavar="URI...",
        help="New values of patients and UIDs, by CSV or Parquet; they win over derived ones.",
    ),
    click.option("--settle-anew", "anew", is_flag=True, help="Forget the conflicts that earlier runs have met."),
)
def anonymize(ctx: click.Context, **asked: Any) -> None:
    """De-identify every instance below the inputs, or what the request's Resources name. Any option of Beam's may be
    added."""
    _run(ctx, "anonymize", **asked)


@_run_command()
def modify(ctx: click.Context, **asked: Any) -> None:
    """Change identified instances and leave them identified: Replace, Remove, Keep; references follow.

    What changes has new identifiers from the request's Level down. The output holds each study that is concerned as a
    whole. Sources stay unless the request says KeepSource: false.
    """
    _run(ctx, "modify", **asked)


@_run_command()
def split(ctx: click.Context, **asked: Any) -> None:
    """Take Series or Instances out of a study into a new one; the output holds both, and references follow."""
    _run(ctx, "split", **asked)


@_run_command()
def merge(ctx: click.Context, **asked: Any) -> None:
    """Bring the request's Resources, studies or series, into its Study, whose patient and study they take over."""
    _run(ctx, "merge", **asked)


def _run(
    ctx: click.Context,
    command: str,
    inputs: tuple[str, ...],
    output: str,
    request: str | None,
    key: str | None,
    audit: str | None,
    restricted: str | None,
    workers: int,
    plan_only: bool,
    overwrite: bool,
    crosswalks: tuple[str, ...] = (),
    anew: bool = False,
) -> None:
    """Check a command, then carry it out from wherever it stands."""
    import logging
    import os

    logging.getLogger().setLevel(logging.CRITICAL)  # Beam complains of optional packages while it is imported
    from dicomveil.compression import unavailable
    from dicomveil.errors import DicomveilError
    from pipelines import purge as sources
    from pipelines import runs
    from pipelines.course import RunFailed, carry_out
    from pipelines.options import beam_options
    from pipelines.progress import Report
    from transforms.secrets import refer
    from transforms.stores import StoreFailed

    ours = [name for option in ctx.command.params for name in option.opts]
    console = Console(file=os.fdopen(os.dup(2), "w"))
    mistakes = _Mistakes()
    beam = mistakes.checked(lambda: beam_options(ours, ctx.args, ctx.meta["after"]))
    asked = mistakes.checked(lambda: _request(request, command))
    where = mistakes.checked(lambda: runs.places(inputs, output, audit, restricted, crosswalks))
    mistakes.checked(lambda: refer(key) if key is not None else None)
    if asked is not None and asked.transcode and (absent := unavailable(asked.transcode)):
        mistakes.found.append(f"Transcode: {absent}")
    mistakes.checked(lambda: sources.check(asked, key) if asked is not None else None)
    if mistakes.found or beam is None or asked is None or where is None:
        _stop("\n".join(mistakes.found), EXIT_USAGE)
    try:
        with runs.locked(where.restricted):
            ended = None if plan_only else sources.unfinished(where, asked, key, anew)
            if ended:
                console.print(f"Run {ended} has ended, but its sources are still there: going on.", highlight=False)
                sys.exit(_purge_at_the_end(where.restricted, ended, console))
            run = runs.begin(where, asked, key, overwrite, anew)
            if run.resumed:
                console.print(f"Going on with run {run.id}, begun {run.started}.", highlight=False)
            summary = carry_out(run, workers, beam, Report(console), plan_only)
            if summary:
                summary.print(Console())
            if summary and not asked.keep_source:
                sys.exit(_purge_at_the_end(where.restricted, run.id, console))
    except (RunFailed, StoreFailed) as failed:
        _stop(str(failed), EXIT_FAILURE)
    except DicomveilError as refused:
        _stop(str(refused), EXIT_USAGE)
    except OSError as failed:
        _stop(f"The output, audit or restricted folder can't be used: {failed.strerror}.", EXIT_FAILURE)
    except KeyboardInterrupt:
        _stop("Interrupted. Run the same command again: it goes on from where it was.", EXIT_FAILURE)
    except Exception as unforeseen:
        _stop(f"An unforeseen failure, please report it: {_place(unforeseen)}.", EXIT_FAILURE)
    if summary:
        sys.exit(summary.exit_status)


@cli.command()
@click.option("--restricted", required=True, metavar="URI", help="Where the run left what leads to the originals.")
@click.option("--run", "run_id", required=True, metavar="ID", help="A run that has ended well.")
@click.option("--dry-run", is_flag=True, help="Count what would be deleted, and delete nothing.")
@click.option("--abandon", is_flag=True, help="Give the purge up, begun or not: nothing more is ever deleted.")
def purge(restricted: str, run_id: str, dry_run: bool, abandon: bool) -> None:
    """Delete for good what a run has de-identified, each source once its output has been read back.

    A run whose request says KeepSource: false does so at its end. What was interrupted goes on with the same command.
    """
    import os

    from dicomveil.errors import DicomveilError
    from pipelines import purge as sources
    from pipelines import runs
    from transforms.stores import StoreFailed

    if dry_run and abandon:
        raise click.UsageError("--dry-run or --abandon: give one of them")
    console = Console(file=os.fdopen(os.dup(2), "w"))
    try:
        root = sources.restricted_root(restricted)
        with runs.locked(root):
            if dry_run or abandon:
                purged = sources.dry_run(root, run_id) if dry_run else sources.abandon(root, run_id)
                purged.print(Console())
            else:
                purged = _purge(root, run_id, console)
    except StoreFailed as failed:
        _stop(f"There is {failed}. Nothing more is deleted. See to it, and run the same command again.", EXIT_FAILURE)
    except DicomveilError as refused:
        _stop(str(refused), EXIT_USAGE)
    except OSError as failed:
        _stop(f"--restricted can't be used: {failed.strerror}.", EXIT_FAILURE)
    except KeyboardInterrupt:
        _stop("Interrupted. The same command goes on from where it was; --abandon gives it up.", EXIT_FAILURE)
    except Exception as unforeseen:
        _stop(f"An unforeseen failure, please report it: {_place(unforeseen)}.", EXIT_FAILURE)
    sys.exit(purged.exit_status)


def _purge_at_the_end(restricted: str, run_id: str, console: Console) -> int:
    """Purge a run that has just ended: the exit status of both."""
    from dicomveil.errors import DicomveilError
    from transforms.stores import StoreFailed

    try:
        return _purge(restricted, run_id, console).run_exit_status
    except StoreFailed as failed:
        _stop(
            f"There is {failed}. The run has ended well; the same command goes on deleting its sources.", EXIT_FAILURE
        )
    except DicomveilError as refused:
        more = f"The run has ended well. The same command, or dicomveil purge --run {run_id}, deletes its sources once"
        _stop(f"{refused}\n{more} that is mended; with --abandon they stay.", EXIT_KEPT)


def _purge(restricted: str, run_id: str, console: Console):  # type: ignore[no-untyped-def]  # imported when it is needed
    """Purge a run, and tell of it."""
    from pipelines import purge as sources

    def warn(told: str) -> None:
        console.print(told, style="bold yellow", soft_wrap=True, highlight=False)

    with console.status("Purging") as status:
        purged = sources.purge(restricted, run_id, warn, lambda count: status.update(f"Purging: {count:,} sources"))
    purged.print(Console())
    return purged


@cli.command(cls=_Command)
@click.option(
    "--input", "inputs", multiple=True, required=True, metavar="URI...", help="De-identified files or folders."
)
@click.option("--output", required=True, metavar="URI", help="A folder of yours alone; it will identify people.")
@click.option("--certificate", required=True, metavar="FILE", help="One that the request named under EncryptFor.")
@click.option("--private-key", required=True, metavar="FILE", help="Its key, which only you may read.")
@click.option("--password-file", metavar="FILE", help="Holds the key's password, and only you may read it.")
def reidentify(
    inputs: tuple[str, ...], output: str, certificate: str, private_key: str, password_file: str | None
) -> None:
    """Put back what was encrypted for a certificate, in every instance below the inputs."""
    import os

    from dicomveil.errors import DicomveilError
    from pipelines import reidentify as door
    from transforms.stores import StoreFailed

    console = Console(file=os.fdopen(os.dup(2), "w"))
    mistakes = _Mistakes()
    opener = mistakes.checked(lambda: door.opener(certificate, private_key, password_file))
    where = mistakes.checked(lambda: door.places(inputs, output)) if opener else None
    if mistakes.found or opener is None or where is None:
        _stop("\n".join(mistakes.found), EXIT_USAGE)
    console.print(f"[bold yellow]{door.BANNER}[/bold yellow]", soft_wrap=True)
    try:
        with console.status("Restoring") as status:
            settled = door.reidentify(*where, opener, lambda count: status.update(f"Restoring: {count:,} files"))
    except StoreFailed as failed:
        _stop(f"{failed}. What was restored so far stays; files there are never overwritten.", EXIT_FAILURE)
    except DicomveilError as refused:
        _stop(str(refused), EXIT_USAGE)
    except KeyboardInterrupt:
        _stop("Interrupted. What was restored so far stays.", EXIT_FAILURE)
    except Exception as unforeseen:
        _stop(f"An unforeseen failure, please report it: {_place(unforeseen)}.", EXIT_FAILURE)
    settled.print(Console())
    sys.exit(settled.exit_status)


@cli.command()
@click.option(
    "--output", metavar="FILE", help="Write it to a new file that only you may read, and not to the terminal."
)
def keygen(output: str | None) -> None:
    """Make a key of 256 bits."""
    from dicomveil.keys import generate_key

    if not output:
        click.echo(generate_key())
        return
    import os

    try:
        with open(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(generate_key() + "\n")
    except OSError as failed:
        _stop(f"{output}: {failed.strerror}", EXIT_USAGE)


@cli.command()
@click.option("--restricted", required=True, metavar="URI", help="Where the runs left what leads to the originals.")
@click.option("--new", metavar="VALUE", help="A new Patient ID, UID or output name; - reads it from standard input.")
@click.option("--original", metavar="VALUE", help="An original Patient ID, UID or input; - reads it likewise.")
@click.option("--json", "as_json", is_flag=True, help="Answer for a script.")
def lookup(restricted: str, new: str | None, original: str | None, as_json: bool) -> None:
    """Tell who was who, from the crosswalks of finished runs.

    Exit status: 0 found, 1 not found, 2 wrong usage, or crosswalks that can't be read.
    """
    from dicomveil.errors import DicomveilError
    from pipelines import lookup as crosswalks

    if (new is None) == (original is None):
        raise click.UsageError("--new or --original: give one of them")
    value = (original if new is None else new) or ""
    value = sys.stdin.readline().rstrip("\r\n") if value == "-" else value
    if not value.strip():
        raise click.UsageError("--new, --original: a blank value is nobody's")
    click.echo(f"dicomveil: {crosswalks.BANNER}", err=True)
    try:
        matches = crosswalks.look_up(restricted, value, original is not None)
    except DicomveilError as refused:
        _stop(str(refused), EXIT_USAGE)
    if as_json:
        click.echo(crosswalks.as_json(matches))
    elif matches:
        click.echo(crosswalks.as_text(matches))
    else:
        click.echo("dicomveil: no finished run there knows of it", err=True)
    sys.exit(0 if matches else EXIT_FAILURE)


@cli.command()
@click.option("--request", metavar="FILE", help="What to explain, in YAML or JSON; the Basic Profile where absent.")
@click.option("--diff", nargs=2, metavar="A B", help="What two requests treat unlike; each a file, or an edition.")
def explain(request: str | None, diff: tuple[str, str] | None) -> None:
    """Print the Conformance Statement: what becomes of each attribute, and which row says so."""
    from dicomveil.errors import DicomveilError
    from dicomveil.explain import difference
    from dicomveil.explain import explain as told

    try:
        if diff and request:
            raise click.UsageError("--request and --diff: give one of them")
        if diff:
            click.echo(difference(_edition(diff[0]), _edition(diff[1]), diff))
        else:
            click.echo(told(_request(request)))
    except DicomveilError as refused:
        _stop(str(refused), EXIT_USAGE)


def _request(file: str | None, command: str = "anonymize"):  # type: ignore[no-untyped-def]  # imported when needed
    from dicomveil.body import parse_request
    from dicomveil.errors import Problem, RequestError

    if file is None:
        return parse_request("", "--request", command=command)
    try:
        text = Path(file).read_text("utf-8")
        today = datetime.datetime.now(datetime.timezone.utc).date()
        return parse_request(text, file, lambda name: _beside(file, name), today, command)
    except OSError as failed:
        raise RequestError((Problem(file, f"can't be read: {failed.strerror}", "check --request"),)) from None
    except UnicodeDecodeError:
        raise RequestError((Problem(file, "is no text in UTF-8", "check --request"),)) from None


def _beside(request: str, name: str) -> bytes:
    """The head of a file that a request names, from the request's own folder on."""
    with (Path(request).parent / name).open("rb") as file:
        return file.read(_LONGEST_CERTIFICATE)


def _edition(name: str):  # type: ignore[no-untyped-def]  # imported when it is needed
    """The Basic Profile of an edition, or the request in a file."""
    from dicomveil import standard
    from dicomveil.request import Request

    return Request(dicom_version=name) if name in standard.EDITIONS else _request(name)


class _Mistakes:
    """What is wrong with a command, gathered so that the user hears of all of it at once."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def checked(self, check: Callable[[], _T]) -> _T | None:
        """What a check gives; None where it refuses, with its message kept."""
        from dicomveil.errors import DicomveilError

        try:
            return check()
        except click.UsageError as refused:
            self.found.append(refused.message)
        except DicomveilError as refused:
            self.found.append(str(refused))
        return None


def _place(unforeseen: Exception) -> str:
    """Kind and place of an exception; its text may quote what it was working on."""
    trace = unforeseen.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    where = f" in {Path(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno}" if trace else ""
    return type(unforeseen).__name__ + where


def _stop(message: str, status: int) -> NoReturn:
    for line in message.splitlines():
        click.echo(f"dicomveil: {line}", err=True)
    sys.exit(status)


@cli.command("generate-uid")
@click.option(
    "--level",
    type=click.Choice(["patient", "study", "series", "instance"], case_sensitive=False),
    required=True,
    help="What it is for: a patient gets a UUID, the others a UID.",
)
@click.option("--key", metavar="REF", help="env:NAME, file:PATH or gcp-secret:NAME; with --text, for a lasting one.")
@click.option("--text", metavar="TEXT", help="What it is to stand for; - reads it from standard input.")
@click.option("--count", type=click.IntRange(min=1), default=1, show_default=True, help="How many, a line each.")
def generate_uid(level: str, key: str | None, text: str | None, count: int) -> None:
    """Make new identifiers: random ones, or those that a key gives a text, the same for ever."""
    from pipelines import generate_uid as door

    if (key is None) != (text is None):
        raise click.UsageError(
            "--key and --text go together: give both for an identifier that stays the same, or none for a random one"
        )
    if key is None or text is None:
        made = door.drawn(level, count)
    else:
        mistakes = _Mistakes()
        meant = mistakes.checked(lambda: door.given_text(text, sys.stdin.buffer))
        found = mistakes.checked(lambda: door.derived(level, key, meant or "", count))
        if mistakes.found or found is None:
            _stop("\n".join(mistakes.found), EXIT_USAGE)
        made = found
    for identifier in made:
        click.echo(identifier)


def main() -> NoReturn:
    """The console script."""
    cli(prog_name="dicomveil")
    raise SystemExit(0)
