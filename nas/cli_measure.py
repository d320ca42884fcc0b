"""`nas measure`: the latency of any network, with how it was measured."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from nas.errors import CandidateError, InputError
from nas.known import chosen_architecture
from nas.options import Device
from nas.settings import LatencyProtocol, Mode, Precision, default_protocol

if TYPE_CHECKING:
    from nas.measurable import Measurable
    from nas.record import Cost, Latency

console = Console(emoji=False)
errors = Console(stderr=True, emoji=False)

DTYPES: dict[str, Precision] = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def parse_batch_sizes(text: str) -> tuple[int, ...]:
    """`1,32` as numbers; raises `InputError`."""
    sizes = tuple(int(part) if part.isdecimal() else 0 for part in (part.strip() for part in text.split(",")))
    if min(sizes) < 1 or len(set(sizes)) < len(sizes):
        raise InputError(f"--batch-size {text}: write different whole numbers of at least 1, as in 1,32")
    return sizes


def measure(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[WHAT]",
            help="A torchvision model by name, path/to/file.py:Class, or a folder that nas export made.",
            show_default=False,
        ),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(metavar="NAME_OR_PATH", help="Measure a candidate of this space instead, with --arch."),
    ] = None,
    arch: Annotated[
        str | None,
        typer.Option(metavar="ARCH", help="A compact architecture string, or smallest, middle, backbone, largest."),
    ] = None,
    classes: Annotated[
        int | None, typer.Option(min=2, help="Classes of the candidate's classifier; by default 10.")
    ] = None,
    input_text: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="CxHxW",
            help="One image; by default 3x224x224 for a torchvision model.",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[
        str | None,
        typer.Option(
            metavar="LIST", help="One or several; by default 1,8 on cpu and 1,128 on cuda.", show_default=False
        ),
    ] = None,
    mode: Annotated[
        Mode | None,
        typer.Option(help="How it is deployed; by default eager on cpu and cudagraph on cuda.", show_default=False),
    ] = None,
    dtype: Annotated[Literal["fp32", "fp16", "bf16"], typer.Option(help="Of weights and images.")] = "fp32",
    channels_last: Annotated[bool, typer.Option(help="Memory format; onnxruntime has its own.")] = True,
    threads: Annotated[int, typer.Option(min=1, help="Threads on the CPU.")] = 1,
    cold: Annotated[bool, typer.Option("--cold", help="Empty the caches before each run.")] = False,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Latency of any network, with how it was measured.

    Example: nas measure mobilenet_v2 --input 3x96x96 --batch-size 1,32 --threads 2
    """
    import json

    from nas.device import resolve_device
    from nas.runtimes import check_protocol

    default = default_protocol(resolve_device(device))
    sizes = parse_batch_sizes(batch_size or ("1,8" if default.device == "cpu" else "1,128"))
    protocol = replace(
        default,
        mode=mode or default.mode,
        dtype=DTYPES[dtype],
        channels_last=channels_last,
        threads=threads,
        cold=cold,
    )
    check_protocol(protocol)
    # What the network itself prints is not part of the result.
    with contextlib.redirect_stdout(sys.stderr), _chosen(what, space, arch, classes, input_text) as chosen:
        measured, failure = _measure_all(chosen, protocol, sizes, quiet=as_json)
        cost = _cost(chosen)
    if as_json:
        content = {
            "label": chosen.label,
            "macs": cost.macs if cost else None,
            "params": sum(parameter.numel() for parameter in chosen.module.parameters()),
            "measured": [asdict(latency) for latency in measured],
        }
        print(json.dumps(content, indent=2))
    elif measured:
        _print(chosen, cost, measured)
    if failure is not None:
        errors.print(f"nas: {chosen.label}: {failure}", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1)


@contextlib.contextmanager
def _chosen(
    what: str | None, space: str | None, arch: str | None, classes: int | None, input_text: str | None
) -> Iterator[Measurable]:
    """The one network that the flags name; raises `InputError`."""
    from nas.measurable import candidate, named, parse_shape
    from nas.space_file import load_space

    if what is not None:
        for flag, value in (("--space", space), ("--arch", arch), ("--classes", classes)):
            if value is not None:
                raise InputError(f"{flag} cannot be given with {what}: name a network, or a candidate of a space")
        with named(what, parse_shape(input_text) if input_text is not None else None) as found:
            yield found
        return
    if space is None or arch is None:
        raise InputError(
            "nothing to measure: name a torchvision model, a file.py:Class or an exported folder, "
            "or give both --space and --arch"
        )
    if input_text is not None:
        raise InputError("--input cannot be given with --space, whose architectures have their own")
    yield candidate(chosen_architecture(load_space(space), arch), classes or 10)


def _measure_all(
    chosen: Measurable, protocol: LatencyProtocol, sizes: tuple[int, ...], quiet: bool
) -> tuple[list[Latency], CandidateError | None]:
    """A latency for each batch size up to the first that cannot be had, and why not."""
    from nas.latency import measure as measure_latency

    measured: list[Latency] = []
    for size in sizes:
        if not quiet:  # a line: what moves would take the processor from what is measured
            errors.print(f"measuring {chosen.label}, batch {size}", highlight=False, markup=False, soft_wrap=True)
        try:
            measured.append(measure_latency(chosen.module, chosen.input_shape, replace(protocol, batch_size=size)))
        except CandidateError as error:
            return measured, error
    return measured, None


def _cost(chosen: Measurable) -> Cost | None:
    from nas.cost import module_cost

    try:
        return module_cost(chosen.module, chosen.input_shape)
    except Exception:  # the network's own code; it cannot run, or not in float32
        return None


def _print(chosen: Measurable, cost: Cost | None, measured: list[Latency]) -> None:
    from nas.objectives import objective
    from nas.show_latency import measured_table, protocol_lines

    macs = f"{objective('macs').show(cost.macs)} MACs" if cost else "MACs not known"
    params = sum(parameter.numel() for parameter in chosen.module.parameters())
    sides = "x".join(map(str, chosen.input_shape))
    console.print(
        f"{chosen.label}  input {sides}  {macs}  {objective('params').show(params)} parameters\n",
        highlight=False, markup=False, soft_wrap=True,
    )  # fmt: skip
    console.print(measured_table(measured))
    console.print()
    for line in protocol_lines(measured):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
