"""A trained supernet: a folder with the weights of a whole space, from which each of its networks can start."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from nas.common.errors import InputError
from nas.common.files import SCHEMA_VERSION, is_newer, load_tensors
from nas.common.problems import allowed
from nas.common.yaml_file import UNREADABLE, parse_yaml
from nas.latency.lease import DeviceLease
from nas.models.build import build
from nas.models.elastic import Elastic, Sharing
from nas.models.inherit import recalibrate
from nas.models.networks import Inheritance, State, state_fingerprint
from nas.models.sources import SCRATCH
from nas.spaces.base import Choice, Space
from nas.spaces.mobile.architecture import Architecture
from nas.spaces.mobile.space import SearchSpace

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class SupernetInfo:
    """What supernet.yaml says to whoever inherits from it.

    `mean` and `std` are the normalisation that it was trained with. The licences are what is known of those of the weights
    that it began with, `init`, and of its data. `outputs` is how many values its networks give; None is one a class.
    `distinct` says whether an image is in one split only, which older trainings did not see to. `allow_seen_images` that `init` may have
    seen images that score.
    """

    space: SearchSpace
    data: str
    data_fingerprint: str
    split_seed: int
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    init: str = SCRATCH
    init_fingerprint: str | None = None
    init_licence: str | None = None
    data_licence: str | None = None
    sharing: Sharing = field(default_factory=Sharing)
    task: str = "classification"
    outputs: int | None = None
    distinct: bool = False
    allow_seen_images: bool = False
    schema: int = SCHEMA_VERSION

    @property
    def num_outputs(self) -> int:
        """How many values its networks give for an image."""
        return len(self.classes) if self.outputs is None else self.outputs


_INFO = TypeAdapter(SupernetInfo)


@dataclass(frozen=True)
class Supernet:
    """Shared weights of a space, to inherit from; `mean` and `std` are the normalisation that they were trained with."""

    name: str
    space: SearchSpace
    sharing: Sharing
    state: State
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of the weights and what they mean, wherever they lie."""
        meaning = (self.space.model_dump_json(), self.sharing, self.num_classes, self.mean, self.std)
        return state_fingerprint(repr(meaning), self.state)

    def check_fits(self, space: Space) -> None:
        """Raise `InputError` unless the supernet contains the space."""
        if not isinstance(space, SearchSpace):
            raise InputError(
                f"the supernet {self.name} is of mobile networks, and the space {space.name} of {space.family}"
            )
        for values in _each_choice(space):
            self.space.locate(space.architecture(values))

    def inherit(self, architecture: Architecture, num_classes: int, seed: int = 0) -> Inheritance:
        """Initial weights of a candidate, whose batch norm has to be recalibrated.

        For another number of classes the classifier keeps its seeded random values. Raises `InputError` where the
        supernet's space does not contain the candidate.
        """
        state = self._elastic.extract_subnet(architecture)
        if num_classes == self.num_classes:
            return Inheritance(state, (), changed=True, inherited=len(architecture.layers))
        fresh = build(architecture, num_classes, seed).state_dict()
        state |= {name: tensor for name, tensor in fresh.items() if name.startswith("classifier.")}
        return Inheritance(state, ("classifier",), changed=True, inherited=len(architecture.layers))

    def refit(
        self,
        network: nn.Module,
        architecture: Architecture,
        batches: Sequence[torch.Tensor],
        lease: DeviceLease | None = None,
    ) -> None:
        """Recalibrate batch norm on batches (N, C, H, W), in place: a supernet has no statistics of a candidate."""
        recalibrate(network, batches, lease)

    def __getstate__(self) -> dict[str, Any]:
        """Without what was worked out from it, which a worker can work out for itself."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @functools.cached_property
    def _elastic(self) -> Elastic:
        network = Elastic(self.space, self.num_classes, sharing=self.sharing)
        network.load_state_dict(dict(self.state))
        return network


def _each_choice(space: SearchSpace) -> Iterator[dict[str, Choice]]:
    """Networks that together hold every choice of every parameter: what contains them contains the space."""
    largest = space.locate(space.largest)
    for name, choices in space.parameters.items():
        for choice in choices:
            yield {**largest, name: choice}


def load_supernet(folder: Path) -> Supernet:
    """The supernet in a folder; raises `InputError` when there is none, or its training has not come to its end."""
    file = read_info(folder)
    path = folder / "weights.safetensors"
    if not path.is_file():
        raise InputError(f"{folder}: its training has not come to its end; the same nas supernet train goes on")
    tensors = load_tensors(path)
    shapes = {
        name: tensor.shape
        for name, tensor in Elastic(file.space, file.num_outputs, sharing=file.sharing).state_dict().items()
    }
    if {name: tensor.shape for name, tensor in tensors.items()} != shapes:
        raise InputError(f"{path}: does not hold the weights of the space in supernet.yaml")
    ordered = {name: tensors[name] for name in shapes}  # safetensors sorts by name
    return Supernet(str(folder), file.space, file.sharing, ordered, file.num_outputs, file.mean, file.std)


def read_info(folder: Path) -> SupernetInfo:
    """What supernet.yaml of a folder says to whoever inherits from it; raises `InputError`."""
    return read_as(_INFO, folder)


def read_as(kind: TypeAdapter[_T], folder: Path) -> _T:
    """supernet.yaml of a folder; raises `InputError`."""
    path = folder / "supernet.yaml"
    try:
        data = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{folder}: no folder that nas supernet train made") from error
    except UNREADABLE as error:
        raise InputError(f"{path}: not valid YAML") from error
    if is_newer(data):
        raise InputError(f"{path}: written by a newer version of nas")
    try:
        return kind.validate_python(data)
    except ValidationError as error:
        problem = error.errors()[0]
        raise InputError(f"{path}: {'.'.join(map(str, problem['loc']))}: {allowed(problem)}") from error
