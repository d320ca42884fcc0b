"""The search space: which choices there are, and how a set of choices becomes an `Architecture`.

A space is a fixed set of categorical parameters, inactive ones included (kernel sizes of layers beyond the
chosen depth), so that every sampler sees one fixed space. What is inactive never reaches the architecture.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from nas.common.errors import InputError
from nas.spaces.base import Choice, Slot, Space, Values, choices_text
from nas.spaces.mobile.architecture import (
    Activation,
    Architecture,
    LayerShape,
    LayerSpec,
    StemSpec,
    canonical_layer,
    canonical_stem,
    parse_architecture,
)
from nas.spaces.mobile.geometry import Padding, output_size
from nas.spaces.mobile.sections import (
    LAYER_KEYS,
    STAGE_KEYS,
    HeadWidths,
    InputSpace,
    Section,
    StageSpace,
    StemSpace,
    is_among,
    plain_name,
    raise_all,
    unchosen,
)

_LETTERS = {"kernel_size": "k", "dilation": "d", "expansion": "e"}


class SearchSpace(Section, Space):
    """A search space of mobile networks, as written in its YAML file.

    Every field but the name, the padding, the activation and `norm_eps` takes one value or a list of choices.
    `backbone`, at the top and in a stage, names the choices of the reference network (the middle one where it is
    silent).
    `data` is the data set used where none is given.
    """

    family: ClassVar[str] = "mobile"

    name: Annotated[
        str,
        Field(max_length=60, description="a name of at most 60 lower-case letters, digits, - and _"),
        AfterValidator(plain_name),
    ]
    summary: Annotated[str, Field(description="text")] = ""
    data: Annotated[str | None, Field(description="the name or path of a data set")] = None
    input: InputSpace
    stem: StemSpace
    stages: Annotated[tuple[StageSpace, ...], Field(min_length=1, max_length=16)]
    head_channels: HeadWidths = (0,)
    padding: Padding = "symmetric"
    activation: Activation = "relu6"
    norm_eps: Annotated[float, Field(gt=0, le=0.1, description="a number above 0 and up to 0.1")] = 1e-5
    backbone_input: dict[str, Choice] = Field(default={}, alias="backbone")

    @model_validator(mode="after")
    def _keys_agree(self) -> SearchSpace:
        raise_all((*unchosen(self.backbone_input, self._marked), *self._without_layers(), *self._strides_too_many()))
        return self

    @property
    def _marked(self) -> dict[str, tuple[Choice, ...]]:
        """The slots of which `backbone` at the top names the choice."""
        return {name: choices for name, choices in self._slots.items() if self.slot(name).stage is None}

    def _without_layers(self) -> Iterator[str]:
        if all(min(stage.depth) == 0 for stage in self.stages):
            yield "stages: every stage may have depth 0, which leaves a network without layers"

    def _strides_too_many(self) -> Iterator[str]:
        size = output_size(min(self.input.size), max(self.stem.stride))
        for index, stage in enumerate(self.stages):
            stride = max(stage.stride)
            if stride > 1 and size == 1:
                yield (
                    f"stages.{index}.stride: a stride of {stride} on a 1x1 feature map "
                    f"(the input of {min(self.input.size)} pixels is used up by the strides before it)"
                )
            size = output_size(size, stride)

    @property
    def input_channels(self) -> int:
        return self.input.channels

    @property
    def input_sizes(self) -> tuple[int, ...]:
        return self.input.size

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json", by_alias=True)

    # ---------------------------------------------------------------- parameters

    @property
    def slots(self) -> Mapping[str, tuple[Choice, ...]]:
        """Every slot of the template with its choices, those with a single choice included."""
        return self._slots

    @cached_property
    def _slots(self) -> dict[str, tuple[Choice, ...]]:
        """Every slot of the template with its choices, those with a single choice included."""
        slots: dict[str, tuple[Choice, ...]] = {
            "input_size": self.input.size,
            "stem.kernel_size": self.stem.kernel_size,
            "stem.stride": self.stem.stride,
            "stem.out_channels": self.stem.out_channels,
            "head_channels": self.head_channels,
        }
        for i, stage in enumerate(self.stages):
            slots |= {f"s{i}.{key}": getattr(stage, key) for key in STAGE_KEYS}
            for j in range(max(stage.depth)):
                slots |= {f"s{i}.l{j}.{key}": getattr(stage, key) for key in LAYER_KEYS}
        return slots

    @cached_property
    def parameters(self) -> dict[str, tuple[Choice, ...]]:
        """The parameters of the search: name to choices, in a fixed order."""
        return {name: choices for name, choices in self._slots.items() if len(choices) > 1}

    @cached_property
    def _fixed(self) -> dict[str, Choice]:
        """The slots that have no choice, with their values."""
        return {name: choices[0] for name, choices in self._slots.items() if len(choices) == 1}

    @cached_property
    def _stage_slots(self) -> list[tuple[list[str], list[list[str]]]]:
        """Of each stage the names of its slots for depth, channels and stride, and of those of each of its layers."""
        return [
            (
                [f"s{i}.{key}" for key in STAGE_KEYS],
                [[f"s{i}.l{j}.{key}" for key in LAYER_KEYS] for j in range(max(stage.depth))],
            )
            for i, stage in enumerate(self.stages)
        ]

    @cached_property
    def size(self) -> int:
        """Number of different networks: canonical forms, each counted once.

        Exact unless two neighbouring stages agree in channels and stride, where a layer may count to either.
        """
        paths: dict[tuple[int, int], int] = {}  # (side, channels) after the layers so far -> networks
        for size, stride, channels in itertools.product(self.input.size, self.stem.stride, self.stem.out_channels):
            stems = {
                canonical_stem(StemSpec(kernel, stride, channels), size, self.padding)
                for kernel in self.stem.kernel_size
            }
            key = (output_size(size, stride), channels)
            paths[key] = paths.get(key, 0) + len(stems)
        for i, stage in enumerate(self.stages):
            after: dict[tuple[int, int], int] = {}
            for (side, channels), count in paths.items():
                if 0 in stage.depth:
                    after[side, channels] = after.get((side, channels), 0) + count
                for width, stride in itertools.product(stage.out_channels, stage.stride):
                    first = len(self._distinct_layers(i, LayerShape(channels, side), width, stride))
                    end = output_size(side, stride)
                    rest = len(self._distinct_layers(i, LayerShape(width, end), width, 1))
                    networks = count * sum(first * rest ** (depth - 1) for depth in stage.depth if depth)
                    after[end, width] = after.get((end, width), 0) + networks
            paths = after
        return sum(paths.values()) * len(self.head_channels)

    def _distinct_layers(
        self, stage: int, shape: LayerShape, out_channels: int, stride: int
    ) -> dict[LayerSpec, tuple[Any, ...]]:
        """Canonical layers that a stage offers on a map of the given shape, each with one spelling of it."""
        key = (stage, shape, out_channels, stride)
        if key not in self._offered:
            layers = {}
            for choice in itertools.product(*(getattr(self.stages[stage], name) for name in LAYER_KEYS)):
                chosen: dict[str, Any] = dict(zip(LAYER_KEYS, choice, strict=True))
                layer = LayerSpec(**chosen, out_channels=out_channels, stride=stride)
                layers[canonical_layer(layer, shape, self.padding)] = choice
            self._offered[key] = layers
        return self._offered[key]

    @cached_property
    def _offered(self) -> dict[tuple[int, LayerShape, int, int], dict[LayerSpec, tuple[Any, ...]]]:
        return {}

    # ---------------------------------------------------------------- values to architectures and back

    def architecture(self, values: Values) -> Architecture:
        """The network (not yet canonical) that a setting of the parameters describes.

        Raises `InputError` when a parameter is missing or has a value outside its choices.
        """
        slot: dict[str, Any] = dict(self._fixed)
        for name, choices in self.parameters.items():
            slot[name] = value = values.get(name)
            if not is_among(value, choices):
                raise InputError(f"parameter {name} is {value}; space {self.name} allows {list(choices)}")
        layers = []
        for (depth, out_channels, stride), own in self._stage_slots:
            width = slot[out_channels]
            for j in range(slot[depth]):
                kernel_size, dilation, expansion, separable = map(slot.__getitem__, own[j])
                layers.append(
                    LayerSpec(kernel_size, dilation, expansion, separable, width, slot[stride] if j == 0 else 1)
                )
        stem = StemSpec(slot["stem.kernel_size"], slot["stem.stride"], slot["stem.out_channels"])
        return Architecture(
            input_channels=self.input.channels,
            input_size=slot["input_size"],
            stem=stem,
            layers=tuple(layers),
            head_channels=slot["head_channels"],
            padding=self.padding,
            activation=self.activation,
            norm_eps=self.norm_eps,
        )

    def locate(self, architecture: Architecture) -> dict[str, Choice]:
        """Parameter values that describe an architecture, inactive ones at their first choice.

        Raises `InputError` when the space does not contain it, under any spelling.
        """
        if not isinstance(architecture, Architecture):  # of another family
            raise InputError(f"architecture {architecture} is not in the space {self.name}")
        target = architecture.canonical
        values: dict[str, Choice] = {name: choices[0] for name, choices in self._slots.items()}
        values |= {
            "input_size": target.input_size,
            "stem.kernel_size": target.stem.kernel_size,
            "stem.stride": target.stem.stride,
            "stem.out_channels": target.stem.out_channels,
            "head_channels": target.head_channels,
        }
        for kernel_size in self.stem.kernel_size:
            longer = replace(target.stem, kernel_size=kernel_size)
            if canonical_stem(longer, target.input_size, self.padding) == target.stem:
                values["stem.kernel_size"] = kernel_size
        shapes = list(target.shapes())

        def fill(i: int, position: int) -> bool:
            if i == len(self.stages):
                return position == len(shapes)
            stage = self.stages[i]
            for depth in stage.depth:
                if depth == 0:
                    values[f"s{i}.depth"] = 0
                    if fill(i + 1, position):
                        return True
                    continue
                layers = shapes[position : position + depth]
                if len(layers) < depth:
                    continue
                width, stride = layers[0][0].out_channels, layers[0][0].stride
                if width not in stage.out_channels or stride not in stage.stride:
                    continue
                found: dict[str, Choice] = {"depth": depth, "out_channels": width, "stride": stride}
                for j, (layer, shape) in enumerate(layers):
                    offered = self._distinct_layers(i, shape, width, stride if j == 0 else 1)
                    choice = offered.get(layer)
                    if choice is None:
                        break
                    found |= {f"l{j}.{key}": value for key, value in zip(LAYER_KEYS, choice, strict=True)}
                else:
                    if fill(i + 1, position + depth):
                        values.update({f"s{i}.{key}": value for key, value in found.items()})
                        return True
            return False

        if fill(0, 0):
            values = {name: values[name] for name in self.parameters}
            try:
                if self.architecture(values).canonical == target:
                    return values
            except InputError:
                pass
        raise InputError(f"architecture {architecture} is not in the space {self.name}")

    def parse(self, text: str) -> Architecture:
        """Read a compact string and check that the space contains it; raises `InputError`."""
        architecture = parse_architecture(text, like=self.smallest)
        self.locate(architecture)
        return architecture

    # ---------------------------------------------------------------- what a parameter means

    def slot(self, name: str) -> Slot:
        """Depth, channels and stride are those of a stage; all else that has a stage is of one of its layers."""
        return self._meaning.get(name, Slot(name))

    @cached_property
    def _meaning(self) -> dict[str, Slot]:
        found = {name: Slot(name) for name in self._slots}
        for i, (stage, (of_stage, of_layers)) in enumerate(zip(self.stages, self._stage_slots, strict=True)):
            found |= {name: Slot(key, i) for name, key in zip(of_stage, STAGE_KEYS, strict=True)}
            for j, names in enumerate(of_layers):
                optional = j >= min(stage.depth)
                found |= {name: Slot(key, i, j, optional) for name, key in zip(names, LAYER_KEYS, strict=True)}
        return found

    def is_active(self, name: str, values: Values) -> bool:
        """Whether the stage has the parameter's layer; channels and stride of a stage that is left out decide nothing."""
        slot = self.slot(name)
        if slot.stage is None or slot.key == "depth":
            return True
        return self._depth(slot.stage, values) > (slot.layer or 0)

    def choice_word(self, name: str, choice: Choice) -> str:
        """As compact strings have it (k3, d2, e4); separable layers and fused ones by these words."""
        key = self.slot(name).key
        if key == "separable":
            return "separable" if choice else "fused"
        return f"{_LETTERS.get(key, f'{key} ')}{choice:g}"

    @property
    def layer_legend(self) -> str:
        return "k is the kernel size, d the dilation, e the expansion, / the stride. "

    def choices_table(self) -> list[list[str]]:
        """A row a stage."""
        keys = (*STAGE_KEYS, *LAYER_KEYS)
        stem = [choices_text(each) for each in (self.stem.out_channels, self.stem.stride, self.stem.kernel_size)]
        return [
            ["", "depth", "channels", "stride", "kernel size", "dilation", "expansion", "separable"],
            ["input", "", f"{self.input.channels}", "", "", "", "", ""],
            ["stem", "1", *stem, "1", "", "no"],
            *(
                [f"stage {i}", *(choices_text(getattr(stage, key)) for key in keys)]
                for i, stage in enumerate(self.stages)
            ),
            ["head", "", choices_text(self.head_channels), "", "", "", "", ""],
        ]

    def places(self, architecture: Architecture) -> list[tuple[int, int]]:
        """Of each layer of an architecture its stage in the space, and its number there. Raises `InputError`.

        Equal for all spellings: where neighbouring stages agree in channels and stride, a layer might count to either.
        """
        values = self.locate(architecture)
        return [(i, j) for i in range(len(self.stages)) for j in range(self._depth(i, values))]

    def _depth(self, stage: int, values: Values) -> int:
        return int(values.get(f"s{stage}.depth", self.stages[stage].depth[0]))

    # ---------------------------------------------------------------- reference networks

    @property
    def references(self) -> Mapping[str, Architecture]:
        """Networks that the space is shown by."""
        return {name: getattr(self, name) for name in ("smallest", "middle", "backbone", "largest")}

    def _pick(self, rule: Literal["smallest", "middle", "largest", "backbone"], dilation: int = 0) -> Architecture:
        values: dict[str, Choice] = {}
        for name, choices in self._slots.items():
            slot = self.slot(name)
            # A stride or a depthwise kernel makes a network cheaper the larger (truer) it is.
            ordered = choices[::-1] if slot.key in ("stem.stride", "stride", "separable") else choices
            values[name] = ordered[{"smallest": 0, "largest": -1}.get(rule, (len(choices) - 1) // 2)]
            if slot.key == "dilation" and rule in ("smallest", "largest"):
                values[name] = choices[dilation]
            if rule == "backbone":
                marked = self.backbone_input if slot.stage is None else self.stages[slot.stage].backbone
                values[name] = marked.get(slot.key, values[name])
        return self.architecture(values)

    @property
    def smallest(self) -> Architecture:
        """The cheapest choice everywhere, in MACs."""
        # A dilated kernel reaches beyond a small map, where its taps are dropped; where it does not, it is no cheaper.
        options = (self._pick("smallest", dilation) for dilation in (0, -1))
        return min(options, key=lambda option: sum(layer.kernel_size for layer in option.canonical.layers))

    @property
    def middle(self) -> Architecture:
        """The middle choice everywhere (the lower one of two)."""
        return self._pick("middle")

    @property
    def largest(self) -> Architecture:
        """The most expensive choice everywhere."""
        return self._pick("largest")

    @property
    def backbone(self) -> Architecture:
        """The reference network that the space varies."""
        return self._pick("backbone")
