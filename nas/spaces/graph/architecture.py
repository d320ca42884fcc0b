"""One network of a space: the base and what differs from it, as a value."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from nas.common.errors import InputError
from nas.common.text import quoted
from nas.spaces.graph.base import Base, base_by, note_base
from nas.spaces.graph.rewrite import Changes
from nas.spaces.graph.sites import pair
from nas.spaces.mobile.geometry import Padding, effective_kernel

FAMILY_NAME = "graph"
_TEXT = re.compile(r"(?P<base>[^{}@]+@[0-9a-f]{4,16})\{(?P<changes>[^{}]*)\}")
_WORD = re.compile(r"(?P<name>[\w.-]+\.(?:k|d|w|sep|fused|drop))(?P<value>\d{1,6})?")
_SIZE = re.compile(r"r(\d{1,5})")


@dataclass(frozen=True)
class GraphArchitecture:
    """A base with other choices at some of its sites (`changes`, in the order of the sites), for images of `size` px."""

    family: ClassVar[str] = FAMILY_NAME
    base: Base
    size: int
    changes: tuple[tuple[str, int], ...] = ()

    @staticmethod
    def of(base: Base, size: int, changes: Changes) -> GraphArchitecture:
        """Without choices that are the base's own; raises `InputError` for sites and sizes that it has not."""
        base.index(size)
        for name, value in changes.items():
            if name not in base.site:
                raise InputError(f"the base {base.title} has nothing called {quoted(name)} that may change")
            if not base.site[name].allows(value):
                raise InputError(f"{quoted(value)} is no choice for {name} of the base {base.title}")
        kept = tuple(
            (site.name, changes[site.name]) for site in base.sites if changes.get(site.name, site.base) != site.base
        )
        return GraphArchitecture(note_base(base), size, kept)

    @cached_property
    def canonical(self) -> GraphArchitecture:
        """The same function without choices that have no effect.

        Taps beyond the map go, as far as the base's own would; so does all that lies in a branch that is left out.
        """
        own = dict(self.changes)
        kept = _without_dropped(self.base, own)
        for path in {self.base.site[name].target for name in kept if self.base.site[name].key in ("k", "d")}:
            _settle_kernel(self.base, self.size, path, kept)
        return GraphArchitecture.of(self.base, self.size, kept)

    @cached_property
    def digest(self) -> str:
        """Sixteen hexadecimal digits, equal for equal canonical forms."""
        text = json.dumps(self.canonical._differences(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of an image."""
        return self.base.channels, self.size, self.size

    @property
    def input_size(self) -> int:
        """The side of an image."""
        return self.size

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that stands for itself: the base's network, without its weights, is within it."""
        return {"kind": FAMILY_NAME, **self._differences(), "network": self.base.packed}

    def _differences(self) -> dict[str, Any]:
        return {"base": self.base.digest, "size": self.size, "changes": dict(self.changes)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> GraphArchitecture:
        """Read what `to_json` wrote; raises `InputError`."""
        try:
            base, size, changes = base_by(data["base"], data["network"]), data["size"], data["changes"]
            right = all(isinstance(value, int) for value in (size, *changes.values()))
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"not an architecture of a network: {type(error).__name__}: {error}") from error
        if not right or set(data) - {"base", "size", "changes", "network", "kind"}:
            raise InputError(
                "not an architecture of a network: base, size and changes are expected, and numbers as choices"
            )
        return GraphArchitecture.of(base, size, changes)

    def __str__(self) -> str:
        words = [f"r{self.size}"] if self.size != self.base.size else []
        words += [self.base.site[name].word(value) for name, value in self.changes]
        return f"{self.base.title}{{{' '.join(words)}}}"


def parse_changes(base: Base, text: str) -> GraphArchitecture:
    """Read what `str` makes of an architecture; raises `InputError` naming the part that does not fit."""
    found = _TEXT.fullmatch(text.strip())
    if found is None:
        raise InputError(f"architecture {quoted(text)} is not of the form {base.title}{{f4.k5 f7.drop}}")
    name, _, digest = found["base"].rpartition("@")
    if name != base.name or not base.digest.startswith(digest):
        raise InputError(f"architecture {quoted(text)} is of another base than {base.title}")
    size, changes = base.size, dict[str, int]()
    for word in found["changes"].split():
        if of_size := _SIZE.fullmatch(word):
            size = int(of_size[1])
            continue
        of_site = _WORD.fullmatch(word)
        site = base.site.get(of_site["name"]) if of_site else None
        if of_site is None or site is None or site.is_switch != (of_site["value"] is None):
            raise InputError(
                f"architecture {quoted(text)}: the base {base.title} has nothing to change called {quoted(word)}"
            )
        changes[site.name] = int(of_site["value"] or 1)
    return GraphArchitecture.of(base, size, changes)


def _without_dropped(base: Base, changes: Changes) -> dict[str, int]:
    """Changes of which something is left in the network."""
    gone: set[str] = set()
    for name in changes:
        site = base.site[name]
        if site.key == "drop":
            gone.update(base.skip[site.target].branch)
    kept = {}
    for name, value in changes.items():
        site = base.site[name]
        nodes = [site.target] if site.key == "drop" else [base.layer[site.target].node]
        if site.key == "w":
            nodes = [layer.node for layer in base.of_group[site.group]]
        if not set(nodes) <= gone:
            kept[name] = value
    return kept


def _settle_kernel(base: Base, size: int, path: str, changes: dict[str, int]) -> None:
    layer, part = base.layer[path], base.part(path)
    sites = {site.key: site for site in base.sites if site.target == path and site.key in ("k", "d")}
    own = pair(part["kernel_size"])[0], pair(part.arguments.get("dilation", 1))[0]
    kernel, dilation = (
        changes.pop(sites[key].name, value) if key in sites else value for key, value in zip("kd", own, strict=True)
    )
    stride, side = pair(part.arguments.get("stride", 1))[0], layer.sides[base.index(size)]
    padding: Padding = "tf_same" if layer.pad else "symmetric"
    found = effective_kernel(side, kernel, dilation, stride, padding)
    unchanged = effective_kernel(side, *own, stride, padding)
    if found == unchanged:
        return
    kernel, dilation = found
    if kernel == 1:
        dilation = own[1]
    for key, value, base_value in (("k", kernel, own[0]), ("d", dilation, own[1])):
        if value != base_value and key in sites:
            changes[sites[key].name] = value


def is_left(base: Base, name: str, changes: Changes) -> bool:
    """Whether a site still decides something beside changes."""
    return name in _without_dropped(base, {**changes, name: 1})
