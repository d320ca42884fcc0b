"""From a network to its space: captured, looked at, every option proven, and a few whole networks tried."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from nas.common.errors import InputError, arg
from nas.common.files import check_place, load_tensors, weights_content, writing
from nas.common.files import write_atomically as write_file
from nas.common.kinds import StrPath, checks_kinds
from nas.common.text import plural, quoted
from nas.models.flops import count
from nas.models.graph.analyse import About, base_of
from nas.models.graph.capture import capture
from nas.models.graph.inherit import inherit
from nas.models.graph.networks import NETWORKS
from nas.models.graph.prove import Wanted, prove
from nas.models.graph.selftest import TOLERANCE, difference, outputs
from nas.models.networks import Backbone, state_fingerprint
from nas.spaces.graph.architecture import GraphArchitecture
from nas.spaces.graph.cost import architecture_cost
from nas.spaces.graph.folder import WEIGHTS, read_space_folder, space_texts
from nas.spaces.graph.space import GraphSpace

TRIED = 3
"""Random networks of a new space that are built, given their weights, and run forward and back."""


@dataclass(frozen=True)
class Made:
    """A new space, the weights of its base, and how many options proved themselves."""

    space: GraphSpace
    state: dict[str, torch.Tensor]
    options: int
    notes: tuple[str, ...]


def make_space(
    model: nn.Module,
    image: tuple[int, int, int],
    about: About,
    wanted: Wanted,
    sizes: Sequence[int] = (),
    data: str | None = None,
) -> Made:
    """The space around a network that takes images (C, H, W); `sizes` are further sides that candidates may have.

    Raises `InputError` where the network cannot be captured, or nothing of it can change.
    """
    captured = capture(model, image)
    others = [size for size in sizes if size != image[1]]
    if others and not captured.any_size:
        raise InputError(
            f"{arg('sizes')} {','.join(map(str, others))}: the network takes images of {image[1]} px alone"
        )
    base, left_out = base_of(captured, image, about, others)
    proven = prove(base, wanted)
    if not proven.choices and not others:
        whys = [f"{each.where}: no {each.what}, {each.why}" for each in (*left_out, *proven.left_out)]
        raise InputError(
            f"nothing of the network {about.name} can change ({'; '.join(whys[:3])}{'; …' if whys[3:] else ''})"
        )
    summary = f"around {about.origin or about.name}"
    space = GraphSpace(about.name, base, proven.choices, base.sizes, summary, data, (*left_out, *proven.left_out))
    check_networks(model, space, captured.state)
    return Made(space, captured.state, proven.options, captured.notes)


@checks_kinds
def space_from(
    model: nn.Module,
    example: Sequence[int] = (3, 224, 224),
    freeze: Sequence[str] = (),
    out: StrPath | None = None,
    *,
    name: str | None = None,
    kernel: Sequence[int] = (3, 5, 7),
    dilation: Sequence[int] = (1, 2),
    width: Sequence[float] = (0.25, 0.5, 0.75, 1.0),
    sizes: Sequence[int] = (),
    data: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> GraphSpace:
    """The space around a network of yours, which takes images of shape `example` (C, H, W); the module is left as it was.

    Layers whose names begin as one of `freeze` stay as they are. `out` is a new folder, by which `nas search` and the setting
    `init` find the network's weights; without it candidates begin with random ones. `mean` and `std` are the normalisation of a
    channel that it was trained with, where it had one of its own. Raises `InputError`.
    """
    shape = tuple(example)
    if len(shape) != 3 or not all(isinstance(each, int) and each > 0 for each in shape):
        raise InputError(f"{arg('example')} {quoted(example)}: channels, height and width of an image are expected")
    if out is not None and check_place(Path(out)):
        raise InputError(f"{arg('out')} {out}: is there already; name another folder")
    about = About(
        plain_name(name or type(model).__name__),
        f"a {type(model).__name__}",
        None if mean is None else tuple(mean),
        None if std is None else tuple(std),
    )
    wanted = Wanted(tuple(kernel), tuple(dilation), tuple(width), fix=tuple(freeze))
    made = make_space(model, (shape[0], shape[1], shape[2]), about, wanted, sizes, data)
    if out is not None:
        write_space(made, Path(out))
    return made.space


def plain_name(text: str) -> str:
    """A name for a base, of letters, digits, - and _."""
    return re.sub(r"[^\w-]+", "_", text).strip("_")[:60] or "network"


def check_networks(model: nn.Module, space: GraphSpace, state: dict[str, torch.Tensor]) -> None:
    """Raise `InputError` unless the space's base gives what the model does, and random networks of it run forward and back."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, *space.backbone.input_shape, generator=generator)
    network = _with_weights(space, state, space.backbone)
    training = model.training
    with torch.no_grad():
        gap = difference(outputs(network.eval(), images), outputs(model.eval(), images))
    model.train(training)
    if not gap <= TOLERANCE:
        raise InputError(f"the base of {space.name} gives other outputs than the network, by {gap:.1e} of the largest")
    counted, cost = count(model, space.backbone.input_shape), architecture_cost(space.backbone, space.base.classes)
    if counted.macs is not None and (counted.macs, counted.params) != (cost.macs, cost.params):
        raise InputError(
            f"the base of {space.name} has {cost.macs:,} multiply-adds and {cost.params:,} parameters by its table, and "
            f"{counted.macs:,} and {counted.params:,} by counting: its costs would be wrong"
        )
    rng = random.Random(0)
    for _ in range(TRIED):
        architecture = space.architecture(space.sample(rng)).canonical
        candidate = _with_weights(space, state, architecture).train()
        try:
            candidate(torch.randn(2, *architecture.input_shape, generator=generator)).sum().backward()
        except RuntimeError as error:
            raise InputError(
                f"the network {architecture} does not run: {' '.join(str(error).split())[:200]}"
            ) from error
        if any(parameter.grad is None for parameter in candidate.parameters()):
            raise InputError(f"no gradient reaches some weights of the network {architecture}")


def _with_weights(space: GraphSpace, state: dict[str, torch.Tensor], architecture: GraphArchitecture) -> nn.Module:
    network = NETWORKS.build(architecture, space.base.classes)
    network.load_state_dict(inherit(space.base, state, architecture, space.base.classes).state)
    return network


def write_space(made: Made, out: Path) -> None:
    """Write a space's folder, which must not be there; raises `InputError`."""
    if check_place(out):
        raise InputError(f"{arg('out')} {out}: is there already; name another folder")
    with writing(out):
        out.mkdir(parents=True)
        for name, text in space_texts(made.space).items():
            write_file(out / name, text.encode())
        write_file(out / WEIGHTS, weights_content(made.state))


def load_base(folder: Path) -> Backbone:
    """The weights of a space's folder, to inherit from; raises `InputError` where they are not the base's."""
    space = read_space_folder(folder)
    state = load_tensors(folder / WEIGHTS) if (folder / WEIGHTS).is_file() else None
    if state is None:
        raise InputError(f"{folder / WEIGHTS}: no such file: the weights of the space's base are gone")
    base = space.base
    order = list(NETWORKS.build(space.backbone, base.classes).state_dict())
    if set(order) != set(state) or state_fingerprint("", {name: state[name] for name in order}) != base.weights:
        raise InputError(
            f"{folder / WEIGHTS}: does not hold the weights of the base {base.title}: {plural(len(state), 'tensor')}"
        )
    ordered = {name: state[name] for name in order}
    return Backbone(str(folder), space.backbone, ordered, base.classes, base.mean, base.std)
