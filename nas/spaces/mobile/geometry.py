"""Integer arithmetic of convolutions: padding, output sizes, taps that are read, receptive fields.

This is the only place in the project that computes padding. It imports nothing, so that the search space
(which never imports torch) and the network share it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

Padding = Literal["symmetric", "tf_same"]


def output_size(size: int, stride: int) -> int:
    """Side of the map a padded convolution writes: ceil(size / stride), for either padding."""
    return -(-size // stride)


def pad_amounts(size: int, kernel_size: int, dilation: int, stride: int, padding: Padding) -> tuple[int, int]:
    """Zeros put (before, after) each spatial axis of a map of side `size`.

    `symmetric` is PyTorch's and MobileNetV2's; `tf_same` is TensorFlow's SAME, which EfficientNet-Lite was
    trained with and which puts the odd zero behind.
    """
    reach = dilation * (kernel_size - 1)
    if padding == "symmetric":
        return reach // 2, reach // 2
    total = max((output_size(size, stride) - 1) * stride + reach + 1 - size, 0)
    return total // 2, total - total // 2


def effective_kernel(size: int, kernel_size: int, dilation: int, stride: int, padding: Padding) -> tuple[int, int]:
    """The smallest (kernel_size, dilation) that computes the same function on a map of side `size`.

    A pair of outermost taps goes when no output position reads either inside the map, provided the smaller
    kernel's own padding leaves the remaining taps where they were. A 1x1 kernel has dilation 1.
    """

    def first_position(kernel_size: int, dilation: int) -> int:
        return -pad_amounts(size, kernel_size, dilation, stride, padding)[0]

    def outermost_unread(kernel_size: int, dilation: int) -> bool:
        first = first_position(kernel_size, dilation)
        return first + (output_size(size, stride) - 1) * stride < 0 and first + dilation * (kernel_size - 1) >= size

    while kernel_size > 1 and outermost_unread(kernel_size, dilation):
        if first_position(kernel_size - 2, dilation) != first_position(kernel_size, dilation) + dilation:
            break
        kernel_size -= 2
    # Only the centre tap is read, but where no 1x1 kernel would read: every such dilation is the same function.
    while kernel_size == 3 and outermost_unread(3, dilation) and outermost_unread(3, dilation - 1):
        if first_position(3, dilation) + dilation != first_position(3, dilation - 1) + dilation - 1:
            break
        dilation -= 1
    return kernel_size, dilation if kernel_size > 1 else 1


def receptive_field(convolutions: Iterable[tuple[int, int, int]]) -> int:
    """Input pixels along one axis that one output position depends on.

    `convolutions` are (kernel_size, dilation, stride), first layer first. Araujo et al., "Computing Receptive
    Fields of Convolutional Neural Networks", Distill 2019, eq. 2.
    """
    field, jump = 1, 1
    for kernel_size, dilation, stride in convolutions:
        field += dilation * (kernel_size - 1) * jump
        jump *= stride
    return field
