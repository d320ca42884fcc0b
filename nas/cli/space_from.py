"""`nas space from`: a space around a network of the user's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli.options import flag_of
from nas.common.errors import InputError, about, arg, named
from nas.common.files import check_place
from nas.common.text import command_text, count_text, plural, quoted
from nas.views.terminal.console import plain_console

if TYPE_CHECKING:
    from nas.models.graph.given import Given

console = plain_console()


def space_from(
    network: Annotated[
        str,
        typer.Argument(
            metavar="NETWORK",
            help="torchvision:NAME, timm:NAME, net.py:Class, module:function, or a folder that nas export made.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The new folder of the space.")],
    load: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Trained weights: a state dict, or pretrained for those of torchvision or timm; without it those that the network has.",
        ),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="CxHxW",
            help="Shape of an image, as 3x224x224; by default what the network is known to take.",
        ),
    ] = None,
    sizes: Annotated[str, typer.Option(metavar="PIXELS", help="Other sides that images may have: 160,192.")] = "",
    kernel: Annotated[str, typer.Option(help="Kernel sizes beside a layer's own.")] = "3,5,7",
    dilation: Annotated[str, typer.Option(help="Dilations, of layers of stride 1.")] = "1,2",
    width: Annotated[str, typer.Option(help="Shares of the channels within a block.")] = "0.25,0.5,0.75,1",
    fix: Annotated[
        list[str] | None,
        typer.Option(metavar="PREFIX", help="Leave layers whose names begin so as they are; may be given again."),
    ] = None,
    mean: Annotated[
        str,
        typer.Option(
            help="Mean of each channel that the weights were trained with, of images from 0 to 1: 0.485,0.456,0.406."
        ),
    ] = "",
    std: Annotated[str, typer.Option(help="The standard deviation of the same.")] = "",
    data: Annotated[
        str | None, typer.Option(help="The data set that searches of the space use where none is named.")
    ] = None,
) -> None:
    """Make a space around a network of yours: kernel, dilation, width, separability and depth of each of its layers.

    Example: nas space from net.py:Network --load best.pt --out my_space
    """
    from nas.data.sets import check_data_name
    from nas.models.graph.given import given_network, with_normalisation
    from nas.models.graph.make import make_space, write_space
    from nas.models.graph.prove import Wanted

    began = time.monotonic()
    wanted = Wanted(
        _whole("kernel", kernel), _whole("dilation", dilation), _shares("width", width), fix=tuple(fix or ())
    )
    others = _whole("sizes", sizes) if sizes else ()
    shape = _shape(image) if image else None
    means, deviations = (_shares(*each) if each[1] else None for each in (("mean", mean), ("std", std)))
    if check_place(out):
        raise InputError(f"{arg('out')} {out}: is there already; name another folder")
    if data is not None:
        with about("data"):
            check_data_name(data)
    given = with_normalisation(given_network(network, load), means, deviations)
    made = make_space(given.model, shape or given.image, given.about, wanted, others, data)
    write_space(made, out)
    for note in (*made.notes, *_unknown(given)):
        console.print(f"Note: {named(note, flag_of)}", highlight=False, soft_wrap=True)
    base, space = made.space.base, made.space
    console.print(
        f"{out}: {base.title}, {plural(len(base.sites), 'site')}, {plural(made.options, 'option')} that proved themselves, "
        f"{count_text(space.raw_size)} settings; {plural(len(space.left_out), 'thing')} left out; {time.monotonic() - began:.1f} s",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"Next:    {command_text('space', 'show', out)}", highlight=False, soft_wrap=True)


def _unknown(given: Given) -> Iterator[str]:
    """What is not known of the weights, in sentences."""
    if not given.trained:
        yield f"no {arg('load')}: the base has random weights, so that nothing learned is inherited"
    elif given.about.mean is None:
        yield (
            f"how images were normalised for the weights is not known, so that they will be by the data's own mean and deviation; "
            f"{arg('mean')} and {arg('std')} say it"
        )


def _whole(name: str, text: str) -> tuple[int, ...]:
    return tuple(map(int, _split(name, text, int, "whole numbers")))


def _shares(name: str, text: str) -> tuple[float, ...]:
    return tuple(_split(name, text, float, "numbers"))


def _split(name: str, text: str, kind: Callable[[str], float], wanted: str) -> list[float]:
    try:
        return [kind(each) for each in text.split(",")]
    except ValueError as error:
        raise InputError(f"{arg(name)} {quoted(text)}: {wanted} are expected, with commas between") from error


def _shape(text: str) -> tuple[int, int, int]:
    try:
        channels, height, width = map(int, text.split("x"))
    except ValueError as error:
        raise InputError(
            f"{arg('input')} {quoted(text)}: channels, height and width are expected, as 3x224x224"
        ) from error
    return channels, height, width
