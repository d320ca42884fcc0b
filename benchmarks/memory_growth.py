"""What a process that trains one small network after another comes to hold: memory that no file backs, by networks.

OMP_NUM_THREADS=1 python benchmarks/memory_growth.py --networks 2000
"""

from __future__ import annotations

import argparse
import gc
import random
from pathlib import Path

import torch

from nas.models.build import build
from nas.spaces.files import load_space


def held_mib() -> float:
    """MiB of this process that no file backs."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("Anonymous"))


def main() -> None:
    """Two steps and a prediction of each network, as a worker's; each is another one of the space."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--networks", type=int, default=2000)
    parser.add_argument("--space", default="digits")
    given = parser.parse_args()
    torch.set_num_threads(1)
    space, rng, seen = load_space(given.space), random.Random(0), set[str]()
    shape = (64, *space.smallest.input_shape)
    images = torch.randn(shape).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (len(images),))
    while len(seen) < given.networks:
        architecture = space.architecture(space.sample(rng)).canonical
        if architecture.digest in seen:
            continue
        seen.add(architecture.digest)
        network = build(architecture, 10).to(memory_format=torch.channels_last)
        optimiser = torch.optim.AdamW(network.parameters())
        for _ in range(2):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(network(images), labels).backward()
            optimiser.step()
        network.eval()(images)
        del network, optimiser
        if len(seen) in (30, 60, 125, 250, 500, 1000, 1500, 2000, 3000, 5000):
            gc.collect()
            print(f"{len(seen):6} networks {held_mib():7.1f} MiB", flush=True)


if __name__ == "__main__":
    main()
