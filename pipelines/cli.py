"""The command line: parse, check, hand over. Beam is imported only when a run needs it."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import click
from click.core import ParameterSource
from rich.console import Console

from pipelines.endings import EXIT_FAILURE, EXIT_KEPT, EXIT_USAGE, ending, stop

if TYPE_CHECKING:
    from transforms.lease import Lease
    from transforms.locations import Location

_T = TypeVar("_T")
_Function = Callable[..., Any]
_Option = Callable[[Any], Any]


class _Command(click.Command):
    """A command whose --input takes several values, and which leaves options it doesn't know to Beam."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        before, after = (args[: args.index("--")], args[args.index("--") + 1 :]) if "--" in args else (args, [])
        ctx.meta["after"] = after
        return super().parse_args(ctx, _spread(before, ("--input", "--input-list", "--crosswalk-in")))


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


_KMS_KEY: Final = click.option(
    "--kms-key", metavar="NAME", help="Of gs:// or s3://: the key management's key that encrypts the outputs."
)
_OPTIONS: Final[tuple[_Option, ...]] = (
    click.option("--input", "inputs", multiple=True, metavar="URI...", help="Folders, files, patterns."),
    click.option(
        "--input-list",
        "lists",
        multiple=True,
        metavar="URI...",
        help="Tables of what to read: Parquet, CSV, newline JSON, or the manifest of a store's inventory.",
    ),
    click.option("--filter", "taking", metavar="FILE", help="What to take of them, in YAML or JSON; all where absent."),
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
    click.option(
        "--dicomdir",
        metavar="URI",
        help="A new folder or prefix: when the run has ended, its output is copied there for media.",
    ),
    click.option(
        "--workers",
        type=click.IntRange(1, 256),
        default=1,
        show_default=True,
        help="Processes of this machine; a cluster has --parallelism.",
    ),
    click.option(
        "--plan-only", is_flag=True, help="Stop after the plan; the same command without it goes on from there."
    ),
    click.option(
        "--overwrite", is_flag=True, help="Go on in an output made with another request, edition, recipe or key."
    ),
    click.option(
        "--maps",
        type=click.Choice(["auto", "side-input", "join"]),
        default="auto",
        show_default=True,
        help="How what a study settles reaches its instances: as a side input, or beside them where that is too large.",
    ),
    click.option("--max-failures", metavar="N|P%", help="Stop where more than so many inputs fail."),
    _KMS_KEY,
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
    click.option(
        "--settle-anew",
        "anew",
        is_flag=True,
        help="Forget the conflicts that earlier runs have met, and look at everything again.",
    ),
    click.option(
        "--reprocess",
        type=click.Choice(["all", "quarantined", "changed-request"]),
        help="What to process again, though it hasn't changed since an earlier run.",
    ),
    click.option("--retire", is_flag=True, help="Remove the outputs of sources that are gone."),
    click.option(
        "--max-instances", type=click.IntRange(1), metavar="N", help="Take whole studies, up to so many instances."
    ),
    click.option("--max-bytes", metavar="SIZE", help="Take whole studies, up to so much: 500MB, 20GiB."),
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


@cli.command("run")
@click.argument("job", metavar="JOB")
@click.option("--dry-run", is_flag=True, help="Plan, tell what there is to do and what it takes, and leave it at that.")
@click.pass_context
def run_job(ctx: click.Context, job: str, dry_run: bool) -> None:
    """Carry out a job: a command with its options, in a YAML file, as schedulers start it."""
    from dicomveil.errors import DicomveilError
    from pipelines.jobs import read_job

    try:
        asked = read_job(job, cli.commands, dry_run)
    except DicomveilError as refused:
        stop(str(refused), EXIT_USAGE)
    command = cli.commands[asked.command]
    try:
        told = command.make_context(asked.command, list(asked.words), parent=ctx, obj=asked)
    except click.UsageError as refused:
        stop(f"{job}: {refused.format_message()}", EXIT_USAGE)
    with told:
        command.invoke(told)


def _run(
    ctx: click.Context,
    command: str,
    inputs: tuple[str, ...],
    lists: tuple[str, ...],
    taking: str | None,
    output: str,
    request: str | None,
    key: str | None,
    audit: str | None,
    restricted: str | None,
    dicomdir: str | None,
    workers: int,
    plan_only: bool,
    overwrite: bool,
    crosswalks: tuple[str, ...] = (),
    anew: bool = False,
    reprocess: str | None = None,
    retire: bool = False,
    max_instances: int | None = None,
    max_bytes: str | None = None,
    max_failures: str | None = None,
    kms_key: str | None = None,
    maps: str = "auto",
) -> None:
    """Check a command, then carry it out from wherever it stands."""
    import logging
    import os

    logging.getLogger().setLevel(logging.CRITICAL)  # Beam complains of optional packages while it is imported
    from dicomveil.compression import unavailable
    from pipelines import ledger, places, runs
    from pipelines import purge as sources
    from pipelines.choices import Choices
    from pipelines.course import carry_out
    from pipelines.limits import Limits, check_failures, read_size
    from pipelines.local import Local
    from pipelines.options import beam_options, check_apart
    from pipelines.progress import Report
    from pipelines.requests import read_filter, read_request
    from pipelines.runners import runner_of
    from transforms.secrets import refer

    ours = [name for option in ctx.command.params for name in option.opts]
    console = Console(file=os.fdopen(os.dup(2), "w"))
    mistakes = _Mistakes()
    if not inputs and not lists:
        mistakes.found.append("--input: say what to read, here or in --input-list")
    beam = mistakes.checked(lambda: beam_options(ours, ctx.args, ctx.meta["after"]))
    job = ctx.obj
    inline = job.inline if job else {}
    plan_only = plan_only or bool(job and job.dry)
    asked = inline.get("request") or mistakes.checked(lambda: read_request(request, command))
    taken = inline.get("filter") or mistakes.checked(lambda: read_filter(taking))
    where = mistakes.checked(lambda: places.resolve(inputs, output, audit, restricted, crosswalks, lists))
    medium = mistakes.checked(lambda: places.medium(dicomdir, where) if dicomdir and where else None)
    if beam and where:
        shared = {"--output": where.output, "--audit": where.audit} | ({"--dicomdir": str(medium)} if medium else {})
        mistakes.checked(lambda: check_apart(beam, shared))
    runner = runner_of(workers, beam or [])
    mistakes.checked(lambda: runner.check(where, key))
    if not isinstance(runner, Local) and ctx.get_parameter_source("workers") is not ParameterSource.DEFAULT:
        mistakes.found.append("--workers: are this machine's; a cluster has --parallelism")
    mistakes.checked(lambda: refer(key) if key is not None else None)
    mistakes.checked(lambda: places.check_kms_key(kms_key, output, str(medium or "")))
    size = mistakes.checked(lambda: read_size(max_bytes) if max_bytes else 0)
    failing = mistakes.checked(lambda: check_failures(max_failures) if max_failures else "")
    limits = Limits(max_instances or 0, size or 0, failing or "")
    if asked is not None and asked.transcode and (absent := unavailable(asked.transcode)):
        mistakes.found.append(f"Transcode: {absent}")
    mistakes.checked(lambda: sources.check(asked, key) if asked is not None else None)
    mistakes.checked(lambda: ledger.check(asked, key, retire) if asked is not None else None)
    if mistakes.found or beam is None or asked is None or where is None:
        stop("\n".join(mistakes.found), EXIT_USAGE)
    choices = Choices(overwrite, anew, reprocess or "", retire, limits, taken, kms_key or "", maps)
    again = "Run the same command again: it goes on from where it was."
    with ending("{}", "The output, audit or restricted folder can't be used: {}.", again):
        with runs.locked(where.restricted) as lease:
            ended = None if plan_only else sources.unfinished(where, asked, key, choices)
            if ended:
                console.print(f"Run {ended} has ended, but its sources are still there: going on.", highlight=False)
                sys.exit(_purge_at_the_end(where.restricted, ended, console, lease))
            run = runs.begin(where, asked, key, choices, lease)
            if run.resumed:
                console.print(f"Going on with run {run.id}, begun {run.started}.", highlight=False)
            summary = carry_out(run, runner, Report(console, runner.tasks), plan_only)
            if job and job.dry and not run.resumed:
                runs.finish(run)  # the next run looks for itself
            if summary:
                summary.print(Console())
            copied = 0
            if summary and medium:
                copied = _copy_to_medium((where.output,), medium, "", console, kms_key)
            if summary and not asked.keep_source and not summary.stopped:
                sys.exit(max(copied, _purge_at_the_end(where.restricted, run.id, console, lease)))
    if summary:
        sys.exit(max(copied, summary.exit_status))


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

    from pipelines import purge as sources
    from pipelines import runs
    from pipelines.ended import restricted_root

    if dry_run and abandon:
        raise click.UsageError("--dry-run or --abandon: give one of them")
    console = Console(file=os.fdopen(os.dup(2), "w"))
    with ending(
        "There is {}. Nothing more is deleted. See to it, and run the same command again.",
        "--restricted can't be used: {}.",
        "The same command goes on from where it was; --abandon gives it up.",
    ):
        root = restricted_root(restricted)
        with runs.locked(root) as lease:
            if dry_run or abandon:
                purged = sources.dry_run(root, run_id) if dry_run else sources.abandon(root, run_id)
                purged.print(Console())
            else:
                purged = _purge(root, run_id, console, lease)
    sys.exit(purged.exit_status)


def _purge_at_the_end(restricted: str, run_id: str, console: Console, lease: "Lease | None") -> int:
    """Purge a run that has just ended: the exit status of both."""
    from dicomveil.errors import DicomveilError
    from transforms.lease import LeaseLost
    from transforms.store_failures import StoreFailed

    try:
        return _purge(restricted, run_id, console, lease).run_exit_status
    except LeaseLost:
        raise
    except StoreFailed as failed:
        stop(f"There is {failed}. The run has ended well; the same command goes on deleting its sources.", EXIT_FAILURE)
    except DicomveilError as refused:
        more = f"The run has ended well. The same command, or dicomveil purge --run {run_id}, deletes its sources once"
        stop(f"{refused}\n{more} that is mended; with --abandon they stay.", EXIT_KEPT)


def _purge(restricted: str, run_id: str, console: Console, lease: "Lease | None"):  # type: ignore[no-untyped-def]  # imported when it is needed
    """Purge a run, and tell of it."""
    from pipelines import purge as sources

    def warn(told: str) -> None:
        console.print(told, style="bold yellow", soft_wrap=True, highlight=False)

    with console.status("Purging") as status:
        purged = sources.purge(
            restricted, run_id, warn, lambda count: status.update(f"Purging: {count:,} sources"), lease
        )
    purged.print(Console())
    return purged


@cli.command()
@click.option("--restricted", required=True, metavar="URI", help="Where runs left what leads to the originals.")
@click.option("--audit", metavar="URI", help="Where their records went, to be merged too.")
def compact(restricted: str, audit: str | None) -> None:
    """Merge the many small parts of old runs' tables into few large ones; whoever reads them sees the same rows."""
    from pipelines import compact as door
    from pipelines import runs

    with ending(
        "There is {}. Nothing is lost. See to it, and run the same command again.",
        "--restricted or --audit can't be used: {}.",
        "Nothing is lost; the same command goes on.",
    ):
        root = door.root_of(restricted)
        with runs.locked(root) as lease:
            door.merge(root, audit, lease).print(Console())


@cli.command(cls=_Command)
@click.option(
    "--input", "inputs", multiple=True, required=True, metavar="URI...", help="De-identified: folders, files, patterns."
)
@click.option(
    "--output",
    required=True,
    metavar="URI",
    help="A folder of yours alone, or where few may read in a store; it will identify people.",
)
@click.option("--certificate", required=True, metavar="FILE", help="One that the request named under EncryptFor.")
@click.option("--private-key", required=True, metavar="FILE", help="Its key, which only you may read.")
@click.option("--password-file", metavar="FILE", help="Holds the key's password, and only you may read it.")
@_KMS_KEY
def reidentify(
    inputs: tuple[str, ...],
    output: str,
    certificate: str,
    private_key: str,
    password_file: str | None,
    kms_key: str | None,
) -> None:
    """Put back what was encrypted for a certificate, in every instance below the inputs."""
    import os

    from pipelines import reidentify as door
    from pipelines.places import check_kms_key

    console = Console(file=os.fdopen(os.dup(2), "w"))
    mistakes = _Mistakes()
    opener = mistakes.checked(lambda: door.opener(certificate, private_key, password_file))
    mistakes.checked(lambda: check_kms_key(kms_key, output))
    where = mistakes.checked(lambda: door.places(inputs, output)) if opener else None
    if mistakes.found or opener is None or where is None:
        stop("\n".join(mistakes.found), EXIT_USAGE)
    console.print(f"[bold yellow]{door.banner(where[1])}[/bold yellow]", soft_wrap=True)
    stays = "What was restored so far stays"
    with ending(f"There is {{}}. {stays}; files there are never overwritten.", f"{{}}. {stays}.", f"{stays}."):
        with console.status("Restoring") as status:
            settled = door.reidentify(
                *where, opener, lambda count: status.update(f"Restoring: {count:,} files"), kms_key or ""
            )
    settled.print(Console())
    sys.exit(settled.exit_status)


@cli.command(cls=_Command)
@click.option("--input", "inputs", multiple=True, required=True, metavar="URI...", help="What runs have written.")
@click.option("--output", required=True, metavar="URI", help="A new folder or prefix: the root of the medium.")
@click.option("--id", "file_set_id", metavar="NAME", default="", help="What the medium is called: its File-set ID.")
@_KMS_KEY
def media(inputs: tuple[str, ...], output: str, file_set_id: str, kms_key: str | None) -> None:
    """Copy instances into a File-set for CD, DVD or USB, with a DICOMDIR; their bytes stay as they are.

    Exit status: 0 all are in it, 3 some are left out, 2 wrong usage, 1 failure.
    """
    import os

    from pipelines import media as door
    from pipelines.places import check_kms_key

    mistakes = _Mistakes()
    mistakes.checked(lambda: door.check_id(file_set_id))
    mistakes.checked(lambda: check_kms_key(kms_key, output))
    where = mistakes.checked(lambda: door.places(inputs, output))
    if mistakes.found or where is None:
        stop("\n".join(mistakes.found), EXIT_USAGE)
    sys.exit(_copy_to_medium(*where, file_set_id, Console(file=os.fdopen(os.dup(2), "w")), kms_key))


def _copy_to_medium(
    inputs: tuple[str, ...], root: "Location", file_set_id: str, console: Console, kms_key: str | None
) -> int:
    """Write a File-set, and tell of it: the exit status."""
    from pipelines import media as door

    with ending(
        "There is {}. The File-set isn't whole: remove what is there, and start again.",
        "The File-set can't be written: {}. Remove what is there, and start again.",
        "What is there has no DICOMDIR: remove it, and start again.",
        refused=EXIT_FAILURE,
    ):
        with console.status("Copying") as status:
            written = door.write(
                inputs, root, file_set_id, lambda count: status.update(f"Copying: {count:,} files"), kms_key or ""
            )
    written.print(Console())
    return written.exit_status


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
        stop(f"{output}: {failed.strerror}", EXIT_USAGE)


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
        stop(str(refused), EXIT_USAGE)
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
    from pipelines.requests import read_request

    try:
        if diff and request:
            raise click.UsageError("--request and --diff: give one of them")
        if diff:
            click.echo(difference(_edition(diff[0]), _edition(diff[1]), diff))
        else:
            click.echo(told(read_request(request)))
    except DicomveilError as refused:
        stop(str(refused), EXIT_USAGE)


def _edition(name: str):  # type: ignore[no-untyped-def]  # imported when it is needed
    """The Basic Profile of an edition, or the request in a file."""
    from dicomveil import standard
    from dicomveil.request import Request
    from pipelines.requests import read_request

    return Request(dicom_version=name) if name in standard.EDITIONS else read_request(name)


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
            stop("\n".join(mistakes.found), EXIT_USAGE)
        made = found
    for identifier in made:
        click.echo(identifier)


def main() -> NoReturn:
    """The console script."""
    cli(prog_name="dicomveil")
    raise SystemExit(0)
