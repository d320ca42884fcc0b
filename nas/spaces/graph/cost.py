"""Cost of a network of a base in closed form, from the layers' table; and the table of its layers."""

from __future__ import annotations

from collections.abc import Iterator

from nas.spaces.base import Cost, LayerRow
from nas.spaces.graph.architecture import GraphArchitecture
from nas.spaces.graph.base import Base, Layer
from nas.spaces.graph.rewrite import Changed, changed
from nas.spaces.graph.sites import pair

_STATISTICS = 8
"""Bytes of batch norm's statistics: mean and variance in float32 for each channel, and the number of batches in int64."""


def architecture_cost(architecture: GraphArchitecture, num_classes: int) -> Cost:
    """Multiply-adds, parameters and bytes of weights."""
    macs = params = buffers = 0
    for _, *costs in layer_costs(architecture, num_classes):
        macs, params, buffers = macs + costs[0], params + costs[1], buffers + costs[2]
    return Cost(macs, params, 4 * params + buffers)


def layer_costs(architecture: GraphArchitecture, num_classes: int) -> Iterator[tuple[Layer, int, int, int]]:
    """Of each layer that is left: multiply-adds of one image, parameters, bytes of buffers. They add up to the network's."""
    arch = architecture.canonical
    base, what, place = arch.base, changed(arch.base, dict(arch.changes)), arch.base.index(arch.size)
    for layer in base.layers:
        if layer.node not in what.gone:
            yield layer, *_layer(base, layer, what, place, num_classes)


def _layer(base: Base, layer: Layer, what: Changed, place: int, num_classes: int) -> tuple[int, int, int]:
    if layer.kind == "other":
        return layer.macs[place], layer.params, layer.buffer_bytes
    part, read, written = base.part(layer.path), what.count(base, layer.ins), what.count(base, layer.outs)
    if layer.path == base.head:
        written = num_classes
    if layer.kind == "norm":
        affine = 2 * read if part.arguments.get("affine", True) else 0
        return 0, affine, _STATISTICS * read + _STATISTICS if layer.buffer_bytes else 0
    positions, bias = layer.positions[place], written if part.arguments.get("bias", True) else 0
    if layer.kind == "linear":
        return read * written * positions, read * written + bias, 0
    height, width = pair(part["kernel_size"])
    taps = what.kernels[layer.path] ** 2 if layer.path in what.kernels else height * width
    if layer.path in what.separable:
        weights = read * (taps + written)
    elif layer.path in what.fused:
        weights = what.count(base, base.layer[base.fusion[layer.path].pointwise].ins) * written * taps
    else:
        groups = read if layer.depthwise else part.arguments.get("groups", 1)
        weights = read // groups * written * taps
    return weights * positions, weights + bias, 0


def layer_rows(architecture: GraphArchitecture, num_classes: int) -> list[LayerRow]:
    """A row a convolution, linear layer or other one that multiplies; parameters of norms count to the layer before them."""
    arch = architecture.canonical
    base, what, place = arch.base, changed(arch.base, dict(arch.changes)), arch.base.index(arch.size)
    total = max(1, architecture_cost(arch, num_classes).macs)
    rows: list[LayerRow] = []
    spare = 0
    for layer, macs, params, _ in layer_costs(arch, num_classes):
        if not macs:
            spare += params
            if rows:
                rows[-1] = _with_params(rows[-1], spare)
                spare = 0
            continue
        text = _text(arch, layer)
        read, written = what.count(base, layer.ins), what.count(base, layer.outs)
        written = num_classes if layer.path == base.head else written
        sides = layer.sides[place], layer.out_sides[place]
        details = f"{layer.path}: {text or 'as in the base'}"
        kind = _kind(layer, what)
        rows.append(
            LayerRow(layer.path, kind, text, details, read, written, *sides, macs, params + spare, macs / total)
        )
        spare = 0
    return rows


def _with_params(row: LayerRow, more: int) -> LayerRow:
    return LayerRow(**{**vars(row), "params": row.params + more})


def _kind(layer: Layer, what: Changed) -> str:
    if layer.path in what.separable:
        return "separable"
    if layer.path in what.fused:
        return "fused"
    return "depthwise" if layer.depthwise else {"conv": "convolution", "linear": "linear"}.get(layer.kind, "other")


def _text(arch: GraphArchitecture, layer: Layer) -> str:
    """What differs from the base there."""
    words = []
    for name, value in arch.changes:
        site = arch.base.site[name]
        if site.target == layer.path and site.key != "drop":
            words.append(site.key if site.is_switch else f"{site.key}{value}")
    return " ".join(words)
