"""Does a proxy score rank candidates as a full training does, from which initial weights, and at what cost?

    python benchmarks/fidelity train --work DIR [--variants "own taps;grid of taps"]     # the backbone, then supernets
    python benchmarks/fidelity score --work DIR [--shard 0/2]                            # proxy scores, full trainings
    python benchmarks/fidelity score --work DIR --untrained --variants "own taps;grid of taps"   # how supernets share
    python benchmarks/fidelity search --work DIR --seconds 600 [--shard 0/2]             # searches of equal device time
    python benchmarks/fidelity tables FILE...

Random candidates of a space (by default `cifar16.yaml`, all kinds of changes at 16x16 pixels), the same for each kind of
initial weights; and the backbone with one kind of change made to all of its layers. `scratch` are random weights, `sliced`
those inherited from the space's backbone, trained before in full on the same images, `elastic` those of a supernet that
began with the same backbone. The reference is a training that is `--full` epochs long, from `sliced` and from `scratch`,
scored on the test split; proxy scores are those of the validation split, as in a search. One JSON line an evaluation in
DIR/rows.jsonl; what is there is not evaluated again. With `--published` the candidates and the reference are those of
NAS-Bench-Macro. With a GPU: `--device cuda --space lite0_small --init
efficientnet_lite0`, and FIDELITY_TRAIN=45000.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))  # where the data set `images:cifar10` is

from runs import Asked, Bench, Setting, reference_of, score_all, search_all, train_all
from tables import print_tables, read

from nas.training.allocator import own_process
from nas.training.recipe import INHERITED_RATE, SUPERNET_RATE


def main() -> None:
    own_process()  # as commands and workers of nas train
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("train", "score", "search"):
        one = verbs.add_parser(verb)
        one.add_argument("--work", type=Path, required=True)
        one.add_argument("--space", default=str(Path(__file__).parent / "cifar16.yaml"))
        one.add_argument("--published", type=Path, help="table of NAS-Bench-Macro, with --space macro.yaml")
        one.add_argument("--data", help="as nas search takes it; by default what the space says")
        one.add_argument("--init", help="a pretrained backbone, instead of one that is trained here")
        one.add_argument("--device", default="cpu")
        one.add_argument("--candidates", type=int, default=40)
        one.add_argument("--backbone", type=int, default=40, help="epochs of the backbone that is trained here")
        one.add_argument("--brief", type=int, default=2, help="epochs")
        one.add_argument("--full", type=int, default=20, help="epochs")
        one.add_argument("--supernet-epochs", type=int, default=30)
        one.add_argument("--variants", default="own taps", help="ways to share weights, by semicolons")
        one.add_argument(
            "--reference", default="sliced;scratch", help="initial weights of full trainings, by semicolons"
        )
        one.add_argument("--seconds", type=float, default=600, help="device time of a search, supernet included")
        one.add_argument("--seed", type=int, default=0, help="of supernets")
        one.add_argument(
            "--supernet-rate",
            type=float,
            default=SUPERNET_RATE / INHERITED_RATE,
            help="learning rate of supernets over candidates'",
        )
        one.add_argument("--fresh", action="store_true", help="supernets begin with random weights")
        one.add_argument("--batch-size", type=int, default=64)
        one.add_argument("--precision", default="float32")
        one.add_argument(
            "--score-images", type=int, help="validation images of scores without a training, by default all"
        )
        one.add_argument("--starts", default="scratch;sliced;elastic", help="initial weights of proxy scores")
        one.add_argument("--untrained", action="store_true", help="scores straight from supernets alone")
        one.add_argument("--shard", default="0/1")
    verbs.add_parser("tables").add_argument("files", type=Path, nargs="+")
    given = parser.parse_args()
    if given.verb == "tables":
        print_tables(read(given.files))
        return
    torch.set_num_threads(1)
    setting = Setting(
        space=given.space,
        published=given.published,
        data=given.data,
        init=given.init,
        device=given.device,
        backbone=given.backbone,
        brief=given.brief,
        full=given.full,
        supernet=given.supernet_epochs,
        supernet_rate=given.supernet_rate,
        fresh=given.fresh,
        seed=given.seed,
        batch_size=given.batch_size,
        precision=given.precision,
        score_images=given.score_images,
    )
    bench = Bench(given.work, setting)
    shard, shards = map(int, given.shard.split("/"))
    variants = given.variants.split(";")
    if given.verb == "train":
        train_all(bench, variants)
    elif given.verb == "score":
        references = reference_of(given.reference)
        asked = Asked(given.candidates, given.starts.split(";"), variants, references, given.untrained)
        score_all(bench, asked, shard, shards)
    else:
        search_all(bench, variants[0], given.seconds, shard, shards)


if __name__ == "__main__":
    main()
