"""The integer arithmetic of convolutions against what torch's convolutions really do."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.spaces.mobile.geometry import Padding, effective_kernel, output_size, pad_amounts, receptive_field

PADDINGS: tuple[Padding, ...] = ("symmetric", "tf_same")
STRIDES = (1, 2, 3)
DILATIONS = (1, 2, 3, 4)

torch.set_num_threads(1)


def padded_convolution(x: Tensor, weight: Tensor, dilation: int, stride: int, padding: Padding) -> Tensor:
    """A 1-channel convolution of the map `x` (N, 1, S, S), padded as the project pads."""
    before, after = pad_amounts(x.shape[-1], weight.shape[-1], dilation, stride, padding)
    return F.conv2d(F.pad(x, (before, after, before, after)), weight, stride=stride, dilation=dilation)


def centre_crop(weight: Tensor, kernel_size: int) -> Tensor:
    cut = (weight.shape[-1] - kernel_size) // 2
    return weight[..., cut : cut + kernel_size, cut : cut + kernel_size]


def random_kernels(sizes: Sequence[int], kernels: Sequence[int]) -> Iterator[tuple[int, int, int, int, Tensor, Tensor]]:
    """Every (size, kernel_size, dilation, stride) with a random map and random weights that are far from zero."""
    generator = torch.Generator().manual_seed(0)
    for size, kernel_size, dilation, stride in itertools.product(sizes, kernels, DILATIONS, STRIDES):
        x = 1 + torch.rand(1, 1, size, size, generator=generator, dtype=torch.float64)
        weight = 1 + torch.rand(1, 1, kernel_size, kernel_size, generator=generator, dtype=torch.float64)
        yield size, kernel_size, dilation, stride, x, weight


def test_symmetric_padding_is_that_of_torch() -> None:
    """Sampling torch's own stride-1 "same" convolution at every stride-th position is the reference."""
    for size, kernel_size, dilation, stride, x, weight in random_kernels(range(1, 18), (1, 3, 5, 7, 9)):
        case = f"{size=} {kernel_size=} {dilation=} {stride=}"
        before, after = pad_amounts(size, kernel_size, dilation, stride, "symmetric")
        layer = nn.Conv2d(1, 1, kernel_size, stride, before, dilation, bias=False, dtype=torch.float64)
        layer.weight = nn.Parameter(weight, requires_grad=False)
        assert before == after, case
        assert layer(x).shape[-1] == output_size(size, stride), case
        same = F.conv2d(x, weight, padding="same", dilation=dilation)[..., ::stride, ::stride]
        torch.testing.assert_close(layer(x), same, msg=case)


