"""`nas measure`: the latency of any network, with how it was measured."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from nas.cli.groups import grouped
from nas.cli.options import MODES, Device, check_mode
from nas.common.errors import CandidateError, InputError, about
from nas.latency.device import resolve_device
from nas.latency.protocol import LatencyProtocol, Precision, default_protocol
from nas.latency.result import latency_json
from nas.latency.runtimes import MOST_THREADS, check_protocol
from nas.runs.objectives import objective
from nas.spaces.known import chosen_architecture
from nas.views.terminal.console import plain_console

if TYPE_CHECKING:
    from nas.latency.result import Latency
    from nas.models.flops import Counted
    from nas.workflows.measurable import Measurable

console = plain_console()
errors = plain_console(stderr=True)

DTYPES: dict[str, Precision] = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def parse_batch_sizes(text: str) -> tuple[int, ...]:
    """`1,32` as numbers; raises `InputError`."""
    sizes = tuple(int(part) if part.isdecimal() else 0 for part in (part.strip() for part in text.split(",")))
    if min(sizes) < 1 or len(set(sizes)) < len(sizes):
        raise InputError(f"--batch-size {text}: write different whole numbers of at least 1, as in 1,32")
    return sizes


@dataclass(frozen=True)
class NetworkOptions:
    """The networks that are measured."""

    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[WHAT]...",
            help="Torchvision models by name, path/to/file.py:Class, or folders that nas export made; several are measured in "
            "turn, and compared.",
            show_default=False,
        ),
    ] = None
    space: Annotated[
        str | None,
        typer.Option(metavar="NAME_OR_PATH", help="Measure candidates of this space instead, with --arch."),
    ] = None
    arch: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ARCH",
            help="A compact architecture string, or smallest, middle, backbone, largest; may be repeated.",
        ),
    ] = None
    classes: Annotated[
        int | None, typer.Option(min=2, help="Classes of the candidate's classifier; by default 10.")
    ] = None
    input_text: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="CxHxW",
            help="One image; by default 3x224x224 for a torchvision model.",
            show_default=False,
        ),
    ] = None


@dataclass(frozen=True)
class ProtocolOptions:
    """How they are measured."""

    batch_size: Annotated[
        str | None,
        typer.Option(
            metavar="LIST", help="One or several; by default 1,8 on cpu and 1,128 on cuda.", show_default=False
        ),
    ] = None
    mode: Annotated[
        str | None,
        typer.Option(
            metavar="MODE",
            help=f"How it is deployed: {MODES}; by default eager on cpu and cudagraph on cuda.",
            show_default=False,
        ),
    ] = None
    dtype: Annotated[Literal["fp32", "fp16", "bf16"], typer.Option(help="Of weights and images.")] = "fp32"
    channels_last: Annotated[bool, typer.Option(help="Memory format; onnxruntime has its own.")] = True
    threads: Annotated[int, typer.Option(min=1, max=MOST_THREADS, help="Threads on the CPU.")] = 1
    cold: Annotated[bool, typer.Option("--cold", help="Empty the caches before each run.")] = False
    device: Device = "auto"

    def protocol(self) -> LatencyProtocol:
        """What they mean here, of the default's batch size; raises `InputError`."""
        default = default_protocol(resolve_device(self.device))
        if self.mode is not None:
            check_mode(f"--mode {self.mode}", self.mode)
        protocol = replace(
            default,
            mode=self.mode or default.mode,
            dtype=DTYPES[self.dtype],
            channels_last=self.channels_last,
            threads=self.threads,
            cold=self.cold,
        )
        check_protocol(protocol)
        return protocol

    def sizes(self, device: str) -> tuple[int, ...]:
        """The batch sizes on a device; raises `InputError`."""
        return parse_batch_sizes(self.batch_size or ("1,8" if device == "cpu" else "1,128"))


