"""What a family of networks is: its spaces, its architectures as values, and what a network costs. No torch.

A family brings one object of the kind `Family`, by an entry point of the group `nas.spaces` (`nas.spaces.families`).
What builds its networks, and needs torch, it names as `module:name`: `nas.models.networks.Networks` says what that is.
"""

from __future__ import annotations

import itertools
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol, runtime_checkable

from pydantic import Field

if TYPE_CHECKING:
    import optuna

    from nas.common.yaml_file import Lines

Choice = int | float | bool
"""A value that a parameter can have."""
Values = Mapping[str, Choice]
"""A value for every parameter of a space."""

_ENUMERABLE = 20_000


Count = Annotated[int, Field(le=2**63)]
"""A number of something, of which files may hold no more than any machine has."""


@dataclass(frozen=True)
class Cost:
    """Multiply-adds for one image, parameters, and bytes of memory in float32; None where they are not known.

    `size_bytes` is the weights as stored, batch norm and its statistics among them; `peak_activation_bytes` the most
    that is alive of one image and its activations at one time, batch norm folded.
    """

    macs: Count
    params: Count
    size_bytes: Count | None = None
    peak_activation_bytes: Count | None = None


@dataclass(frozen=True)
class LayerRow:
    """One layer of a network, as a row of its table, the classifier last; sizes are sides of maps in pixels.

    `kind` is a word of the family's, `text` what was chosen for the layer in short, `details` in full. `receptive_field`
    is the side in input pixels that one output depends on, as far as the image reaches beyond it too; None where the family
    does not say. `share` is that of the network's multiply-adds.
    """

    name: str
    kind: str
    text: str
    details: str
    in_channels: int
    out_channels: int
    size_in: int
    size_out: int
    macs: int
    params: int
    share: float
    receptive_field: int | None = None


class Architecture(Protocol):
    """One network as a frozen value, but for the number of classes, which the data set decides."""

    @property
    def family(self) -> str:
        """The name by which `nas.spaces.families` finds its family."""

    @property
    def canonical(self) -> Architecture:
        """The same function with everything that cannot change it normalised away."""

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits, equal for equal canonical forms and for no others, of any family."""

    def __hash__(self) -> int:
        """As of any frozen value: what is worked out from it is remembered by it."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of an image that the network takes."""

    @property
    def input_size(self) -> int:
        """The side to which images are resized."""

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that the family reads back; `kind` there is the family's name (without one: mobile)."""


@dataclass(frozen=True)
class Slot:
    """What a parameter decides: the `key` of a layer, of a stage where `layer` is None, or of the whole network.

    `layer` counts within its stage; `optional` is a layer that some networks of the space lack.
    """

    key: str
    stage: int | None = None
    layer: int | None = None
    optional: bool = False


