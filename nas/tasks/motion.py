"""What augmentation did to the images of a batch, for targets that lie within them."""

from __future__ import annotations

import torch


class Motion:
    """Where the places of moved images come from: `affine` (N, 2, 3), as `torch.nn.functional.affine_grid` takes it.

    A place (x, y) is of -1 to 1 across the image, (-1, -1) its upper left corner.
    """

    def __init__(self, images: torch.Tensor) -> None:
        self.affine = torch.eye(2, 3, device=images.device).repeat(len(images), 1, 1)

    def then(self, affine: torch.Tensor) -> None:
        """Add a motion (N, 2, 3) of the images as they are by now."""
        affine = affine.to(self.affine)
        turned = self.affine[:, :, :2] @ affine
        turned[:, :, 2] += self.affine[:, :, 2]
        self.affine = turned
