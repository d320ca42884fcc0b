"""Augmentations: what may become of an image, and that each image draws its own from the generator alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nas.data.sets import load_data
from nas.training.augment import Mixed, change_colour, cutout, mix, resized_crop, shift_and_hflip
from nas.training.recipe import Recipe


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def digits(count: int) -> torch.Tensor:
    """Real images (N, 1, 8, 8) uint8."""
    return torch.from_numpy(load_data("digits", channels=1).train.take(np.arange(count)))


def numbered(count: int, height: int, width: int) -> torch.Tensor:
    """Images (N, 1, H, W) uint8 in which each pixel has another number, none of them 0."""
    return (1 + torch.arange(height * width).view(1, 1, height, width)).to(torch.uint8).repeat(count, 1, 1, 1)


AUGMENTATIONS: dict[str, Callable[[torch.Tensor, torch.Generator], torch.Tensor]] = {
    "shift": lambda x, g: shift_and_hflip(x, 0.25, False, g),
    "hflip": lambda x, g: shift_and_hflip(x, 0.0, True, g),
    "resized_crop": lambda x, g: resized_crop(x, 0.25, g),
    "colour": lambda x, g: change_colour(x, 0.5, g),
    "cutout": lambda x, g: cutout(x, 0.5, g),
}


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_image_draws_its_own_from_the_generator_alone(name: str) -> None:
    augment = AUGMENTATIONS[name]
    image = digits(1).float() / 255
    images = image.repeat(50, 1, 1, 1)
    torch.manual_seed(0)
    first = augment(images, drawn(3))
    torch.manual_seed(1)
    assert torch.equal(augment(images, drawn(3)), first)
    assert not torch.equal(augment(images, drawn(4)), first)
    assert len({tuple(x.flatten().tolist()) for x in first}) > (1 if name == "hflip" else 10)
    assert torch.equal(images, image.repeat(50, 1, 1, 1))  # what was given is left alone
    assert first.shape == images.shape
    assert first.dtype == images.dtype


# ---------------------------------------------------------------- crop and hflip


@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 12), (12, 8)])
@pytest.mark.parametrize("hflip", [False, True])
def test_a_shifted_image_is_a_window_of_the_padded_one(height: int, width: int, hflip: bool) -> None:
    share, count = 0.25, 400
    pad = round(share * height)
    images = numbered(count, height, width)
    shifted = shift_and_hflip(images, share, hflip, drawn())
    assert shifted.dtype == torch.uint8
    assert shifted.shape == images.shape
    padded = F.pad(images[0, 0], (pad, pad, pad, pad))
    places = [(row, column) for row in range(2 * pad + 1) for column in range(2 * pad + 1)]
    windows = {}
    for row, column in places:
        window = padded[row : row + height, column : column + width]
        windows[tuple(window.flatten().tolist())] = (row, column, False)
        if hflip:
            windows[tuple(window.flip(1).flatten().tolist())] = (row, column, True)
    seen = [windows[tuple(image.flatten().tolist())] for image in shifted]
    assert {(row, column) for row, column, _ in seen} == set(places)  # every shift occurs in 400 draws
    flipped = sum(flip for *_, flip in seen)
    assert 150 < flipped < 250 if hflip else flipped == 0


def test_colours_of_a_pixel_stay_together() -> None:
    images = numbered(50, 8, 8)
    coloured = torch.cat([images, images + 64, images + 128], 1)
    red, green, blue = shift_and_hflip(coloured, 0.0, True, drawn()).unbind(1)
    assert torch.equal(green, red + 64)
    assert torch.equal(blue, red + 128)


def test_no_shift_and_no_hflip_leave_images_as_they_are() -> None:
    images = digits(20)
    assert torch.equal(shift_and_hflip(images, 0.0, False, drawn()), images)
    assert torch.equal(shift_and_hflip(images, 0.05, False, drawn()), images)  # less than half a pixel


# ---------------------------------------------------------------- resized crop


@pytest.mark.parametrize("smallest", [1.0, 0.9, 0.5, 0.08])
def test_a_crop_keeps_its_share_of_the_area_and_lies_inside(smallest: float) -> None:
    side, count = 64, 1000
    ramp = torch.linspace(0, 1, side)
    coordinates = torch.stack([ramp.view(1, side).expand(side, side), ramp.view(side, 1).expand(side, side)])
    x, y = resized_crop(coordinates.repeat(count, 1, 1, 1), smallest, drawn()).unbind(1)
    middle, near, far = side // 2, side // 4, 3 * side // 4  # away from the border, which is interpolated otherwise
    width = (x[:, middle, far] - x[:, middle, near]) / (ramp[far] - ramp[near])
    height = (y[:, far, middle] - y[:, near, middle]) / (ramp[far] - ramp[near])
    area, ratio = width * height, width / height
    assert area.min() > smallest - 1e-3
    assert area.max() < 1 + 1e-3
    assert ratio.min() > 3 / 4 - 1e-3
    assert ratio.max() < 4 / 3 + 1e-3
    centre = x[:, middle, :].mean(1)
    assert (centre - width / 2).min() > -0.01
    assert (centre + width / 2).max() < 1.01
    if smallest < 1:  # the whole range is used
        assert area.min() < smallest + 0.05 * (1 - smallest) + 0.01
        assert area.max() > 0.95
        assert (width - height).max() > 0.02
        assert (height - width).max() > 0.02
        assert (centre - width / 2 < 0.02).any()
        assert (centre + width / 2 > 0.98).any()


def test_a_crop_of_all_of_an_image_is_the_image() -> None:
    images = digits(20).float()
    torch.testing.assert_close(resized_crop(images, 1.0, drawn()), images, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("shape", [(100, 1, 8, 8), (100, 3, 6, 10)])
def test_a_constant_image_stays_constant_at_the_borders_too(shape: tuple[int, ...]) -> None:
    torch.testing.assert_close(resized_crop(torch.full(shape, 0.5), 0.08, drawn()), torch.full(shape, 0.5))


# ---------------------------------------------------------------- colour


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_change_within_their_scale(channels: int) -> None:
    images = torch.rand(200, channels, 8, 8, generator=drawn(1))
    changed = change_colour(images, 0.9, drawn())
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert (changed - images).abs().mean() > 0.05
    torch.testing.assert_close(change_colour(images, 0.0, drawn()), images)


def test_grey_stays_grey_and_colour_does_not() -> None:
    grey = torch.rand(50, 1, 8, 8, generator=drawn(1)).repeat(1, 3, 1, 1)
    red, green, blue = change_colour(grey, 0.5, drawn()).unbind(1)
    torch.testing.assert_close(red, green)
    torch.testing.assert_close(red, blue)
    # By the same draws as one channel: there is nothing to saturate.
    torch.testing.assert_close(change_colour(grey[:, :1], 0.5, drawn())[:, 0], red)


def test_brightness_contrast_and_saturation_are_factors_of_their_own() -> None:
    strength, count = 0.2, 500
    images = 0.4 + 0.2 * torch.rand(1, 3, 8, 8, generator=drawn(1)).repeat(count, 1, 1, 1)  # far from being clamped
    changed = change_colour(images, strength, drawn())
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    light, light_before = (changed * weights).sum(1), (images * weights).sum(1)  # saturation leaves it as it is
    colour = (changed - light[:, None]).std((1, 2, 3)) / (images - light_before[:, None]).std((1, 2, 3))
    spread = light.std((1, 2)) / light_before.std((1, 2))
    grey, grey_before = change_colour(images[:, :1], strength, drawn()), images[:, :1]
    brightness = grey.mean((1, 2, 3)) / grey_before.mean((1, 2, 3))
    contrast = grey.std((1, 2, 3)) / grey_before.std((1, 2, 3)) / brightness
    torch.testing.assert_close(spread, brightness * contrast, rtol=1e-3, atol=0)  # by the same draws
    factors = torch.stack([brightness, contrast, colour / spread])
    assert factors.min() > 1 - strength - 1e-3
    assert factors.max() < 1 + strength + 1e-3
    assert (factors.std(1) > strength / 2).all()  # of a uniform distribution: strength / 3 ** 0.5
    assert (torch.corrcoef(factors) - torch.eye(3)).abs().max() < 0.2


# ---------------------------------------------------------------- cutout


def blanked(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Whether rows (N, H) and columns (N, W) have zeros, which together must fill a rectangle."""
    zero = images == 0
    assert torch.equal(zero, zero[:, :1].expand_as(zero))  # the same in each channel
    zero = zero[:, 0]
    rows, columns = zero.any(2), zero.any(1)
    assert torch.equal(zero, rows[:, :, None] & columns[:, None, :])
    return rows, columns


