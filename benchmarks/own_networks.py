"""Which networks of torchvision and timm become a space, with what sites, and whether its networks are what they should be.

python benchmarks/own_networks.py --out rows.csv                 # all of NETWORKS, random weights, a row each
python benchmarks/own_networks.py timm:resnet18 --size 96 --candidates 8

A candidate counts where its multiply-adds and parameters in closed form are the counted ones, it is found in the space again by
its text, gradients reach every weight, and the base with nothing changed gives the outputs of the network that was given.
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from nas.common.errors import InputError
from nas.models.flops import count
from nas.models.graph.given import given_network
from nas.models.graph.inherit import inherit
from nas.models.graph.make import Made, make_space
from nas.models.graph.networks import NETWORKS as BUILDER
from nas.models.graph.prove import Wanted
from nas.spaces.families import architecture_cost

TORCHVISION = """
squeezenet1_1 densenet121 googlenet inception_v3 mobilenet_v2 mobilenet_v3_small mobilenet_v3_large mnasnet1_0 shufflenet_v2_x1_0
regnet_y_400mf regnet_x_400mf resnet18 resnet50 resnext50_32x4d convnext_tiny efficientnet_b0 efficientnet_v2_s swin_t vit_b_16
maxvit_t alexnet vgg11_bn
"""
TIMM = """
mobilenetv2_100 mobilenetv3_large_100 mobilenetv4_conv_small efficientnet_lite0 tf_efficientnet_lite0 tf_efficientnet_b0
tf_efficientnetv2_b0 convnext_atto convnextv2_atto regnety_002 repvgg_a0 mobileone_s0 fastvit_t8 ghostnet_100 hardcorenas_a
mnasnet_100 fbnetc_100 dla34 hrnet_w18_small res2net50_26w_4s resnest14d resnet18 seresnet50 skresnet18 ecaresnet26t nfnet_f0
dm_nfnet_f0 resnetv2_50 darknet53 cspresnet50 cspdarknet53 vovnet39a ese_vovnet19b_dw xception41 mixnet_s tf_mixnet_s rexnet_100
lcnet_050 tinynet_e inception_v4 mobilevit_xxs edgenext_xx_small poolformer_s12 levit_128s densenet121 selecsls42b spnasnet_100
pvt_v2_b0 efficientvit_b0
"""
NETWORKS = [f"timm:{name}" for name in TIMM.split()] + [f"torchvision:{name}" for name in TORCHVISION.split()]
KEYS = ("k", "d", "sep", "fused", "w", "drop")
CLASSES = 10


def right(made: Made, rng: random.Random) -> str:
    """What is wrong with a random candidate; empty where nothing is."""
    space = made.space
    architecture = space.architecture(space.sample(rng)).canonical
    if space.parse(str(architecture)).digest != architecture.digest:
        return "not found again"
    network = BUILDER.build(architecture, CLASSES)
    network.load_state_dict(inherit(space.base, made.state, architecture, CLASSES).state)
    logits = network(torch.randn(2, *architecture.input_shape))
    logits.sum().backward()
    if logits.shape != (2, CLASSES) or any(parameter.grad is None for parameter in network.parameters()):
        return "shape or gradients"
    counted, cost = count(network.eval(), architecture.input_shape), architecture_cost(architecture, CLASSES)
    return "" if (counted.macs, counted.params) == (cost.macs, cost.params) else f"cost {counted} {cost}"


def row(name: str, size: int, candidates: int) -> dict[str, Any]:
    """One network as a row."""
    began = time.monotonic()
    found: dict[str, Any] = {"network": name, "captured": "no", "reason": ""}
    try:
        given = given_network(name)
        made = make_space(given.model, (3, size, size), given.about, Wanted())
    except InputError as error:
        return found | {"reason": " ".join(str(error).split()), "seconds": round(time.monotonic() - began, 1)}
    seconds = time.monotonic() - began
    rng = random.Random(0)
    wrong = [each for each in (right(made, rng) for _ in range(candidates)) if each]
    sites = Counter(made.space.base.site[site].key for site in made.space.choices)
    return (
        found
        | {"captured": "yes", "reason": "; ".join(wrong), **{key: sites[key] for key in KEYS}}
        | {"options": made.options, "right": f"{candidates - len(wrong)}/{candidates}", "seconds": round(seconds, 1)}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--size", type=int, default=96, help="side of the images in pixels")
    parser.add_argument("--candidates", type=int, default=4)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    columns = ["network", "captured", *KEYS, "options", "right", "seconds", "reason"]
    with options.out.open("w", newline="") if options.out else sys.stdout as file:
        table = csv.DictWriter(file, columns)
        table.writeheader()
        for name in options.networks:
            table.writerow(row(name, options.size, options.candidates))
            file.flush()


if __name__ == "__main__":
    main()
