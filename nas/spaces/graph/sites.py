"""What of a base may change, each with a short label made of the user's own names, and why other things may not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from nas.spaces.graph.base import Base, Layer, Site
from nas.spaces.graph.program import Part


@dataclass(frozen=True)
class LeftOut:
    """What is no choice of a space: the layer by the user's name, what of it, and why."""

    where: str
    what: str
    why: str


def pair(value: object) -> tuple[int, int]:
    """An argument of a convolution for both axes."""
    if isinstance(value, tuple | list):
        return int(value[0]), int(value[1])
    return int(value), int(value)  # type: ignore[call-overload]


def sites_of(base: Base) -> tuple[tuple[Site, ...], tuple[LeftOut, ...]]:
    """All sites of a base whose own are not yet known, in the order of its layers, and what is none."""
    found: list[Site] = []
    left_out: list[LeftOut] = []
    kernels = _kernels(base, left_out)
    labels = _labels([layer.path for layer in kernels])
    for layer, label in zip(kernels, labels, strict=True):
        part = base.part(layer.path)
        found.append(Site(label, "k", layer.path, layer.path, pair(part["kernel_size"])[0]))
        if pair(part.arguments.get("stride", 1)) == (1, 1):
            found.append(Site(label, "d", layer.path, layer.path, pair(part.arguments.get("dilation", 1))[0]))
        if part.arguments.get("groups", 1) == 1:
            found.append(Site(label, "sep", layer.path, layer.path, 0))
        if layer.path in base.fusion:
            found.append(Site(label, "fused", layer.path, layer.path, 0))
    widths = list(_widths(base, left_out))
    for (layer, group), label in zip(widths, _labels([layer.path for layer, _ in widths]), strict=True):
        found.append(Site(label, "w", layer.path, layer.path, base.groups[group].size, group))
    places = [_place(base, skip.branch) for skip in base.skips]
    for skip, place, label in zip(base.skips, places, _labels(places), strict=True):
        found.append(Site(label, "drop", skip.node, place, 0))
    order = {layer.node: number for number, layer in enumerate(base.layers)}
    first = {site.name: _position(base, site, order) for site in found}
    return tuple(sorted(found, key=lambda site: first[site.name])), tuple(left_out)


def _position(base: Base, site: Site, order: dict[str, int]) -> int:
    if site.key == "drop":
        return min(order[name] for name in base.skip[site.target].branch if name in order)
    return order[base.layer[site.target].node]


def _kernels(base: Base, left_out: list[LeftOut]) -> list[Layer]:
    """Convolutions whose kernel may change, since they keep the map's size (divided by the stride)."""
    found = []
    for layer in base.layers:
        if layer.kind != "conv" or pair(base.part(layer.path)["kernel_size"]) == (1, 1):
            continue
        why = _not_same(base.part(layer.path), layer)
        if why:
            left_out.append(LeftOut(layer.path, "kernel", why))
        else:
            found.append(layer)
    return found


def _not_same(part: Part, layer: Layer) -> str:
    arguments = part.arguments
    kernel, dilation = pair(part["kernel_size"]), pair(arguments.get("dilation", 1))
    if kernel[0] != kernel[1] or dilation[0] != dilation[1]:
        return f"its kernel is {kernel[0]}x{kernel[1]}"
    if kernel[0] % 2 == 0:
        return f"its kernel is even ({kernel[0]})"
    if arguments.get("padding_mode", "zeros") != "zeros":
        return f"its padding is {arguments['padding_mode']}"
    padding = arguments.get("padding", 0)
    if layer.pad is None and (isinstance(padding, str) or pair(padding) != (dilation[0] * (kernel[0] - 1) // 2,) * 2):
        return f"its padding ({padding}) does not keep the map's size"
    if layer.pad is not None and pair(padding) != (0, 0):
        return "it is padded twice"
    return ""


def _widths(base: Base, left_out: list[LeftOut]) -> Iterator[tuple[Layer, int]]:
    """The first layer that writes each group whose size may change, and the group."""
    for number, group in enumerate(base.groups):
        writers = [layer for layer in base.of_group[number] if _writes(layer, number)]
        readers = [layer for layer in base.of_group[number] if _reads(layer, number)]
        if not writers:
            continue
        why = (
            group.frozen
            or (group.tied and "an addition ties them to others")
            or (group.squeeze and "a gate's own width")
        )
        why = why or (not readers and "no layer reads them")
        if why:
            left_out.append(LeftOut(writers[0].path, "width", str(why)))
        else:
            yield writers[0], number


def _writes(layer: Layer, group: int) -> bool:
    own = layer.kind in ("conv", "linear") and not layer.depthwise
    return own and any(each.group == group for each in layer.outs)


def _reads(layer: Layer, group: int) -> bool:
    own = layer.kind in ("conv", "linear") and not layer.depthwise
    return own and any(each.group == group for each in layer.ins)


def readers(base: Base, group: int) -> list[Layer]:
    """The layers that mix the channels of a group into others."""
    return [layer for layer in base.of_group[group] if _reads(layer, group)]


def _place(base: Base, branch: Sequence[str]) -> str:
    """What the user calls a residual branch: the beginning that the paths of its layers share."""
    paths = [layer.path.split(".") for layer in base.layers if layer.node in set(branch)]
    shared: list[str] = []
    for words in zip(*paths, strict=False):
        if len(set(words)) > 1:
            break
        shared.append(words[0])
    return ".".join(shared) or ".".join(paths[0])


def _labels(paths: Sequence[str]) -> list[str]:
    """A short label for each path: `features.4.block.1.0` is f4 where no other begins so, or else f4.b1."""
    words = [path.split(".") for path in paths]
    brief = [[_brief(word) for word in each] for each in words]
    alike = [number for number, each in enumerate(brief) if brief.count(each) > 1]
    for number in alike:
        brief[number][-1] = words[number][-1].replace("-", "_")
    found: list[str] = []
    for number, own in enumerate(brief):
        others = [other for place, other in enumerate(brief) if place != number]
        short = (_joined(own[: _with_number(own, count)]) for count in range(1, len(own)))
        found.append(next((label for label in short if _is_alone(label, others)), _joined(own)))
    return [label if found.count(label) == 1 else f"{label}_{number}" for number, label in enumerate(found)]


def _with_number(words: list[str], count: int) -> int:
    """So many words, and the number behind the last of them where it has one: f4 rather than f."""
    return count + (count < len(words) and words[count].isdigit() and not words[count - 1].isdigit())


def _is_alone(label: str, others: list[list[str]]) -> bool:
    """Whether no other path begins with the label."""
    return not any(_joined(other[:count]) == label for other in others for count in range(1, len(other) + 1))


def _brief(word: str) -> str:
    letters, digits = re.fullmatch(r"(.*?)(\d*)", word).groups()  # type: ignore[union-attr]
    initials = "".join(part[:1] for part in re.split(r"[_\W]+", letters) if part)
    return f"{initials.lower()}{digits}"


def _joined(words: Iterable[str]) -> str:
    """Words with dots, a number right behind its word: f4.b1."""
    text = ""
    for word in words:
        text += word if word[:1].isdigit() and text and not text[-1].isdigit() else f".{word}" if text else word
    return text