@pytest.mark.parametrize(("share", "side"), [(0.5, 4), (0.3, 2), (0.4, 3), (1.0, 8)])
def test_a_blanked_square_has_its_size_and_is_cut_at_the_border(share: float, side: int) -> None:
    images = torch.rand(600, 3, 8, 8, generator=drawn(1)) + 1
    cut = cutout(images, share, drawn())
    assert torch.equal(cut[cut != 0], images[cut != 0])
    for line in blanked(cut):
        extent = line.sum(1)
        inside = ~line[:, 0] & ~line[:, -1]  # touches neither border
        assert (extent[inside] == side).all()
        assert inside.any() == (side < 7)
        assert extent.max() <= side
        assert extent.min() == (side + 1) // 2  # a centre on the border keeps half of it
        assert line.any(0).all()  # no place is spared
    if side < 7:
        rows, columns = blanked(cut)
        whole = ~(rows[:, 0] | rows[:, -1] | columns[:, 0] | columns[:, -1])
        assert ((cut[whole] == 0).sum((1, 2, 3)) == 3 * side**2).all()


def test_a_square_of_less_than_half_a_pixel_blanks_nothing() -> None:
    images = torch.ones(20, 1, 8, 8)
    assert torch.equal(cutout(images, 0.05, drawn()), images)


