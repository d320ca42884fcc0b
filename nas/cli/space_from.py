"""`nas space from`: a space around a network of the user's."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from nas.common.errors import InputError, arg
from nas.common.text import count_text, listed, plural, quoted
from nas.views.terminal.console import plain_console

console = plain_console()
_T = TypeVar("_T", bound=float)


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
    data: Annotated[
        str | None, typer.Option(help="The data set that searches of the space use where none is named.")
    ] = None,
) -> None:
    """Make a space around a network of yours: kernel, dilation, width, separability and depth of each of its layers.

    Example: nas space from net.py:Network --load best.pt --out my_space
    """
    from nas.models.graph.given import given_network
    from nas.models.graph.make import make_space, write_space
    from nas.models.graph.prove import Wanted

    began = time.monotonic()
    wanted = Wanted(
        kernels=_numbers("kernel", kernel, int, lambda each: 1 <= each <= 99 and each % 2 == 1, "odd sizes, as 3,5,7"),
        dilations=_numbers("dilation", dilation, int, lambda each: 1 <= each <= 99, "whole numbers from 1 on, as 1,2"),
        widths=_numbers("width", width, float, lambda each: 0 < each <= 4, "shares above 0 and up to 4, as 0.5,1"),
        fix=tuple(fix or ()),
    )
    others = _numbers("sizes", sizes, int, lambda each: 1 <= each <= 9999, "pixels, as 160,192") if sizes else ()
    if out.exists():
        raise InputError(f"{arg('out')} {out}: is there already; name another folder")
    given = given_network(network, load)
    made = make_space(given.model, _shape(image) if image else given.image, given.about, wanted, others, data)
    write_space(made, out)
    base, space = made.space.base, made.space
    for note in (
        *made.notes,
        *(
            []
            if given.trained
            else [f"no {arg('load')}: the base has random weights, so that nothing learned is inherited"]
        ),
    ):
        console.print(InputError(f"Note: {note}").named(lambda name: f"--{name}"), highlight=False, soft_wrap=True)
    console.print(
        f"{out}: {base.title}, {plural(len(base.sites), 'site')}, {plural(made.options, 'option')} that proved themselves, "
        f"{count_text(space.raw_size)} settings; {plural(len(space.left_out), 'thing')} left out; {time.monotonic() - began:.1f} s",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"Next:    nas space show {out}", highlight=False, soft_wrap=True)


def _numbers(
    name: str, text: str, kind: Callable[[str], _T], right: Callable[[_T], bool], wanted: str
) -> tuple[_T, ...]:
    try:
        found = tuple(kind(each) for each in text.split(","))
    except ValueError as error:
        raise InputError(f"{arg(name)} {text}: {wanted} are expected") from error
    if not all(map(right, found)):
        raise InputError(f"{arg(name)} {listed([*map(str, found)], 6)}: {wanted} are expected")
    return tuple(dict.fromkeys(found))


def _shape(text: str) -> tuple[int, int, int]:
    try:
        channels, height, width = map(int, text.split("x"))
    except ValueError as error:
        raise InputError(
            f"{arg('input')} {quoted(text)}: channels, height and width are expected, as 3x224x224"
        ) from error
    return channels, height, width
