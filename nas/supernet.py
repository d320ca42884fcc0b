"""A trained supernet: a folder with the weights of a whole space, from which each of its networks can start."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from pydantic import TypeAdapter, ValidationError

from nas.architecture import Architecture
from nas.errors import InputError
from nas.model import build
from nas.model.elastic import Elastic, Sharing
from nas.recipe import Recipe
from nas.record import SCHEMA_VERSION
from nas.run_files import is_newer, load_tensors, write_atomically, writing
from nas.settings import SCRATCH
from nas.space import SearchSpace
from nas.weights import Inheritance, State, state_fingerprint
from nas.wording import duration_text, plural

LANDMARKS = ("smallest", "backbone", "largest")
"""Networks of the space that are scored after each epoch."""


@dataclass(frozen=True)
class SupernetEpoch:
    """What an epoch gave: mean loss of the largest network, and accuracy on the validation part of the landmarks.

    `share` is how much of all planned steps was done by its end; older files lack it.
    """

    epoch: int
    train_loss: float
    accuracy: Mapping[str, float]
    seconds: float
    share: float | None = None


@dataclass(frozen=True)
class SupernetFile:
    """supernet.yaml: how a supernet is trained, and what came of it.

    `random` is the candidates drawn for each step, `devices` the processes that share each batch. The licences are what is
    known of those of the weights that it began with, and of its data.
    """

    space: SearchSpace
    data: str
    data_fingerprint: str
    split_seed: int
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    recipe: Recipe
    device: str
    init: str = SCRATCH
    init_fingerprint: str | None = None
    init_licence: str | None = None
    data_licence: str | None = None
    seed: int = 0
    random: int = 2
    devices: int = 1
    sharing: Sharing = field(default_factory=Sharing)
    history: tuple[SupernetEpoch, ...] = ()
    schema: int = SCHEMA_VERSION


_FILE = TypeAdapter(SupernetFile)


def cut_short(file: SupernetFile) -> str | None:
    """How far the training came that its budget of time ended, in words; None where it took all of its steps."""
    if file.recipe.seconds is None or not file.history:
        return None
    last = file.history[-1]
    share = last.epoch / file.recipe.epochs if last.share is None else last.share
    if share >= 1:
        return None
    planned = f"{file.recipe.steps:,} steps" if file.recipe.steps else plural(file.recipe.epochs, "epoch")
    return (
        f"its time budget of {duration_text(file.recipe.seconds)} ended the training after {100 * share:.2g} % of "
        f"{planned}"
    )


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

    def inherit(self, architecture: Architecture, num_classes: int, seed: int = 0) -> Inheritance:
        """Initial weights of a candidate, whose batch norm has to be recalibrated.

        For another number of classes the classifier keeps its seeded random values. Raises `InputError` where the
        supernet's space does not contain the candidate.
        """
        state = self._elastic.cut_out(architecture)
        if num_classes == self.num_classes:
            return Inheritance(state, (), changed=True)
        fresh = build(architecture, num_classes, seed).state_dict()
        state |= {name: tensor for name, tensor in fresh.items() if name.startswith("classifier.")}
        return Inheritance(state, ("classifier",), changed=True)

    @functools.cached_property
    def _elastic(self) -> Elastic:
        network = Elastic(self.space, self.num_classes, sharing=self.sharing)
        network.load_state_dict(dict(self.state))
        return network


def load_supernet(folder: Path) -> Supernet:
    """The supernet in a folder; raises `InputError` when there is none, or its training has not come to its end."""
    file = read_file(folder)
    path = folder / "weights.safetensors"
    if not path.is_file():
        raise InputError(f"{folder}: its training has not come to its end; the same nas supernet train goes on")
    tensors = load_tensors(path)
    shapes = {
        name: tensor.shape
        for name, tensor in Elastic(file.space, len(file.classes), sharing=file.sharing).state_dict().items()
    }
    if {name: tensor.shape for name, tensor in tensors.items()} != shapes:
        raise InputError(f"{path}: does not hold the weights of the space in supernet.yaml")
    ordered = {name: tensors[name] for name in shapes}  # safetensors sorts by name
    return Supernet(str(folder), file.space, file.sharing, ordered, len(file.classes), file.mean, file.std)


def read_file(folder: Path) -> SupernetFile:
    """supernet.yaml of a folder; raises `InputError`."""
    path = folder / "supernet.yaml"
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        if is_newer(data):
            raise InputError(f"{path}: written by a newer version of nas")
        return _FILE.validate_python(data)
    except OSError as error:
        raise InputError(f"{folder}: no folder that nas supernet train made") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{path}: not valid YAML") from error
    except ValidationError as error:
        problem = error.errors()[0]
        raise InputError(f"{path}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error
    except ValueError as error:
        raise InputError(f"{path}: not valid YAML") from error


def write_file(folder: Path, file: SupernetFile) -> None:
    """Write supernet.yaml; raises `InputError` where it cannot be written."""
    data = _FILE.dump_python(file, mode="json", by_alias=True)
    with writing(folder / "supernet.yaml"):
        write_atomically(folder / "supernet.yaml", yaml.safe_dump(data, sort_keys=False, width=120).encode())