# ---------------------------------------------------------------- mixup and cutmix


def mixed_numbers(recipe: Recipe, count: int = 200, seed: int = 0) -> tuple[torch.Tensor, Mixed]:
    """Images of which each has one number throughout, which is its label too, and what they are mixed to."""
    labels = torch.arange(count)
    images = labels.float().view(-1, 1, 1, 1).expand(count, 3, 8, 10).contiguous()
    mixed = mix(images, labels, recipe, drawn(seed))
    assert mixed is not None
    assert torch.equal(images[:, 0, 0, 0], labels.float())
    assert mixed.share.shape == mixed.others.shape == labels.shape
    assert mixed.share.min() >= 0
    assert mixed.share.max() <= 1
    assert sorted(mixed.others.tolist()) == labels.tolist()  # each is another's partner once
    return labels, mixed


@pytest.mark.parametrize("alpha", [0.2, 1.0, 1])
def test_mixup_is_the_convex_combination_that_the_labels_get(alpha: float) -> None:
    labels, mixed = mixed_numbers(Recipe(mixup=alpha))
    expected = mixed.share * labels + (1 - mixed.share) * mixed.others
    torch.testing.assert_close(mixed.images, expected.view(-1, 1, 1, 1).expand_as(mixed.images))
    assert len(set(mixed.share.tolist())) > 100  # each image draws its own


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_the_share_of_cutmix_is_that_of_an_images_own_pixels(alpha: float) -> None:
    labels, mixed = mixed_numbers(Recipe(cutmix=alpha))
    own = mixed.images == labels.view(-1, 1, 1, 1)
    other = mixed.images == mixed.others.view(-1, 1, 1, 1)
    assert (own | other).all()
    moved = labels != mixed.others
    torch.testing.assert_close(own.float().mean((1, 2, 3))[moved], mixed.share[moved])
    blanked(torch.where(own, 1.0, 0.0)[moved])  # what is pasted is a rectangle
    assert len(set(mixed.share.tolist())) > 10


def test_labels_follow_their_images() -> None:
    images, labels = digits(64).float(), torch.arange(64)
    mixed = mix(images, labels, Recipe(mixup=1.0), drawn())
    assert mixed is not None
    share = mixed.share.view(-1, 1, 1, 1)
    torch.testing.assert_close(mixed.images, share * images + (1 - share) * images[mixed.others])


def test_no_alpha_mixes_nothing() -> None:
    assert mix(digits(4).float(), torch.arange(4), Recipe(), drawn()) is None


def test_with_both_each_batch_has_one_of_them() -> None:
    generator = drawn()
    images, labels = torch.arange(1.0, 17).view(16, 1, 1, 1).expand(16, 1, 8, 8), torch.arange(16)
    cut = []
    for _ in range(100):
        mixed = mix(images, labels, Recipe(mixup=1.0, cutmix=1.0), generator)
        assert mixed is not None
        own_or_other = (mixed.images == images) | (mixed.images == images[mixed.others])
        cut.append(bool(own_or_other.all()))
    assert 30 < sum(cut) < 70


@pytest.mark.parametrize(("alpha", "deviation"), [(0.2, (1 / 5.6) ** 0.5), (1.0, (1 / 12) ** 0.5)])
def test_shares_are_of_the_beta_distribution(alpha: float, deviation: float) -> None:
    _, mixed = mixed_numbers(Recipe(mixup=alpha), count=20_000)
    assert mixed.share.mean().item() == pytest.approx(0.5, abs=0.02)
    assert mixed.share.std().item() == pytest.approx(deviation, abs=0.01)  # 1 / (4 (2 alpha + 1)) is the variance
