"""The command line: parse, check, hand over. Beam is imported only when a run needs it."""

import datetime
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

import click
from rich.console import Console

EXIT_USAGE, EXIT_FAILURE = 2, 1
_LONGEST_CERTIFICATE = 1 << 20
_T = TypeVar("_T")


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

    Exit status: 0 all well, 3 finished with quarantined instances, 2 wrong usage or configuration, 1 failure.
    """


@cli.command(cls=_Command, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.option("--input", "inputs", multiple=True, required=True, metavar="URI...", help="Files or folders to read.")
@click.option("--output", required=True, metavar="URI", help="Where the de-identified instances go, and nothing else.")
@click.option("--request", metavar="FILE", help="What to do, in YAML or JSON; the Basic Profile where absent.")
@click.option(
    "--key", metavar="REF", help="env:NAME, file:PATH or gcp-secret:NAME. The same key gives the same result, for ever."
)
@click.option("--audit", metavar="URI", help="Where the shareable records go; <output>-audit where absent.")
@click.option("--restricted", metavar="URI", help="What leads back to the originals; <output>-restricted where absent.")
@click.option(
    "--crosswalk-in",
    "crosswalks",
    multiple=True,
    metavar="URI...",
    help="New values of patients and UIDs, by CSV or Parquet; they win over derived ones.",
)
@click.option("--workers", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes.")
@click.option("--plan-only", is_flag=True, help="Stop after the plan; the same command without it goes on from there.")
@click.option("--settle-anew", "anew", is_flag=True, help="Forget the conflicts that earlier runs have met.")
@click.option("--overwrite", is_flag=True, help="Go on in an output made with another request, edition, recipe or key.")
@click.pass_context
def anonymize(
    ctx: click.Context,
    inputs: tuple[str, ...],
    output: str,
    request: str | None,
    key: str | None,
    audit: str | None,
    restricted: str | None,
    crosswalks: tuple[str, ...],
    workers: int,
    plan_only: bool,
    anew: bool,
    overwrite: bool,
) -> None:
    """De-identify every instance below the inputs. Any option of Beam's may be added."""
    import logging
    import os

    logging.getLogger().setLevel(logging.CRITICAL)  # Beam complains of optional packages while it is imported
    from dicomveil.errors import DicomveilError
    from pipelines import runs
    from pipelines.anonymize import RunFailed
    from pipelines.anonymize import anonymize as carry_out
    from pipelines.options import beam_options
    from pipelines.progress import Report
    from transforms.secrets import refer
    from transforms.stores import StoreFailed

    ours = [name for option in ctx.command.params for name in option.opts]
    console = Console(file=os.fdopen(os.dup(2), "w"))
    mistakes = _Mistakes()
    beam = mistakes.checked(lambda: beam_options(ours, ctx.args, ctx.meta["after"]))
    asked = mistakes.checked(lambda: _request(request))
    where = mistakes.checked(lambda: runs.places(inputs, output, audit, restricted, crosswalks))
    mistakes.checked(lambda: refer(key) if key is not None else None)
    if mistakes.found or beam is None or asked is None or where is None:
        _stop("\n".join(mistakes.found), EXIT_USAGE)
    try:
        with runs.locked(where.restricted):
            run = runs.begin(where, asked, key, overwrite, anew)
            if run.resumed:
                console.print(f"Going on with run {run.id}, begun {run.started}.", highlight=False)
            summary = carry_out(run, workers, beam, Report(console), plan_only)
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
        summary.print(Console())
        sys.exit(summary.exit_status)


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


def _request(file: str | None):  # type: ignore[no-untyped-def]  # imported when it is needed
    from dicomveil.body import parse_request
    from dicomveil.errors import Problem, RequestError
    from dicomveil.request import Request

    if file is None:
        return Request()
    try:
        text = Path(file).read_text("utf-8")
        today = datetime.datetime.now(datetime.timezone.utc).date()
        return parse_request(text, file, lambda name: _beside(file, name), today)
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


def main() -> NoReturn:
    """The console script."""
    cli(prog_name="dicomveil")
    raise SystemExit(0)
