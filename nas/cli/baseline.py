"""`nas baseline`: reference networks beside a run's front."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nas.cli.options import Directory
from nas.common.errors import InputError
from nas.common.text import duration_text, quoted
from nas.runs.record import Outcome
from nas.views.terminal.console import plain_console
from nas.views.terminal.pulse import Pulse

if TYPE_CHECKING:
    from nas.runs.record import BaselineRecord

console = plain_console()


def baseline(
    context: typer.Context,
    directory: Directory,
    networks: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Some of them, with commas between; by default all.", show_default=False),
    ] = None,
    train: Annotated[
        bool, typer.Option("--train", help="Fine-tune them too, by the run's recipe: only then are they compared.")
    ] = False,
    weights: Annotated[
        Literal["scratch", "imagenet"],
        typer.Option(
            help="Initial weights of --train; imagenet downloads torchvision's for MobileNetV2 and ResNet-18."
        ),
    ] = "scratch",
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or cuda:N; by default the run's.", show_default=False)
    ] = None,
) -> None:
    """What people would otherwise pick, measured as the run's candidates were: does the front beat it?

    MobileNetV2 at widths 0.5, 0.75, 1 and 1.4, ResNet-18, and the space's smallest and largest network. What is
    recorded already is not measured again; a search may run meanwhile.

    Example: nas baseline results/digits-20261124-070000 --train --networks mobilenet_v2_100,resnet18
    """
    from nas.runs.store import open_run
    from nas.views.report import write_report
    from nas.views.terminal.front import baselines_table
    from nas.workflows.baseline import BASELINES, measure_baselines

    names = list(BASELINES) if networks is None else [name.strip() for name in networks.split(",")]
    for name in names:
        if name not in BASELINES:
            raise InputError(f"--networks: unknown network {quoted(name)}; choose from {', '.join(BASELINES)}")
    if weights != "scratch" and not train:
        raise InputError(f"--weights {weights}: only what is trained has initial weights; give --train too")
    run = open_run(directory)
    epochs = run.settings.evaluation.recipe.epochs

    def show(name: str, epoch: int) -> None:
        text = f"{name}: epoch {epoch} of {epochs}" if epoch else f"{name}: measuring"
        pulse.doing = f"{text} done" if epoch else text
        if console.is_terminal:  # lines, no spinner: its thread would be measured too
            console.print(text, style="dim", highlight=False)

    pulse = context.with_resource(Pulse(console, "reading the data"))
    for record in measure_baselines(run, names, train=train, weights=weights, device=device, on_epoch=show):
        pulse.say(_line(record))
    recorded = [record for record in run.baselines() if record.name in names]
    console.print()
    console.print(baselines_table(run, run.judged(), recorded))
    console.print(f"\nReport: {write_report(run)}", highlight=False, soft_wrap=True)
    if any(record.evaluation.outcome is not Outcome.DONE for record in recorded):
        raise typer.Exit(1)


def _line(record: BaselineRecord) -> str:
    """What came out of one network, in one line."""
    evaluation = record.evaluation
    if evaluation.outcome is not Outcome.DONE:
        return f"{record.name}: {evaluation.outcome.value}: {evaluation.reason}"
    done = f"trained from {record.init}" if record.trained else "measured"
    return f"{record.name}: {done} in {duration_text(evaluation.seconds)}"
