"""Which parts of a network are trained, and when."""

from __future__ import annotations

from torch import nn

from nas.common.errors import CandidateError
from nas.models.blocks import InvertedResidual, Network


def parts_of(network: nn.Module) -> list[list[nn.Module]]:
    """Stem, stages and head with classifier, front to back; raises `CandidateError` for a network of another kind."""
    if not isinstance(network, Network):
        raise CandidateError(f"{type(network).__name__} has no stages to freeze; use trainable all")
    parts: list[list[nn.Module]] = [[network.stem]]
    for block in network.blocks:
        assert isinstance(block, InvertedResidual)
        if len(parts) == 1 or not block.residual:
            parts.append([])
        parts[-1].append(block)
    return [*parts, [network.head, network.classifier]]


class Freezing:
    """Keeps the front of a network frozen as the policy says (`Recipe.trainable`); call `train` before each step."""

    def __init__(self, network: nn.Module, policy: str) -> None:
        self._network = network
        self._policy = policy
        self._parts = [] if policy == "all" else parts_of(network)
        self._open = -1

    def train(self, progress: float) -> None:
        """Training mode for what is trained at this share (0 to 1) of the training, evaluation mode for the rest."""
        count = self._trained_parts(progress)
        if count == self._open and self._network.training:
            return
        self._open = count
        self._network.train()
        for index, part in enumerate(reversed(self._parts)):
            for module in part:
                module.train(index < count)
                module.requires_grad_(index < count)

    def _trained_parts(self, progress: float) -> int:
        if self._policy == "gradual":
            return 1 + int(2 * progress * len(self._parts))
        _, _, stages = self._policy.partition("+")
        return 1 + int(stages or 0)
