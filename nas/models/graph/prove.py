"""Which choices a base really has: each proves itself by a forward pass of its own, or is left out with its reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import ne

from nas.common.errors import InputError, arg
from nas.models.graph.build import Shape, Shapes, shape_of
from nas.spaces.graph.architecture import GraphArchitecture
from nas.spaces.graph.base import Base, Segment, Site
from nas.spaces.graph.rewrite import Changes, rewritten
from nas.spaces.graph.sites import LeftOut

_BATCH = 2
_FEWEST = 8
"""Channels that a group keeps at least, and of which its size stays a multiple where the base's is one."""


@dataclass(frozen=True)
class Wanted:
    """What a space is to offer: kernel sizes, dilations, shares of a group's channels, and whether layers may be separable,
    fused or left out. Sites of layers below the prefixes `fix` are no choices. Raises `InputError` for what is none.
    """

    kernels: tuple[int, ...] = (3, 5, 7)
    dilations: tuple[int, ...] = (1, 2)
    widths: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    separable: bool = True
    fused: bool = True
    drop: bool = True
    fix: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for kernel in self.kernels:
            if not (1 <= kernel <= 99 and kernel % 2):
                raise InputError(f"{arg('kernel')} {kernel}: odd sizes up to 99 are expected")
        for dilation in self.dilations:
            if not 1 <= dilation <= 99:
                raise InputError(f"{arg('dilation')} {dilation}: whole numbers from 1 to 99 are expected")
        for width in self.widths:
            if not 0 < width <= 8:
                raise InputError(f"{arg('width')} {width:g}: shares above 0 and up to 8 are expected")


@dataclass(frozen=True)
class Proven:
    """The choices of each site that has any beside the base's, how many proved themselves, and what was left out."""

    choices: Mapping[str, tuple[int, ...]]
    options: int
    left_out: tuple[LeftOut, ...]


def prove(base: Base, wanted: Wanted) -> Proven:
    """Try every option at every site of a base; takes some milliseconds an option.

    Raises `InputError` where a prefix is that of no layer.
    """
    for prefix in wanted.fix:
        if not any(_is_below(layer.path, prefix) for layer in base.layers):
            raise InputError(f"{arg('freeze')} {prefix}: no layer of {base.name} has a name that begins so")
    proof = _Proof(base)
    choices: dict[str, tuple[int, ...]] = {}
    left_out: list[LeftOut] = []
    count = 0
    for site in base.sites:
        if any(_is_below(site.where, prefix) for prefix in wanted.fix):
            left_out.append(LeftOut(site.where, _WORDS[site.key], "fixed"))
            continue
        good = []
        for value in _options(base, site, wanted):
            why = proof.why_not(site, value)
            if why:
                left_out.append(
                    LeftOut(site.where, f"{_WORDS[site.key]} {value}" if not site.is_switch else _WORDS[site.key], why)
                )
            else:
                good.append(value)
        count += len(good)
        if good:
            choices[site.name] = tuple(sorted({site.base, *good}))
    return Proven(choices, count, tuple(left_out))


def _is_below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(f"{prefix}.")


_WORDS = {"k": "kernel", "d": "dilation", "sep": "separable", "fused": "fused", "w": "width", "drop": "leaving out"}


def _options(base: Base, site: Site, wanted: Wanted) -> Sequence[int]:
    """Values that are tried beside the base's."""
    if site.key == "w":
        return sorted(set(_sizes(site.base, wanted.widths)) - {site.base})
    if site.is_switch:
        return [1] if {"sep": wanted.separable, "fused": wanted.fused, "drop": wanted.drop}[site.key] else []
    return [value for value in (wanted.kernels if site.key == "k" else wanted.dilations) if value != site.base]


def _sizes(size: int, shares: Sequence[float]) -> Iterator[int]:
    step = _FEWEST if size % _FEWEST == 0 else 1
    for share in shares:
        rounded = max(_FEWEST, round(size * share / step) * step)
        if rounded < size or share >= 1:
            yield rounded


class _Proof:
    """The base's own shapes, beside which those of a changed network are held."""

    def __init__(self, base: Base) -> None:
        self._base, self._shapes = base, Shapes()
        self._own = {size: self._run({}, size) for size in base.sizes}
        self._rows = {layer.node: layer.outs for layer in base.layers}

    def _run(self, changes: Changes, size: int) -> dict[str, Shape | None]:
        results = self._shapes.run(rewritten(self._base, changes), (_BATCH, self._base.channels, size, size))
        return {name: shape_of(result) for name, result in results.items()}

    def why_not(self, site: Site, value: int) -> str:
        """Why an option is none: it changes nothing, does not run, or gives maps of other shapes; empty where it is one."""
        changes = {site.name: value}
        effective = [
            size
            for size in self._base.sizes
            if dict(GraphArchitecture.of(self._base, size, changes).canonical.changes).get(site.name) == value
        ]
        if not effective:
            return "it changes nothing: it reaches beyond the map"
        try:
            whys = [self._misfit(site, self._run(changes, size), self._own[size]) for size in effective]
        except Exception as error:  # a library's failure becomes a smaller space
            return f"it does not run: {' '.join(str(error).split())[:160]}"
        return next(filter(None, whys), "")

    def _misfit(self, site: Site, shapes: Mapping[str, Shape | None], own_shapes: Mapping[str, Shape | None]) -> str:
        """The first node that gives another shape than the base's, but for the channels that became fewer or more."""
        narrowed = site.group if site.key == "w" else -1
        pad = self._base.layer[site.target].pad if site.key in ("k", "d", "fused") else None
        for node in self._base.program.nodes:
            own, found = own_shapes[node.name], shapes.get(node.name, own_shapes[node.name])
            if found == own or (node.op == "module" and node.target == pad):
                continue
            row = self._rows.get(node.name)
            alike = narrowed >= 0 and found is not None and own is not None and len(found) == len(own)
            if alike and (row is None or _touches(row, narrowed)) and sum(map(ne, found or (), own or ())) == 1:
                continue
            return f"{node.name} then gives {found}, not {own}"
        return ""


def _touches(row: tuple[Segment, ...], group: int) -> bool:
    return any(each.group == group for each in row)
