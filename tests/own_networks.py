"""Networks as users bring them, small: what spaces are made around in tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import StochasticDepth


class Inverted(nn.Module):
    """Pointwise, depthwise, gate, pointwise, with a shortcut where shapes allow one."""

    def __init__(self, channels: int, hidden: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.expand = nn.Conv2d(channels, hidden, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(hidden)
        self.filter = nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False)
        self.norm2 = nn.BatchNorm2d(hidden)
        self.squeeze = nn.Conv2d(hidden, 8, 1)
        self.excite = nn.Conv2d(8, hidden, 1)
        self.project = nn.Conv2d(hidden, out, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(out)
        self.drop = StochasticDepth(0.2, "row")
        self.has_shortcut = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu6(self.norm1(self.expand(x)))
        y = functional.relu6(self.norm2(self.filter(y)))
        y = y * torch.sigmoid(self.excite(functional.relu(self.squeeze(functional.adaptive_avg_pool2d(y, 1)))))
        y = self.norm3(self.project(y))
        return x + self.drop(y) if self.has_shortcut else y


class Mobile(nn.Module):
    """A stem, two inverted residuals, a classifier behind dropout that is a function."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
        self.blocks = nn.Sequential(Inverted(16, 48, 24, 2), Inverted(24, 64, 24))
        self.classifier = nn.Linear(24, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(x)).mean([2, 3])
        return self.classifier(functional.dropout(x, 0.1, training=self.training))


class Basic(nn.Module):
    """ResNet's block: the activation stands behind the addition, in place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(channels)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        y += x
        return self.act(y)


class Residual(nn.Module):
    """A stem and two of ResNet's blocks, flattened at two by two places."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 7, 2, 3)
        self.pool = nn.MaxPool2d(2)
        self.layer1 = nn.Sequential(Basic(16), Basic(16))
        self.last = nn.Conv2d(16, 32, 3, padding=1)
        self.fc = nn.Linear(32 * 4, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer1(self.pool(torch.relu(self.conv1(x))))
        x = functional.adaptive_max_pool2d(functional.relu(self.last(x)), 2)
        return self.fc(torch.flatten(x, 1))


class Dense(nn.Module):
    """Layers that read all before them, concatenated, and a shuffle of channels that nothing may change."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 16, 3, padding=1)
        self.two = nn.Conv2d(16, 8, 3, padding=1)
        self.three = nn.Conv2d(24, 16, 5, padding=2)
        self.four = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        one = torch.relu(self.one(x))
        both = torch.cat([one, torch.relu(self.two(one))], dim=1)
        three = self.three(both)
        n, c, h, w = three.shape
        shuffled = three.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(torch.relu(self.four(shuffled)).mean((2, 3)))


class Twice(nn.Module):
    """Calls a layer again, behind itself, which then serves two rows of channels."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 16, 3, padding=1)
        self.again = nn.Conv2d(16, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.last = nn.Conv2d(16, 24, 1)
        self.head = nn.Linear(24, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.one(x)))
        x = torch.relu(self.norm(self.again(self.again(x))))
        return self.head(torch.relu(self.last(x)).mean((2, 3)))


class Branching(Mobile):
    """Does something that depends on the images."""

    def forward(self, x: Tensor) -> Tensor:
        if x.mean() > 0:
            x = -x
        return super().forward(x)


class OtherInTraining(Mobile):
    """Does something else in training."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            x = x * 2
        return super().forward(x)


class TwoInputs(Mobile):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x * mask)


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 3, 3, padding=1)
        self.two = self.one
        self.head = nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.two(self.one(x)).mean((2, 3)))


class Maps(nn.Module):
    """Gives maps, no classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def seeded(kind: type[nn.Module], *arguments: Any) -> nn.Module:
    """A network with random weights, its statistics moved by three batches as training would."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = kind(*arguments).train()
        for _ in range(3):
            network(torch.randn(8, 3, 16, 16))
    return network.eval()