@grouped
def measure(
    networks: NetworkOptions,
    how: ProtocolOptions,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Latency of any networks, with how it was measured, and which of several differ.

    Example: nas measure mobilenet_v2 --input 3x96x96 --batch-size 1,32 --threads 2
    """
    from nas.models.flops import count

    protocol = how.protocol()
    sizes = how.sizes(protocol.device)
    # What the networks themselves print is not part of the result.
    with contextlib.redirect_stdout(sys.stderr), _chosen(networks) as chosen:
        measured, failure = _measure_all(chosen, protocol, sizes, quiet=as_json)
        counts = [count(network.module, network.input_shape) for network in chosen]
    if as_json:
        print(json.dumps(_content(chosen, counts, measured), indent=2))
    elif measured:
        _print(chosen, counts, measured)
    if failure is not None:
        errors.print(f"nas: {_labels(chosen)}: {failure}", highlight=False, soft_wrap=True)
        raise typer.Exit(1)


@contextlib.contextmanager
def _chosen(asked: NetworkOptions) -> Iterator[list[Measurable]]:
    """The networks that the flags name; raises `InputError`."""
    from nas.spaces.files import load_space
    from nas.workflows.measurable import candidate, named, parse_shape

    if asked.what:
        for flag, value in (("--space", asked.space), ("--arch", asked.arch or None), ("--classes", asked.classes)):
            if value is not None:
                raise InputError(
                    f"{flag} cannot be given with {asked.what[0]}: name networks, or candidates of a space"
                )
        shape = parse_shape(asked.input_text) if asked.input_text is not None else None
        with contextlib.ExitStack() as stack:
            yield [stack.enter_context(named(each, shape)) for each in asked.what]
        return
    if asked.space is None or not asked.arch:
        raise InputError(
            "nothing to measure: name a torchvision model, a file.py:Class or an exported folder, "
            "or give both --space and --arch"
        )
    if asked.input_text is not None:
        raise InputError("--input cannot be given with --space, whose architectures have their own")
    with about("space"):
        loaded = load_space(asked.space)
    with about("arch"):
        architectures = [chosen_architecture(loaded, arch) for arch in asked.arch]
    yield [candidate(architecture, asked.classes or 10) for architecture in architectures]


def _measure_all(
    chosen: list[Measurable], protocol: LatencyProtocol, sizes: tuple[int, ...], quiet: bool
) -> tuple[list[tuple[Latency, ...]], CandidateError | None]:
    """For each batch size the latency of each network, up to the first that cannot be had, and why not."""
    from nas.latency.in_turn import measure_in_turn
    from nas.latency.measuring import measure as measure_latency

    measured: list[tuple[Latency, ...]] = []
    for size in sizes:
        at_size = replace(protocol, batch_size=size)
        if not quiet:  # a line: what moves would take the processor from what is measured
            in_turn = " in turn" if len(chosen) > 1 else ""
            text = f"measuring {_labels(chosen)}, batch {size}{in_turn}"
            errors.print(text, highlight=False, soft_wrap=True)
        try:
            if len(chosen) == 1:
                found: tuple[Latency, ...] = (measure_latency(chosen[0].module, chosen[0].input_shape, at_size),)
            else:
                found = measure_in_turn(
                    [each.module for each in chosen], [each.input_shape for each in chosen], at_size
                )
        except CandidateError as error:
            return measured, error
        measured.append(found)
    return measured, None


def _labels(chosen: Sequence[Measurable]) -> str:
    return ", ".join(network.label for network in chosen)


def _content(
    chosen: Sequence[Measurable], counts: Sequence[Counted], measured: Sequence[tuple[Latency, ...]]
) -> dict[str, Any]:
    """One network as it is, several as a list and which of them differ at each batch size."""
    from nas.latency.compare import groups

    networks = [
        {
            "label": network.label,
            "macs": counted.macs,
            "params": counted.params,
            "measured": [latency_json(latencies[index]) for latencies in measured],
        }
        for index, (network, counted) in enumerate(zip(chosen, counts, strict=True))
    ]
    if len(networks) == 1:
        return networks[0]
    alike = [{"batch_size": latencies[0].protocol.batch_size, "groups": groups(latencies)} for latencies in measured]
    return {"networks": networks, "alike": alike}


def _print(chosen: Sequence[Measurable], counts: Sequence[Counted], measured: Sequence[tuple[Latency, ...]]) -> None:
    from nas.views.terminal.latency import compared_table, measured_table, protocol_lines

    unknown = []
    for network, counted in zip(chosen, counts, strict=True):
        macs = "MACs not known" if counted.macs is None else f"{objective('macs').show(counted.macs)} MACs"
        of = objective("params")
        params = "parameters not known" if counted.params is None else f"{of.show(counted.params)} parameters"
        if counted.macs is None:
            unknown.append(
                f"{network.label}: MACs not known: {counted.why}"
                if len(chosen) > 1
                else f"MACs not known: {counted.why}"
            )
        sides = "x".join(map(str, network.input_shape))
        console.print(
            f"{network.label}  input {sides}  {macs}  {params}",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    console.print()
    if len(chosen) == 1:
        alone = [latencies[0] for latencies in measured]
        console.print(measured_table(alone))
        lines = protocol_lines(alone, [f"batch {latency.protocol.batch_size}" for latency in alone])
    else:
        labels = [network.label for network in chosen]
        lines = []
        for latencies in measured:
            size, rounds = latencies[0].protocol.batch_size, len(latencies[0].rounds_ms)
            told = f"batch {size}, measured in turn, {rounds} rounds; no difference shows between networks of one place"
            console.print(told, highlight=False, soft_wrap=True)
            console.print(compared_table(labels, latencies))
            console.print()
            lines += protocol_lines(latencies, labels)
    console.print()
    for line in (*lines, *unknown):
        console.print(line, highlight=False, soft_wrap=True)
