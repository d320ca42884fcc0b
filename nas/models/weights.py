"""What a candidate inherits, by one word: `scratch`, a backbone's name, an exported folder, that of a space around somebody's
network, or `supernet:FOLDER`.

Two things: a `Source` is what the word means, and says all that can be said without loading weights, or torch; `Weights` are
what it loads, and go to the workers that need them.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from nas.common.errors import InputError, arg
from nas.common.jsonl import parse_json
from nas.latency.lease import DeviceLease
from nas.models.licences import NAMED, trained_on
from nas.models.sources import BACKBONES, SCRATCH, SUPERNET
from nas.spaces.base import Space
from nas.spaces.graph.folder import is_space_folder, read_space_folder

if TYPE_CHECKING:
    import torch
    from torch import nn

    from nas.models.networks import Inheritance


class Weights(Protocol):
    """Weights to inherit from, for candidates of a family; what is random has no normalisation and no fingerprint."""

    @property
    def name(self) -> str:
        """The word that names them."""

    @property
    def mean(self) -> tuple[float, ...] | None:
        """Of a channel of the images that they were trained on."""

    @property
    def std(self) -> tuple[float, ...] | None:
        """The standard deviation of the same."""

    def fingerprint(self) -> str | None:
        """Sixteen hexadecimal digits of the weights and what they mean, wherever they lie."""

    def check_fits(self, space: Space) -> None:
        """Raise `InputError` unless candidates of the space can inherit from them."""

    def inherit(self, architecture: Any, num_classes: int, seed: int = 0) -> Inheritance | None:
        """Initial weights of a candidate; None where it keeps its own random ones."""

    def refit(
        self, network: nn.Module, architecture: Any, batches: Sequence[torch.Tensor], lease: DeviceLease | None = None
    ) -> None:
        """Fit what an inheritance left changed to calibration images (N, C, H, W), in place: batch norm at least."""


@dataclass(frozen=True)
class Scratch:
    """Random weights, for each candidate its own."""

    name: str = SCRATCH
    mean: None = None
    std: None = None

    def fingerprint(self) -> None:
        """There is none: each candidate's differ."""

    def check_fits(self, space: Space) -> None:
        """Any space will do."""

    def inherit(self, architecture: Any, num_classes: int, seed: int = 0) -> None:
        """Nothing is inherited."""

    def refit(self, network: Any, architecture: Any, batches: Any, lease: DeviceLease | None = None) -> None:
        """Nothing was inherited."""


@dataclass(frozen=True)
class TrainedOn:
    """What the weights of a whole space were trained on: its networks can be scored without a training of their own."""

    folder: Path
    space: Space
    data: str
    split_seed: int
    classes: tuple[str, ...]


class Source(Protocol):
    """What a word for initial weights means. Nothing here loads weights but `load`."""

    @property
    def title(self) -> str:
        """What to call it in a sentence."""

    @property
    def short(self) -> str:
        """The word, a folder by its last part alone."""

    @property
    def folder(self) -> Path | None:
        """Where the weights lie, if that is a folder of ours."""

    def absolute(self) -> str:
        """The word as it means the same in any working directory, such as that of a worker."""

    def licence(self) -> str:
        """What is known of the licence of the weights, in whole sentences; of a folder what it says of its own.

        A run records it when it begins: the folder may be gone, or another one, when somebody asks.
        """

    def trained_on(self) -> TrainedOn | None:
        """None where a candidate has to be trained; raises `InputError` where a folder is not what its word says."""

    def load(self) -> Weights:
        """The weights; raises `InputError` where there are none, or they are not right."""


@dataclass(frozen=True)
class _Named:
    """`scratch`, or a backbone by its name."""

    name: str

    @property
    def title(self) -> str:
        return self.name

    @property
    def short(self) -> str:
        return self.name

    @property
    def folder(self) -> None:
        return None

    def absolute(self) -> str:
        return self.name

    def licence(self) -> str:
        return NAMED[self.name]

    def trained_on(self) -> None:
        return None

    def load(self) -> Weights:
        if self.name == SCRATCH:
            return Scratch()
        from nas.models.backbones import load_backbone  # imports torch

        return load_backbone(self.name)


