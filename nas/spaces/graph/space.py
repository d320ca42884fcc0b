"""A space of networks around a base: for each of its sites the choices that proved themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from nas.common.errors import InputError
from nas.common.text import listed, quoted
from nas.spaces.base import Choice, Slot, Space, Values
from nas.spaces.graph.architecture import FAMILY_NAME, GraphArchitecture, is_left, parse_changes
from nas.spaces.graph.base import Base, note_base
from nas.spaces.graph.cost import architecture_cost
from nas.spaces.graph.sites import LeftOut

SIZE = "size"
"""The parameter of the input size."""


@dataclass(frozen=True)
class GraphSpace(Space):
    """The base, the `choices` at its sites by their names (the base's own among them), and sides of images.

    `left_out` says of what else might have changed why it does not; only the folder of the space knows it.
    """

    family: ClassVar[str] = FAMILY_NAME
    name: str
    base: Base
    choices: Mapping[str, tuple[int, ...]]
    sizes: tuple[int, ...]
    summary: str = ""
    data: str | None = None
    left_out: tuple[LeftOut, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        note_base(self.base)

    def __hash__(self) -> int:
        return hash((self.name, self.base.digest, self.sizes))

    @property
    def input_channels(self) -> int:
        return self.base.channels

    @property
    def input_sizes(self) -> tuple[int, ...]:
        return self.sizes

    @cached_property
    def slots(self) -> Mapping[str, tuple[Choice, ...]]:
        """The parameters, and the input size where it is fixed."""
        found: dict[str, tuple[Choice, ...]] = {SIZE: self.sizes}
        for site in self.base.sites:
            choices = self.choices.get(site.name, (site.base,))
            if len(choices) > 1:
                found[site.name] = tuple(map(bool, choices)) if site.is_switch else choices
        return found

    @cached_property
    def parameters(self) -> Mapping[str, tuple[Choice, ...]]:
        """The parameters of the search: name to choices, in the order of the base's layers."""
        return {name: choices for name, choices in self.slots.items() if len(choices) > 1}

    def slot(self, name: str) -> Slot:
        """Each site is one of its own: the layers of a base are not alike as those of a stage are."""
        return Slot(name)

    def is_active(self, name: str, values: Values) -> bool:
        """Whether the site lies in no branch that is left out."""
        return name == SIZE or is_left(self.base, name, self._changes(values))

    def choice_word(self, name: str, choice: Choice) -> str:
        """As texts have it: `f4.k5`, `f7.drop`."""
        if name == SIZE:
            return f"r{choice}"
        site = self.base.site[name]
        if site.is_switch:
            return site.word(1) if choice else f"without {site.word(1)}"
        return site.word(int(choice))

    @property
    def layer_legend(self) -> str:
        return (
            "k is the kernel size, d the dilation, w the width, sep a depthwise and a pointwise layer for a dense one. "
        )

    def choices_table(self) -> list[list[str]]:
        """A row a site, by the user's name of its layer."""
        rows = [
            ["", "layer", "choices", "base"],
            [SIZE, "", " ".join(map(str, self.sizes)), str(self.base.size)],
        ]
        for name, choices in self.slots.items():
            if name != SIZE:
                site = self.base.site[name]
                shown = (
                    ("yes no" if site.is_switch else " ".join(map(str, choices))),
                    ("no" if site.is_switch else str(site.base)),
                )
                rows.append([name, site.where, *shown])
        return rows

    @property
    def remarks(self) -> list[str]:
        """What was left out, a sentence a reason."""
        alike: dict[tuple[str, str], list[str]] = {}
        for each in self.left_out:
            alike.setdefault((each.what, each.why), []).append(each.where)
        return [
            f"no {what}{f' of {len(names)} layers' if len(names) > 1 else ''}: {why} ({listed(names, 3)})"
            for (what, why), names in alike.items()
        ]

    # ---------------------------------------------------------------- values to architectures and back

    def architecture(self, values: Values) -> GraphArchitecture:
        for name, choices in self.parameters.items():
            if values.get(name) not in choices:
                raise InputError(
                    f"parameter {name} is {quoted(values.get(name))}; space {self.name} allows {list(choices)}"
                )
        return GraphArchitecture.of(self.base, int(values.get(SIZE, self.sizes[0])), self._changes(values))

    def _changes(self, values: Values) -> dict[str, int]:
        return {name: int(values[name]) for name in self.parameters if name != SIZE and name in values}

    def locate(self, architecture: Any) -> dict[str, Choice]:
        outside = InputError(f"architecture {architecture} is not in the space {self.name}")
        if not isinstance(architecture, GraphArchitecture) or architecture.base != self.base:
            raise outside
        target = architecture.canonical
        if target.size not in self.sizes:
            raise outside
        changes = dict(target.changes)
        for site in self.base.sites:
            if site.key == "k":
                changes |= self._kernel(target, site.target)
        values: dict[str, Choice] = {SIZE: target.size} if SIZE in self.parameters else {}
        for name, choices in self.parameters.items():
            if name != SIZE:
                site = self.base.site[name]
                wanted = changes.get(name, site.base)
                values[name] = bool(wanted) if site.is_switch else wanted
                if values[name] not in choices:
                    if is_left(self.base, name, changes):
                        raise outside
                    values[name] = choices[0]
        if self.architecture(values).canonical != target:
            raise outside
        return values

    def _kernel(self, target: GraphArchitecture, path: str) -> dict[str, int]:
        """Choices for a layer's kernel and dilation whose canonical form is the target's."""
        own = {site.key: site for site in self.base.sites if site.target == path and site.key in ("k", "d")}
        wanted = {name: value for name, value in target.changes if name in {site.name for site in own.values()}}
        kernels = self.choices.get(own["k"].name, (own["k"].base,))
        dilations = self.choices.get(own["d"].name, (own["d"].base,)) if "d" in own else (1,)
        for kernel in sorted(kernels, key=lambda each: each != wanted.get(own["k"].name, own["k"].base)):
            for dilation in dilations:
                changes = {own["k"].name: kernel} | ({own["d"].name: dilation} if "d" in own else {})
                if dict(GraphArchitecture.of(self.base, target.size, changes).canonical.changes) == wanted:
                    return changes
        return {}

    def parse(self, text: str) -> GraphArchitecture:
        architecture = parse_changes(self.base, text)
        self.locate(architecture)
        return architecture

    # ---------------------------------------------------------------- reference networks

    @property
    def backbone(self) -> GraphArchitecture:
        """The base as it is."""
        return GraphArchitecture.of(self.base, self.base.size if self.base.size in self.sizes else self.sizes[0], {})

    @cached_property
    def smallest(self) -> GraphArchitecture:
        """The cheapest choice at one site after the other, in MACs."""
        return self._extreme(min)

    @cached_property
    def largest(self) -> GraphArchitecture:
        """The most expensive choice at one site after the other, in MACs."""
        return self._extreme(max)

    def _extreme(self, best: Any) -> GraphArchitecture:
        changes: dict[str, int] = {}
        size = best(self.sizes)
        for name in self.parameters:
            if name != SIZE:
                options = [
                    GraphArchitecture.of(self.base, size, {**changes, name: each}) for each in self.choices[name]
                ]
                chosen = best(options, key=lambda each: architecture_cost(each, self.base.classes).macs)
                changes = dict(chosen.changes)
        return GraphArchitecture.of(self.base, size, changes)

    @property
    def references(self) -> Mapping[str, GraphArchitecture]:
        return {"smallest": self.smallest, "base": self.backbone, "largest": self.largest}

    # ---------------------------------------------------------------- files

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that the family reads back; it holds the base without its weights, so that a run stands alone."""
        return {
            "family": FAMILY_NAME,
            "name": self.name,
            "summary": self.summary,
            "data": self.data,
            "sizes": list(self.sizes),
            "choices": {name: list(choices) for name, choices in self.choices.items()},
            "base": self.base.packed,
        }


def read_graph_space(data: Mapping[str, Any], source: str) -> GraphSpace:
    """A space from what `to_json` wrote; `base` may also be the base's own dictionary. Raises `InputError`."""
    keys = {"name", "sizes", "choices", "base"}
    if not keys <= set(data) or set(data) - {*keys, "summary", "data"}:
        raise InputError(
            f"{source}: a space of a network of yours has the keys {', '.join(sorted(keys))}; nas space from makes one"
        )
    try:
        base = Base.unpacked(data["base"]) if isinstance(data["base"], str) else Base.from_json(data["base"])
        choices = {name: tuple(each) for name, each in data["choices"].items()}
        sizes = tuple(data["sizes"])
    except InputError as error:
        raise InputError(f"{source}: base: {error}") from error
    except (TypeError, AttributeError) as error:
        raise InputError(f"{source}: sizes and choices: {error}") from error
    for size in sizes or (0,):
        if size not in base.sizes:
            raise InputError(f"{source}: sizes: {quoted(size)} is not allowed: one of {list(base.sizes)} is expected")
    for name, each in choices.items():
        _check_choices(base, name, each, source)
    return GraphSpace(str(data["name"]), base, choices, sizes, str(data.get("summary") or ""), data.get("data"))


def _check_choices(base: Base, name: str, choices: tuple[int, ...], source: str) -> None:
    where = f"{source}: choices: {name}"
    site = base.site.get(name)
    if site is None:
        raise InputError(f"{where}: the base {base.title} has nothing to change called so")
    if site.base not in choices or len(set(choices)) != len(choices):
        raise InputError(
            f"{where}: {quoted(list(choices))} is not allowed: the base's own ({site.base}) and others, each once"
        )
    for value in choices:
        if not site.allows(value):
            raise InputError(f"{where}: {quoted(value)} is not allowed")
