"""Augmentation in batches on the device: every image draws its own, from a generator on the CPU.

The generator is the CPU's, so that every device draws the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from nas.tasks.motion import Motion
from nas.training.recipe import Recipe


def shift_and_hflip(
    images: torch.Tensor, share: float, hflip: bool, generator: torch.Generator, motion: Motion | None = None
) -> torch.Tensor:
    """A random crop of each image padded by `share` of its side, every other one flipped left to right: (N, C, H, W), same dtype.

    What it did is added to `motion`.
    """
    count, channels, height, width = images.shape
    pad = round(share * height)
    if not pad and not hflip:
        return images
    device = images.device
    shift = torch.randint(-pad, pad + 1, (2, count, 1), generator=generator).to(device)
    rows = pad + shift[0] + torch.arange(height, device=device)
    columns = pad + shift[1] + torch.arange(width, device=device)
    flipped = torch.zeros(count, 1, dtype=torch.bool)
    if hflip:
        flipped = (torch.rand(count, 1, generator=generator) < 0.5).to(device)
        columns = torch.where(flipped, columns.flip(1), columns)
    if motion is not None:
        affine = torch.zeros(count, 2, 3, device=device)
        affine[:, 0, 0], affine[:, 1, 1] = 1 - 2.0 * flipped[:, 0].to(device), 1
        affine[:, 0, 2], affine[:, 1, 2] = 2 * shift[1, :, 0] / width, 2 * shift[0, :, 0] / height
        motion.then(affine)
    # One index into flat images takes a fifth of the time of an index by image, channel, row and column.
    places = (rows[:, :, None] * (width + 2 * pad) + columns[:, None, :]).view(count, 1, -1)
    padded = F.pad(images, (pad, pad, pad, pad)).flatten(2)
    return padded.gather(2, places.expand(-1, channels, -1)).view(images.shape)


def resized_crop(
    images: torch.Tensor, smallest: float, generator: torch.Generator, motion: Motion | None = None
) -> torch.Tensor:
    """A random part of each image, of at least `smallest` of its area and a ratio of 3/4 to 4/3, at the full size.

    (N, C, H, W) floats; as in GoogLeNet's training (Szegedy et al., 2015, section 6). What it did is added to `motion`.
    """
    count = len(images)
    area = smallest + (1 - smallest) * torch.rand(count, generator=generator)
    ratio = torch.exp(math.log(4 / 3) * (2 * torch.rand(count, generator=generator) - 1))
    ratio = ratio.clamp(area, 1 / area)  # what is wider or higher than the image would lose area
    height, width = (area / ratio).sqrt().clamp(max=1), (area * ratio).sqrt().clamp(max=1)
    offset = 2 * torch.rand(2, count, generator=generator) - 1
    transform = torch.zeros(count, 2, 3)
    transform[:, 0, 0], transform[:, 0, 2] = width, offset[0] * (1 - width)
    transform[:, 1, 1], transform[:, 1, 2] = height, offset[1] * (1 - height)
    if motion is not None:
        motion.then(transform)
    grid = F.affine_grid(transform.to(images.device), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def change_colour(images: torch.Tensor, strength: float, generator: torch.Generator) -> torch.Tensor:
    """Brightness, contrast and saturation times 1 ± `strength`: (N, C, H, W) on a scale of 0 to 1."""
    factors = 1 + strength * (2 * torch.rand(3, len(images), 1, 1, 1, generator=generator) - 1)
    brightness, contrast, saturation = factors.to(images.device)
    x = images * brightness
    mean = x.mean((1, 2, 3), keepdim=True)
    x = mean + (x - mean) * contrast
    if images.shape[1] == 3:
        grey = (x * x.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
        x = grey + (x - grey) * saturation
    return x.clamp(0, 1)


def cutout(images: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    """A square of `share` of the side set to zero in each normalised image (N, C, H, W); its centre lies anywhere."""
    count, height = len(images), images.shape[2]
    side = round(share * height)
    return images.masked_fill(_squares(images, torch.full((count, 1), side), generator), 0.0)


@dataclass(frozen=True)
class Mixed:
    """Images (N, C, H, W) of two targets each: `share` (N,) of the loss goes to an image's own one, the rest to `others`."""

    images: torch.Tensor
    others: Any
    share: torch.Tensor


def mix(images: torch.Tensor, targets: Any, recipe: Recipe, generator: torch.Generator) -> Mixed | None:
    """Mixup or cutmix of each image with another of the batch; None where the recipe has neither."""
    kinds = [kind for kind in ("mixup", "cutmix") if getattr(recipe, kind)]
    if not kinds:
        return None
    kind = kinds[int(torch.randint(len(kinds), (), generator=generator))]
    count, _, height, width = images.shape
    partner = torch.randperm(count, generator=generator).to(images.device)
    share = _beta(getattr(recipe, kind), count, generator)
    if kind == "mixup":
        weight = share.to(images.device).view(-1, 1, 1, 1)
        return Mixed(images * weight + images[partner] * (1 - weight), targets[partner], weight.flatten())
    side = (torch.sqrt(1 - share) * min(height, width)).round().long()[:, None]
    inside = _squares(images, side, generator)
    kept = 1 - inside.float().mean((1, 2, 3))
    return Mixed(torch.where(inside, images[partner], images), targets[partner], kept)


def _squares(images: torch.Tensor, side: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Whether each pixel lies in its image's square, of sides (N, 1) and with its centre anywhere: (N, 1, H, W)."""
    centre = [torch.randint(0, size, (len(images), 1), generator=generator) for size in images.shape[-2:]]
    start = torch.stack(centre) - side // 2
    inside = []
    for axis, size in enumerate(images.shape[-2:]):
        place = torch.arange(size)
        inside.append((place >= start[axis]) & (place < start[axis] + side))
    return (inside[0][:, None, :, None] & inside[1][:, None, None, :]).to(images.device)


def _beta(alpha: float, count: int, generator: torch.Generator) -> torch.Tensor:
    """Draws (N,) from Beta(alpha, alpha): torch's own distribution takes no generator."""
    concentration = torch.full((2, count), float(alpha))
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(generator.get_state())
        gamma = torch.distributions.Gamma(concentration, torch.ones(())).sample()
        generator.set_state(torch.get_rng_state())
    return gamma[0] / gamma.sum(0).clamp_min(1e-12)
