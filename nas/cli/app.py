"""The command line: one thin command for each verb of the Python API."""

from __future__ import annotations

import errno
import functools
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Annotated, Any, Literal

import typer

import nas
from nas.cli.baseline import baseline
from nas.cli.browse import browse
from nas.cli.clean import clean
from nas.cli.doctor import doctor
from nas.cli.evaluate import evaluate, recipe
from nas.cli.export import export
from nas.cli.fidelity import fidelity
from nas.cli.measure import measure
from nas.cli.old_spellings import as_now
from nas.cli.options import Directory, flag_of
from nas.cli.report import report
from nas.cli.search import SearchCommand, search
from nas.cli.space import space_app
from nas.cli.status import status, stop
from nas.cli.supernet import supernet_app
from nas.cli.train import train
from nas.cli.usage import USAGE_ERROR, usage_sentence
from nas.common.errors import ExportError, InputError, named
from nas.common.printable import print_what_fits
from nas.common.text import plural
from nas.common.trust import ask_by
from nas.common.user_cache import assume_home
from nas.training.allocator import own_process
from nas.views.terminal.console import plain_console

app = typer.Typer(
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"max_content_width": 110},
)
app.add_typer(space_app, name="space")
app.add_typer(supernet_app, name="supernet")

_INTERRUPTED = 130
"""What Typer gives after a KeyboardInterrupt."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

console = plain_console()
errors = plain_console(stderr=True)

_GUIDE = """[bold]nas[/bold] finds networks that are accurate and fast on your hardware, measured there.

  [bold]nas search[/bold]                     a complete search on the built-in digits, minutes on a laptop
  nas search cifar --data DIR    the same on your images, one folder a class
  nas space list                 search spaces that ship; [bold]nas space show NAME[/bold] explains one
  nas recipe                     how candidates are trained; every value can be changed
  nas status DIR                 what a search does, where, how long still; from any machine
  nas stop DIR                   ends it gently; nas search --resume DIR goes on
  nas front DIR                  the Pareto front of a run
  nas browse DIR                 a live page on it: look at candidates, compare and export them
  nas report DIR                 its report, one HTML file
  nas baseline DIR --train       does it beat MobileNetV2 and ResNet-18, measured and trained alike?
  nas supernet train SPACE       shared weights, so that every candidate starts trained
  nas fidelity DIR               can its proxy training rank candidates? some trained in full
  nas train DIR --pick knee      chosen candidates trained in full, then tested once
  nas export DIR --to OUT        a candidate as plain PyTorch, torch.export, ONNX or TorchScript
  nas measure mobilenet_v2       latency of any network, measured here
  nas doctor                     what is here: devices, runtimes, extras, folders, Ray
  nas clean                      what nas left on this machine's disks; --remove frees them

Every command has --help with an example."""


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    """Hardware-aware neural architecture search: accuracy against measured latency."""
    if version:
        console.print(nas.__version__, highlight=False)
    elif context.invoked_subcommand is None:
        console.print(_GUIDE, highlight=False, markup=True)


app.command(cls=SearchCommand)(search)
app.command()(evaluate)
app.command()(recipe)
app.command()(baseline)
app.command()(fidelity)
app.command()(train)
app.command()(export)
app.command()(measure)
app.command()(report)
app.command()(browse)
app.command()(status)
app.command()(stop)
app.command()(clean)
app.command()(doctor)


@app.command()
def front(
    directory: Directory,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="As CSV.")] = False,
) -> None:
    """The Pareto front of a run, finished or running, cheapest first.

    Example: nas front results/digits-20261124-070000 --csv > front.csv
    """
    from nas.runs.store import open_run
    from nas.runs.trained import ended
    from nas.views.front_latency import crowded_text
    from nas.views.terminal.front import front_csv, front_json, front_table, outcome_counts
    from nas.views.terminal.training import trainings_table

    if as_json and as_csv:
        raise InputError("--json and --csv: give one of the two")
    run = open_run(directory)
    if as_json or as_csv:
        print((front_json if as_json else front_csv)(run, run.judged()))
        return
    records = run.records()
    console.print(f"{plural(len(records), 'trial')}: {outcome_counts(records)}", highlight=False)
    if trainings := ended(run.training_records()):
        console.print("\nTrained in full", style="bold")
        console.print(trainings_table(run, trainings))
        console.print("\nPareto front of the search", style="bold")
    if seen := run.provenance.seen_images:
        console.print(f"Warning: {seen}: scores are too good", highlight=False, soft_wrap=True)
    console.print(front_table(run, run.judged()))
    if crowded := crowded_text(records, run.latencies()):
        console.print(crowded, highlight=False, soft_wrap=True)


@functools.cache
def _command() -> Callable[..., Any]:
    """The parser of all verbs, which takes longer to make than most of them take to refuse what is wrong."""
    return typer.main.get_command(app)


def main(arguments: list[str] | None = None) -> None:
    """Entry point: errors in what the user gave are one sentence and exit code 2, without a traceback."""
    own_process()
    print_what_fits()
    _let_data_lines_through()
    usage_error: Literal[2] = 2
    try:
        _check_working_directory()
        assume_home()
        if all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr)):
            ask_by(lambda sentence: typer.confirm(f"nas: {named(sentence, flag_of)}", err=True))
        given = as_now(sys.argv[1:] if arguments is None else arguments)
        code = _command()(args=given, prog_name="nas", standalone_mode=False)
        if sys.stdout is not None:  # closed
            sys.stdout.flush()
    except InputError as error:
        _print_error(error.named(flag_of))
        code = usage_error
    except ExportError as error:
        _print_error(error.named(flag_of))
        code = 1
    except SystemExit as ended:  # Ray answers a SIGTERM so, until a search has begun that could be stopped
        code = _INTERRUPTED if ended.code == signal.SIGTERM else ended.code
    except USAGE_ERROR as error:  # of the parser: unknown flags, values that do not fit
        _print_error(usage_sentence(error))
        code = usage_error
    except BrokenPipeError:  # a reader that has seen enough, as head
        code = 1
    except OSError as error:
        if error.errno not in _NO_ROOM or error.filename is not None:
            raise
        _print_error(f"the output cannot be written: {error.strerror}")
        code = 1
    if code == _INTERRUPTED:
        _print_error("interrupted")
    sys.exit(code or 0)


def _let_data_lines_through() -> None:
    """Show on standard error, beside the warnings, the line that says what a data set holds."""
    logging.getLogger("nas.data.sets").setLevel(logging.INFO)
    if logging.lastResort is not None:
        logging.lastResort.setLevel(logging.INFO)


def _check_working_directory() -> None:
    try:
        os.getcwd()
    except OSError as error:
        raise InputError(f"the working directory is no longer there: {error.strerror}") from error


def _print_error(sentence: str) -> None:
    told = sentence.replace("\n", "\nnas: ")  # several problems, a line each
    errors.print(f"nas: {told}", highlight=False, soft_wrap=True)