def test_tf_same_padding_is_that_of_tensorflow() -> None:
    """The reference is the rule in TensorFlow's documentation of tf.nn.convolution, in its own terms."""
    for size, kernel_size, dilation, stride, x, weight in random_kernels(range(1, 18), (1, 3, 5, 7, 9)):
        case = f"{size=} {kernel_size=} {dilation=} {stride=}"
        filter_size = (kernel_size - 1) * dilation + 1
        total = max(filter_size - (stride if size % stride == 0 else size % stride), 0)
        expected = (total // 2, total - total // 2)
        assert pad_amounts(size, kernel_size, dilation, stride, "tf_same") == expected, case
        assert padded_convolution(x, weight, dilation, stride, "tf_same").shape[-1] == output_size(size, stride), case


@pytest.mark.parametrize(
    ("size", "kernel_size", "dilation", "stride", "padding", "expected"),
    [
        (224, 3, 1, 2, "tf_same", (0, 1)),  # the stem of EfficientNet-Lite: the odd zero is behind
        (224, 3, 1, 2, "symmetric", (1, 1)),
        (112, 5, 1, 2, "tf_same", (1, 2)),
        (7, 3, 1, 2, "tf_same", (1, 1)),  # on an odd map the last window needs a zero on both sides
        (8, 5, 2, 1, "tf_same", (4, 4)),
        (9, 1, 4, 3, "tf_same", (0, 0)),  # never negative, though stride 3 skips the last pixels
    ],
)
def test_padding_of_known_layers(
    size: int, kernel_size: int, dilation: int, stride: int, padding: Padding, expected: tuple[int, int]
) -> None:
    assert pad_amounts(size, kernel_size, dilation, stride, padding) == expected


@pytest.mark.parametrize("padding", PADDINGS)
def test_effective_kernel_computes_the_same_function(padding: Padding) -> None:
    """Dropping the taps that `effective_kernel` drops changes no output."""
    shrunk = 0
    for size, kernel_size, dilation, stride, x, weight in random_kernels(range(1, 10), (1, 3, 5, 7)):
        small, small_dilation = effective_kernel(size, kernel_size, dilation, stride, padding)
        shrunk += small < kernel_size
        torch.testing.assert_close(
            padded_convolution(x, centre_crop(weight, small), small_dilation, stride, padding),
            padded_convolution(x, weight, dilation, stride, padding),
            msg=f"{size=} {kernel_size=} {dilation=} {stride=} became {small=} {small_dilation=}",
        )
    assert shrunk > 100


@pytest.mark.parametrize("padding", PADDINGS)
def test_effective_kernel_is_minimal(padding: Padding) -> None:
    """What is left has an outermost tap that matters, or cannot be cropped without moving the taps that stay."""
    realigned = set()
    for size, kernel_size, dilation, stride, x, weight in random_kernels(range(1, 10), (3, 5, 7)):
        if effective_kernel(size, kernel_size, dilation, stride, padding)[0] < kernel_size:
            continue
        case = f"{size=} {kernel_size=} {dilation=} {stride=}"
        output = padded_convolution(x, weight, dilation, stride, padding)
        border = weight + 1
        border[..., 1:-1, 1:-1] = weight[..., 1:-1, 1:-1]
        if torch.allclose(padded_convolution(x, border, dilation, stride, padding), output):
            cropped = padded_convolution(x, centre_crop(weight, kernel_size - 2), dilation, stride, padding)
            assert not torch.allclose(cropped, output), case
            realigned.add((size, stride))
    # The exception: a strided TF-SAME kernel that reads one pixel at each position, all other taps being outside,
    # reads another pixel than a 1x1 kernel would (k3d2 with stride 2 the second pixel of a 2x2 map, k1 the first).
    assert realigned == ({(2, 2), (4, 2), (2, 3), (3, 3)} if padding == "tf_same" else set())


@pytest.mark.parametrize("padding", PADDINGS)
def test_kernels_that_read_the_same_pixels_have_one_effective_form(padding: Padding) -> None:
    """Two spellings of one function are one candidate; otherwise the search would train it twice."""
    for size, stride in itertools.product(range(1, 18), STRIDES):
        forms: dict[frozenset[tuple[int | None, ...]], set[tuple[int, int]]] = defaultdict(set)
        for kernel_size, dilation in itertools.product((1, 3, 5, 7, 9), DILATIONS):
            before, _ = pad_amounts(size, kernel_size, dilation, stride, padding)
            starts = [i * stride - before for i in range(output_size(size, stride))]
            # The pixel that each tap reads at each output position; a tap that never reads one is no part of it.
            taps = {
                tuple(pixel if 0 <= (pixel := start + tap * dilation) < size else None for start in starts)
                for tap in range(kernel_size)
            }
            reads = frozenset(tap for tap in taps if any(pixel is not None for pixel in tap))
            forms[reads].add(effective_kernel(size, kernel_size, dilation, stride, padding))
        ambiguous = [sorted(spellings) for spellings in forms.values() if len(spellings) > 1]
        assert not ambiguous, f"{size=} {stride=}"


Stack = list[tuple[int, int, int]]


@pytest.mark.parametrize(
    ("stack", "by_hand"),
    [
        ([], 1),
        ([(1, 1, 1)], 1),
        ([(3, 1, 2), (3, 1, 2), (3, 1, 1)], 15),  # 1 + 2·1 + 2·2 + 2·4, jumps 1, 2, 4
        ([(3, 1, 1), (3, 2, 1), (3, 4, 1)], 15),  # 1 + 2 + 4 + 8: dilations doubled, as in Yu & Koltun 2016
        ([(5, 2, 1)], 9),
        ([(1, 1, 2), (3, 1, 1)], 5),  # a strided 1x1 kernel widens what comes after it
        ([(7, 1, 2), (3, 2, 1), (5, 1, 3), (1, 3, 1), (3, 4, 1)], None),
        ([(3, 1, 1), (5, 3, 2), (7, 2, 1)], None),
        ([(9, 1, 3), (3, 1, 3)], None),
    ],
)
def test_receptive_field_is_the_span_of_the_gradient(stack: Stack, by_hand: int | None) -> None:
    """Kernels of ones, no padding, and an input so large that the middle output position sees no border."""
    x = torch.zeros(1, 1, 150, dtype=torch.float64, requires_grad=True)
    y: Tensor = x
    for kernel_size, dilation, stride in stack:
        y = F.conv1d(y, torch.ones(1, 1, kernel_size, dtype=torch.float64), stride=stride, dilation=dilation)
    (gradient,) = torch.autograd.grad(y[0, 0, y.shape[-1] // 2], x)
    touched = gradient[0, 0].nonzero()
    assert receptive_field(stack) == int(touched.max() - touched.min()) + 1
    assert by_hand in (None, receptive_field(stack))
