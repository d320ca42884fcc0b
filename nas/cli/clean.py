"""`nas clean`: what nas left on this machine's disks."""

from __future__ import annotations

from typing import Annotated

import typer

from nas.cli.options import flag_of, parse_duration
from nas.common.errors import named
from nas.common.text import plural, time_text
from nas.runs.objectives import bytes_text
from nas.views.terminal.console import plain_console

console = plain_console()


def clean(
    remove: Annotated[bool, typer.Option("--remove", "--yes", help="Remove what nobody needs.")] = False,
    unused: Annotated[
        float,
        typer.Option(
            parser=parse_duration,
            metavar="TIME",
            help="How long decoded images and latencies are kept after their last use.",
        ),
    ] = "30d",  # type: ignore[assignment]  # parsed
    ray: Annotated[
        bool, typer.Option("--ray", help="Also ended sessions in Ray's own folder, which other programs may have left.")
    ] = False,
) -> None:
    """What nas left on this machine: scratch folders, decoded images, downloads, latencies; removed only with --remove.

    Example: nas clean --remove
    """
    from nas.workflows import clean as on_disk

    found = on_disk.leftovers(unused, ray)
    if not found:
        console.print("Nothing of nas lies on this machine.", highlight=False)
        return
    for each in found:
        console.print(each.path, highlight=False, soft_wrap=True)  # alone in its line, to be pasted
        state = f"{'removable' if each.removable else 'stays'}: {named(each.reason, flag_of)}"
        console.print(
            f"  {each.kind}, {bytes_text(each.size)}, last used {time_text(each.used)}; {state}",
            highlight=False, style="dim", soft_wrap=True,
        )  # fmt: skip
    removable = [each for each in found if each.removable]
    size = bytes_text(sum(each.size for each in removable))
    if not removable:
        console.print("\nNothing can be removed.", highlight=False)
    elif not remove:
        console.print(
            f"\n{plural(len(removable), 'item')}, {size}, can be removed: nas clean --remove",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    else:
        stay = [each.path for each in removable if not on_disk.remove(each)]
        console.print(
            f"\nRemoved {plural(len(removable) - len(stay), 'item')} of {len(removable)}, {size}", highlight=False
        )
        for path in stay:
            console.print(f"{path} could not be removed", highlight=False, soft_wrap=True)