class Space(ABC):
    """A search space: a fixed set of categorical parameters, and the network that each setting of them describes.

    Parameters that decide nothing under a setting (kernel sizes of layers beyond the chosen depth) are there all the same, so
    that every sampler sees one fixed space. `data` is the data set used where none is given.
    """

    family: ClassVar[str]
    name: str
    summary: str
    data: str | None

    # ---------------------------------------------------------------- what each family says

    @property
    @abstractmethod
    def parameters(self) -> Mapping[str, tuple[Choice, ...]]:
        """The parameters of the search: name to choices, two or more each, in a fixed order."""

    @property
    @abstractmethod
    def input_channels(self) -> int:
        """Channels of the images."""

    @property
    @abstractmethod
    def input_sizes(self) -> tuple[int, ...]:
        """The sides in pixels that images may be resized to."""

    @abstractmethod
    def architecture(self, values: Values) -> Architecture:
        """The network that a setting of the parameters describes; raises `InputError` for a value outside its choices."""

    @abstractmethod
    def locate(self, architecture: Any) -> dict[str, Choice]:
        """Parameter values that describe an architecture, inactive ones at their first choice.

        Raises `InputError` when the space does not contain it, under any spelling.
        """

    @abstractmethod
    def parse(self, text: str) -> Architecture:
        """Read what `str` makes of an architecture and check that the space contains it; raises `InputError`."""

    @property
    @abstractmethod
    def smallest(self) -> Architecture:
        """The cheapest choice everywhere, in MACs."""

    @property
    @abstractmethod
    def largest(self) -> Architecture:
        """The most expensive choice everywhere."""

    @property
    @abstractmethod
    def backbone(self) -> Architecture:
        """The reference network that the space varies."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that the family reads back; `family` there is its name (without one: mobile)."""

    # ---------------------------------------------------------------- what a family may say better

    @property
    def references(self) -> Mapping[str, Architecture]:
        """Networks that the space is shown by, by the names that users give them."""
        return {"smallest": self.smallest, "backbone": self.backbone, "largest": self.largest}

    @property
    def size(self) -> int:
        """Number of different networks: canonical forms, each counted once; at most as many as there are settings."""
        return self.raw_size

    @property
    def slots(self) -> Mapping[str, tuple[Choice, ...]]:
        """The parameters, and what the space fixes (a single choice)."""
        return self.parameters

    def slot(self, name: str) -> Slot:
        """What a parameter decides, or anything else of `slots`."""
        return Slot(name)

    def is_active(self, name: str, values: Values) -> bool:
        """Whether a parameter decides anything under these values."""
        return True

    def choice_word(self, name: str, choice: Choice) -> str:
        """A choice of one of the `slots` in short: `k3`, `fused`."""
        return f"{self.slot(name).key} {choice:g}"

    @property
    def layer_legend(self) -> str:
        """What the texts of `LayerRow` mean, in a sentence and a blank; may be empty."""
        return ""

    def choices_table(self) -> list[list[str]]:
        """Every choice as a table of texts, its headings first."""
        return [["", "choices"], *([name, choices_text(choices)] for name, choices in self.slots.items())]

    @property
    def remarks(self) -> Sequence[str]:
        """What else is to be known of the choices, in sentences."""
        return ()

    # ---------------------------------------------------------------- what follows from it

    @property
    def raw_size(self) -> int:
        """Number of parameter settings, spellings of one network counted apart."""
        return math.prod(len(choices) for choices in self.parameters.values())

    def encode(self, values: Values) -> tuple[int, ...]:
        """Choice indices, one a parameter, in the order of `parameters`."""
        return tuple(choices.index(values[name]) for name, choices in self.parameters.items())

    def encode_canonical(self, architecture: Architecture) -> tuple[int, ...]:
        """Choice indices of an architecture, equal for all spellings of it.

        A parameter of a layer that is not there has an index of its own, one more than its last choice. Raises
        `InputError` when the space does not contain the architecture.
        """
        values = self.locate(architecture)
        return tuple(
            choices.index(values[name])
            if self.slot(name).layer is None or self.is_active(name, values)
            else len(choices)
            for name, choices in self.parameters.items()
        )

    def decode(self, indices: Sequence[int]) -> dict[str, Choice]:
        """The inverse of `encode`."""
        return {name: choices[index] for (name, choices), index in zip(self.parameters.items(), indices, strict=True)}

    def suggest(self, trial: optuna.trial.BaseTrial) -> Architecture:
        """Ask an Optuna trial for every parameter."""
        values = {name: trial.suggest_categorical(name, choices) for name, choices in self.parameters.items()}
        return self.architecture(values)

    def sample(self, rng: random.Random) -> dict[str, Choice]:
        """A uniformly drawn setting of the parameters."""
        return {name: rng.choice(choices) for name, choices in self.parameters.items()}

    def mutate(self, values: Values, rng: random.Random, changes: int = 1) -> dict[str, Choice]:
        """A copy in which `changes` parameters take another of their values."""
        mutant = dict(values)
        for name in rng.sample(list(self.parameters), min(changes, len(self.parameters))):
            mutant[name] = rng.choice([choice for choice in self.parameters[name] if choice != values[name]])
        return mutant

    def all_values(self) -> Iterator[dict[str, Choice]]:
        """Every setting of the parameters, in a fixed order."""
        for choice in itertools.product(*self.parameters.values()):
            yield dict(zip(self.parameters, choice, strict=True))

    def unseen(
        self,
        known: Container[str],
        rng: random.Random,
        draw: Callable[[random.Random], dict[str, Choice]] | None = None,
        allowed: Callable[[Values], bool] = lambda values: True,
    ) -> dict[str, Choice] | None:
        """A random setting whose digest is not in `known`, or None when none was found.

        Spaces of up to 20,000 settings are searched in full for one that is `allowed`; of larger ones 2,000 are drawn, by
        `draw` where it is given.
        """
        for _ in range(2_000):
            values = (draw or self.sample)(rng)
            if self.architecture(values).digest not in known:
                return values
        if self.raw_size <= _ENUMERABLE:
            for values in self.all_values():
                if allowed(values) and self.architecture(values).digest not in known:
                    return values
        return None


def choices_text(choices: Sequence[Choice]) -> str:
    """Choices as people read them."""
    return " ".join({True: "yes", False: "no"}[c] if isinstance(c, bool) else f"{c}" for c in choices)


@runtime_checkable
class Family(Protocol):
    """A family of networks; `networks` names, as `module:name`, what builds them (`nas.models.networks.Networks`)."""

    @property
    def networks(self) -> str:
        """`module:name`; the module is imported where a network is built, and nowhere else."""

    def space(self, data: dict[str, Any], source: str, lines: Lines | None = None) -> Space:
        """A space from what its file or a run says; `source` names it in errors, `lines` gives the line of each key.

        Raises `InputError` with all that is wrong, a line each.
        """

    def architecture(self, data: dict[str, Any]) -> Architecture:
        """Read what `to_json` wrote; raises `InputError`."""

    def cost(self, architecture: Any, num_classes: int) -> Cost:
        """Cost in closed form, without building the network (microseconds, for samplers and space statistics).

        Peak activations, which have no such form, are left out.
        """

    def layer_rows(self, architecture: Any, num_classes: int) -> list[LayerRow]:
        """The layers of the canonical form, from the image on; their costs add up to the network's."""