@dataclass(frozen=True)
class _Exported:
    """A folder that `nas export` made."""

    path: str

    @property
    def title(self) -> str:
        return self.path

    @property
    def short(self) -> str:
        return Path(self.path).name if Path(self.path).is_absolute() else self.path

    @property
    def folder(self) -> Path:
        return Path(self.path)

    def absolute(self) -> str:
        return str(Path(self.path).resolve()) if os.path.isdir(self.path) else self.path

    def licence(self) -> str:
        try:
            found = parse_json((Path(self.path) / "model.json").read_text(encoding="utf-8"))
            origin, said = found["origin"], str(found["inherited_weights"]["licence"])
            data = trained_on(str(origin["data"]), origin.get("data_licence"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return f"Inherited from {self.path}. What that inherited is not known here any more, nor its licence: look there."
        return f"Inherited from the exported folder {self.path}, {data} There: {said}"

    def trained_on(self) -> None:
        return None

    def load(self) -> Weights:
        from nas.models.backbones import load_backbone  # imports torch

        return load_backbone(self.path)


@dataclass(frozen=True)
class _SupernetFolder:
    """A folder that `nas supernet train` made."""

    path: str

    @property
    def title(self) -> str:
        return f"the supernet {Path(self.path)}"

    @property
    def short(self) -> str:
        return f"{SUPERNET}{Path(self.path).name if Path(self.path).is_absolute() else self.path}"

    @property
    def folder(self) -> Path:
        return Path(self.path)

    def absolute(self) -> str:
        return f"{SUPERNET}{Path(self.path).resolve()}"

    def licence(self) -> str:
        from nas.models.supernet import read_info  # imports torch

        try:
            file = read_info(Path(self.path))
        except InputError:
            return f"Inherited from the supernet {self.path}. What that began with is not known here any more, nor its licence."
        began = file.init_licence or licence_of(file.init)
        return f"Inherited from the supernet {self.path}, {trained_on(file.data, file.data_licence)} It began with: {began}"

    def trained_on(self) -> TrainedOn:
        from nas.models.supernet import read_info  # imports torch

        file = read_info(Path(self.path))
        return TrainedOn(Path(self.path), file.space, file.data, file.split_seed, file.classes)

    def load(self) -> Weights:
        from nas.models.supernet import load_supernet  # imports torch

        return load_supernet(Path(self.path))


@dataclass(frozen=True)
class _SpaceFolder:
    """A folder that `nas space from` made: the base of the space, a network of the user's."""

    path: str

    @property
    def title(self) -> str:
        return f"the base of {self.path}"

    @property
    def short(self) -> str:
        return Path(self.path).name if Path(self.path).is_absolute() else self.path

    @property
    def folder(self) -> Path:
        return Path(self.path)  # without a list of images: what a network of the user's has seen is not known

    def absolute(self) -> str:
        return str(Path(self.path).resolve())

    def licence(self) -> str:
        try:
            base = read_space_folder(Path(self.path)).base
        except InputError:
            return f"Inherited from {self.path}. What that was is not known here any more, nor its licence."
        return f"Inherited from {base.name} ({base.origin or 'a network of yours'}): {base.licence or 'licence not known.'}"

    def trained_on(self) -> None:
        return None

    def load(self) -> Weights:
        from nas.models.graph.make import load_base  # imports torch

        return load_base(Path(self.path))


def source_of(init: str) -> Source:
    """What a word for initial weights means; a word that is no other is taken for a folder, there or not.

    Raises `InputError` where no folder follows `supernet:`.
    """
    if init == SUPERNET:
        raise InputError(f"{arg('init')} {init}: names no folder; write {SUPERNET}FOLDER, of nas supernet train")
    if init == SCRATCH or init in BACKBONES:
        return _Named(init)
    if is_space_folder(Path(init)):
        return _SpaceFolder(init)
    return _SupernetFolder(init.removeprefix(SUPERNET)) if init.startswith(SUPERNET) else _Exported(init)


def own_weights(space: str | None) -> str:
    """The word for the weights that candidates of a space have where none are named: those of its base, or random ones."""
    return space if space is not None and is_space_folder(Path(space)) else SCRATCH


@functools.cache
def load_weights(init: str) -> Weights:
    """The weights that a word means, loaded once a process; raises `InputError` where there are none or they are not right."""
    return source_of(init).load()


def licence_of(init: str) -> str:
    """What is known of the licence of initial weights, in whole sentences (`Source.licence`)."""
    return NAMED.get(init) or source_of(init).licence()
