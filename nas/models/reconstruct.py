"""Least-squares reconstruction: a candidate's projections refitted to the features of the backbone.

After inheritance a changed block gives other features than the backbone's, and the error grows from block to block.
Front to back, each projection (the last convolution of a block) is fitted again, so that on calibration images the
block's output comes close to the backbone's at the same place; the idea is from channel pruning (He, Zhang & Sun,
ICCV 2017, section 3.1), here for any change of a block, and with a prior: the inherited weights. The last layer of a
stage aims at the end of the backbone's stage, so that a shallower stage makes up for the layers left out.

No label is used, and no validation image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from nas.latency.lease import Bursts, DeviceLease
from nas.models.blocks import InvertedResidual, Network
from nas.models.build import build
from nas.models.inherit import calibrating, inherit, origins_of, recalibrate, stages_of
from nas.models.networks import Backbone
from nas.spaces.mobile.architecture import Architecture

RIDGE = 1.0
"""Weight of the prior, in units of the mean variance of the hidden channels.

Smaller values fit the calibration images closer, and train worse (docs/results/inheritance.md).
"""


@dataclass(frozen=True)
class _Moments:
    """Means and (cross-)covariances of hidden channels h and of targets z, over all positions of all images."""

    h: torch.Tensor
    z: torch.Tensor
    hh: torch.Tensor
    hz: torch.Tensor


@torch.no_grad()
def reconstruct(
    network: Network,
    architecture: Architecture,
    backbone: Backbone,
    batches: Sequence[torch.Tensor],
    lease: DeviceLease | None = None,
) -> None:
    """Refit the projections of a network that has inherited its weights, in place, on batches (N, C, H, W).

    All batch norm statistics are those of the batches afterwards, as `recalibrate` leaves them. Blocks at no place of
    the backbone, or with another map size there, keep their weights. The shared lease is taken block by block.
    """
    arch = architecture.canonical
    bursts = Bursts(lease, batches[0].device)
    with bursts:
        teacher, teacher_arch = _teacher(backbone, arch, batches)
        recalibrate(network.stem, batches)
        network.eval()
        ours = [network.stem(batch) for batch in batches]
        theirs = [teacher.stem(batch) for batch in batches]
    ends = {index: stage[-1] for stage in stages_of(teacher_arch) for index in stage}
    lasts = {stage[-1] for stage in stages_of(arch)}
    done = 0
    exact = True  # so far the candidate computes just what the backbone does
    for index, origin in enumerate(origins_of(arch, teacher_arch)):
        block = network.blocks[index]
        assert isinstance(block, InvertedResidual)
        with bursts:
            refitted = False
            if origin is None or origin.extra:
                exact = exact and origin is not None
            else:
                target = ends[origin.index] if index in lasts else origin.index
                for layer in teacher.blocks[done : target + 1]:
                    theirs = [layer(features) for features in theirs]
                done = max(done, target + 1)
                exact = exact and target == origin.index and arch.layers[index] == teacher_arch.layers[origin.index]
                refitted = not exact and _refit(block, ours, theirs)
            if not refitted:
                recalibrate(block, ours)
            block.eval()
            ours = [block(features) for features in ours]
    bursts.close()
    recalibrate(network.head, ours)
    network.eval()


def _teacher(backbone: Backbone, arch: Architecture, batches: Sequence[torch.Tensor]) -> tuple[Network, Architecture]:
    """The backbone's own layers on images and stem of the candidate, batch norm recalibrated there."""
    there = replace(
        backbone.architecture, input_size=arch.input_size, input_channels=arch.input_channels, stem=arch.stem
    )
    teacher = build(there, backbone.num_classes)
    teacher.load_state_dict(inherit(backbone, there, backbone.num_classes).state)
    teacher.to(batches[0].device).to(memory_format=torch.channels_last)
    recalibrate(teacher, batches)
    return teacher.eval(), there.canonical


def _refit(block: InvertedResidual, inputs: Sequence[torch.Tensor], targets: Sequence[torch.Tensor]) -> bool:
    """Fit the block's projection so that its output comes close to the targets; False where the shapes forbid it."""
    projection = block.project
    assert isinstance(projection.conv, nn.Conv2d)
    moments = _moments(block, inputs, targets)
    if moments is None:
        return False
    norm, weight = projection.norm, projection.conv.weight  # (out, hidden, 1, 1)
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    inherited = weight.flatten(1).double()
    variance = _output_variance(inherited, moments)
    prior = inherited * (norm.weight.double() / (variance + norm.eps).sqrt())[:, None]
    ridge = RIDGE * moments.hh.diagonal().mean() + 1e-8
    damped = moments.hh + ridge * torch.eye(len(moments.hh), dtype=torch.double, device=weight.device)
    fitted = torch.linalg.solve(damped, moments.hz + ridge * prior.T).T  # (out, hidden)
    # Batch norm makes the scale of a row free. The inherited length keeps the steps of training in proportion.
    length = fitted.norm(dim=1, keepdim=True).clamp_min(1e-12)
    rows = fitted * (inherited.norm(dim=1, keepdim=True) / length)
    weight.copy_(rows[:, :, None, None])
    norm.weight.copy_((_output_variance(fitted, moments) + norm.eps).sqrt())
    norm.bias.copy_(moments.z)
    norm.running_mean.copy_(rows @ moments.h)
    norm.running_var.copy_(_output_variance(rows, moments))
    return True


def _output_variance(rows: torch.Tensor, moments: _Moments) -> torch.Tensor:
    return ((rows @ moments.hh) * rows).sum(1).clamp_min(0)


def _moments(
    block: InvertedResidual, inputs: Sequence[torch.Tensor], targets: Sequence[torch.Tensor]
) -> _Moments | None:
    """Moments of the block's hidden channels and targets, None where their maps differ in size.

    The batch norms before the projection are recalibrated on the way.
    """
    front = nn.Sequential(block.expand, block.filter)
    sums: list[torch.Tensor] = []
    count = 0
    with calibrating(front):
        for x, target in zip(inputs, targets, strict=True):
            hidden = front(x)
            if hidden.shape[-2:] != target.shape[-2:]:
                return None
            h = hidden.movedim(1, -1).flatten(0, -2)  # (positions, hidden)
            z = (target - x if block.residual else target).movedim(1, -1).flatten(0, -2)  # (positions, out)
            count += len(h)
            parts = [part.double() for part in (h.sum(0), z.sum(0), h.T @ h, h.T @ z)]
            sums = [total + part for total, part in zip(sums, parts, strict=True)] if sums else parts
    h_mean, z_mean, hh, hz = (total / count for total in sums)
    return _Moments(h_mean, z_mean, hh - torch.outer(h_mean, h_mean), hz - torch.outer(h_mean, z_mean))
