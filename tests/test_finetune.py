"""The fine-tune by every value of its recipe, on real digits: what is trained, for how long, and what is left behind."""

from __future__ import annotations

import math
import multiprocessing
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from mobile import mobile_space
from sklearn.metrics import balanced_accuracy_score, f1_score, top_k_accuracy_score
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from nas.common.errors import CandidateError, InputError
from nas.data.sets import ImageData, load_data
from nas.models.blocks import Network
from nas.models.build import build
from nas.tasks.base import Score
from nas.tasks.classification import CLASSIFICATION
from nas.tasks.classification_loss import CrossEntropy
from nas.training.augment import Mixed
from nas.training.device_data import DeviceData
from nas.training.history import EpochMetrics
from nas.training.loop import finetune, predict
from nas.training.optim import Stepper, check_recipe, faster_precision, learning_rate_at, mean_loss
from nas.training.recipe import Recipe

SPACE = mobile_space("digits")
ACCURACY = CLASSIFICATION.load_metric("accuracy")
SIDE = 8
TWO = Recipe(epochs=2, learning_rate=0.02, precision="float32")
STEPS = 16
"""Steps of 64 images in an epoch of the 1,077 digits."""

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load_data("digits", channels=1).without_test()


@pytest.fixture(scope="module")
def data(digits: ImageData) -> DeviceData:
    return DeviceData(digits, "cpu")


@pytest.fixture(scope="module")
def few(digits: ImageData) -> DeviceData:
    """A hundred images to train by, and to score by."""
    hundred = np.arange(100)
    train, validation = digits.train.subset(hundred), digits.validation.subset(hundred)
    return DeviceData(replace(digits, train=train, validation=validation), "cpu")


def fresh(seed: int = 0, classes: int = 10) -> Network:
    """The backbone: a stem, two stages of two blocks, a head."""
    return build(SPACE.backbone, classes, seed)


def small(classes: int = 10) -> Network:
    """Its first stage alone, which learns something in two epochs in a third of the time."""
    return build(replace(SPACE.backbone, layers=SPACE.backbone.layers[:2]), classes)


def tiny() -> Network:
    """Its first block alone, where nothing need be learned."""
    return build(replace(SPACE.backbone, layers=SPACE.backbone.layers[:1]), 10)


def train(model: nn.Module, data: DeviceData, recipe: Recipe, seed: int = 0) -> list[EpochMetrics]:
    return list(finetune(model, data, SIDE, recipe, ACCURACY, seed=seed))


def trained_to(history: list[EpochMetrics]) -> list[float]:
    """The training loss of each epoch."""
    return [epoch.train_loss for epoch in history if epoch.train_loss is not None]


def copied(model: nn.Module) -> State:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed(before: State, model: nn.Module) -> set[str]:
    """Names of the tensors, batch norm statistics too, that are not the same to the bit."""
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


def named(recipe: Recipe) -> str:
    """What a recipe changes."""
    return " ".join(f"{key}={value}" for key, value in vars(recipe).items() if value != getattr(Recipe(), key))


def steps_taken(model: Network) -> int:
    counter = model.head.norm.num_batches_tracked  # type: ignore[union-attr]
    assert isinstance(counter, torch.Tensor)
    return int(counter)


@contextmanager
def after_each_step(look: Callable[[], None]) -> Iterator[None]:
    """Look after each step of any of torch's optimisers."""
    handle = register_optimizer_step_post_hook(lambda *_: look())
    try:
        yield
    finally:
        handle.remove()


# ---------------------------------------------------------------- learning rate


@pytest.mark.parametrize("warmup", [0.0, 0.25, 0.9])
def test_one_cycle_starts_at_a_25th_rises_to_the_peak_and_ends_near_nothing(warmup: float) -> None:
    recipe = Recipe(learning_rate=0.5, schedule="onecycle", warmup=warmup)
    rates = [learning_rate_at(step / 1000, recipe) for step in range(1001)]
    assert rates[0] == pytest.approx(0.5 if warmup == 0 else 0.5 / 25)
    assert max(rates) == pytest.approx(0.5)
    assert rates.index(max(rates)) == 1000 * warmup
    assert 0 < rates[-1] < 1e-5
    peak = int(1000 * warmup)
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_one_cycle_is_torchs() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.5, total_steps=401, pct_start=0.3)
    for step in range(401):
        # Torch ends the warm-up up to a step before ours.
        ours = learning_rate_at(step / 400, Recipe(learning_rate=0.5, warmup=0.3))
        assert ours == pytest.approx(theirs.get_last_lr()[0], abs=5e-3)
        if step < 400:
            optimizer.step()
            theirs.step()


@pytest.mark.parametrize("warmup", [0.0, 0.25, 0.9])
def test_cosine_warms_up_along_a_line_and_ends_at_zero(warmup: float) -> None:
    recipe = Recipe(learning_rate=0.5, schedule="cosine", warmup=warmup)
    assert learning_rate_at(0.0, recipe) == (0.5 if warmup == 0 else 0.0)
    assert learning_rate_at(warmup / 2, recipe) == pytest.approx(0.25 if warmup else 0.5)
    assert learning_rate_at(warmup, recipe) == 0.5
    assert learning_rate_at((1 + warmup) / 2, recipe) == pytest.approx(0.25)
    assert learning_rate_at(1.0, recipe) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(epochs=2),
        Recipe(steps=STEPS + 3),
        Recipe(epochs=2, steps=1000, seconds=1e6),
        Recipe(epochs=2, schedule="cosine", optimizer="sgd"),
    ],
    ids=named,
)
def test_the_whole_schedule_is_gone_through_whatever_ends_the_training(data: DeviceData, recipe: Recipe) -> None:
    rates = [epoch.learning_rate for epoch in train(tiny(), data, recipe)]
    assert len(rates) == 2
    steps = min(recipe.steps or 1000, recipe.epochs * STEPS)
    expected = [learning_rate_at((done - 0.5) / steps, recipe) for done in (STEPS, steps)]
    assert rates == pytest.approx(expected)
    assert expected[1] < 0.02 * recipe.learning_rate


# ---------------------------------------------------------------- length


@pytest.mark.parametrize(
    ("recipe", "epochs", "steps"),
    [
        (Recipe(epochs=2), 2, 2 * STEPS),
        (Recipe(epochs=9, steps=5), 1, 5),
        (Recipe(epochs=9, steps=STEPS), 1, STEPS),
        (Recipe(epochs=9, steps=STEPS + 1), 2, STEPS + 1),
        (Recipe(epochs=1, steps=1000), 1, STEPS),
        (Recipe(epochs=9, seconds=1e-9), 1, 1),
        (Recipe(epochs=1, seconds=1e6), 1, STEPS),
        (Recipe(epochs=9, seconds=1e6, steps=3), 1, 3),
        (Recipe(epochs=1, batch_size=500), 1, 2),
        (Recipe(epochs=2, batch_size=10**6), 2, 2),
    ],
    ids=lambda value: named(value) if isinstance(value, Recipe) else str(value),
)
def test_the_first_budget_to_be_reached_ends_the_training(
    data: DeviceData, recipe: Recipe, epochs: int, steps: int
) -> None:
    model = tiny()
    history = train(model, data, recipe)
    assert [epoch.epoch for epoch in history] == list(range(1, epochs + 1))
    assert steps_taken(model) == steps
    assert not model.training


def test_a_budget_of_time_ends_amid_an_epoch(data: DeviceData) -> None:
    model = fresh()
    train(model, data, Recipe(epochs=10_000, seconds=0.3))
    # Some steps, of 160,000: however slow or fast the machine is.
    assert 1 < steps_taken(model) < 10_000


def test_patience_ends_a_training_that_does_not_get_better(few: DeviceData) -> None:
    for patience, epochs in ((1, 2), (3, 4), (0, 5)):
        history = finetune(
            small(),
            few,
            SIDE,
            Recipe(epochs=5, patience=patience, batch_size=1000),
            Score("given", lambda *_: 0.5),
            seed=0,
        )
        assert [epoch.epoch for epoch in history] == list(range(1, epochs + 1))


def test_patience_counts_from_the_best_epoch(few: DeviceData) -> None:
    scores = iter([0.1, 0.3, 0.2, 0.4, 0.3, 0.4, 0.9])
    recipe = Recipe(epochs=7, patience=2, batch_size=1000)
    history = list(finetune(small(), few, SIDE, recipe, Score("given", lambda *_: next(scores)), seed=0))
    assert [epoch.score for epoch in history] == [0.1, 0.3, 0.2, 0.4, 0.3, 0.4]  # as good is no better


# ---------------------------------------------------------------- optimiser


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_weight_decay_spares_batch_norm_and_biases(data: DeviceData, optimizer: Any) -> None:
    model = fresh()
    with torch.no_grad():
        model.classifier.bias.fill_(1.0)
    before = copied(model)
    recipe = Recipe(
        steps=1, optimizer=optimizer, schedule="cosine", warmup=0.0, momentum=0.0, learning_rate=2e-7, weight_decay=1e6
    )
    train(model, data, recipe)
    for name, parameter in model.named_parameters():
        factor = (
            0.9 if parameter.ndim > 1 else 1.0
        )  # 1 - learning rate times decay; a single step is in the middle of the schedule
        torch.testing.assert_close(parameter.detach(), factor * before[name], rtol=1e-4, atol=1e-5, msg=name)


def length_of_a_step(data: DeviceData, **changes: Any) -> float:
    """How far one step of SGD at half of the peak, a learning rate of 1, moves all parameters together: the norm of the gradient."""
    model = fresh()
    before = copied(model)
    plain = Recipe(
        steps=1, optimizer="sgd", schedule="cosine", warmup=0.0, momentum=0.0, learning_rate=2.0, weight_decay=0.0
    )
    train(model, data, replace(plain, **changes))
    moved = [(parameter.detach() - before[name]).square().sum() for name, parameter in model.named_parameters()]
    return torch.stack(moved).sum().sqrt().item()


def test_the_gradient_is_clipped_to_its_largest_norm(data: DeviceData) -> None:
    whole = length_of_a_step(data)
    assert length_of_a_step(data, clip_norm=whole / 10) == pytest.approx(whole / 10, rel=1e-3)
    assert length_of_a_step(data, clip_norm=whole * 2) == pytest.approx(whole, rel=1e-6)
    assert length_of_a_step(data, clip_norm=0.0) == whole


def test_the_momentum_is_that_of_the_recipe(data: DeviceData) -> None:
    # Nesterov's first step is 1 + momentum times the gradient.
    assert length_of_a_step(data, momentum=0.5) == pytest.approx(1.5 * length_of_a_step(data), rel=1e-4)


def test_the_averaged_weights_are_scored_and_left(data: DeviceData) -> None:
    model, recipe = small(), replace(TWO, ema=0.8)
    average = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    step = 0

    def follow() -> None:
        nonlocal step
        step += 1
        decay = min(0.8, step / (step + 10))  # the first steps count less, or the fresh weights would stay in it
        for name, parameter in model.named_parameters():
            average[name].mul_(decay).add_(parameter.detach(), alpha=1 - decay)

    with after_each_step(follow):
        history = train(model, data, recipe)
    assert step == 2 * STEPS
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), average[name], rtol=1e-4, atol=1e-6)
    assert predict(model, data, data.validation, SIDE).loss == history[-1].validation_loss
    without = small()
    plain = train(without, data, replace(recipe, ema=0.0))
    assert [epoch.train_loss for epoch in plain] == [epoch.train_loss for epoch in history]  # it only follows
    assert plain[-1].validation_loss != history[-1].validation_loss
    assert changed(copied(without), model) >= {"stem.conv.weight", "stem.norm.running_var", "classifier.bias"}


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_of_a_mixed_image_is_that_of_both_labels_in_their_shares(smoothing: float) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(12, 1, SIDE, SIDE, generator=generator)
    labels, others = torch.randint(10, (2, 12), generator=generator)
    share, weights = torch.rand(12, generator=generator), torch.rand(10, generator=generator)
    logits = fresh().train()(images).detach()
    soft = share[:, None] * nn.functional.one_hot(labels, 10) + (1 - share)[:, None] * nn.functional.one_hot(others, 10)
    recipe = Recipe(label_smoothing=smoothing)

    def loss(mixed: Mixed | None, weights: torch.Tensor | None = None) -> torch.Tensor:
        cross_entropy = CrossEntropy(labels, 10, recipe.label_smoothing)
        if weights is not None:
            cross_entropy.class_weights = weights
        stepper = Stepper(fresh().train(), recipe, torch.device("cpu"))
        raw = stepper.forward(images)
        return stepper.backward_and_step([mean_loss(cross_entropy, raw, labels, mixed, weights is not None)])

    expected = nn.functional.cross_entropy(logits, soft, label_smoothing=smoothing)
    torch.testing.assert_close(loss(Mixed(images, others, share)), expected)
    # With class weights each image weighs as its own class; the smoothed share of the other classes is not weighed.
    weighed = share[:, None] * nn.functional.one_hot(labels, 10) * weights
    weighed = weighed + (1 - share)[:, None] * nn.functional.one_hot(others, 10) * weights
    target = (1 - smoothing) * weighed + smoothing * weighed.sum(1, keepdim=True) / 10
    expected = -(target * logits.log_softmax(1)).sum() / weighed.sum()
    torch.testing.assert_close(loss(Mixed(images, others, share), weights), expected)
    expected = nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing)
    torch.testing.assert_close(loss(None), expected)


# ---------------------------------------------------------------- what is trained


def of(*fronts: str) -> set[str]:
    """Names of the tensors of these parts of the backbone."""
    return {name for name in fresh().state_dict() if name.startswith(fronts)}


@pytest.mark.parametrize(
    ("trainable", "trained"),
    [
        ("head", of("head", "classifier")),
        ("head+1", of("head", "classifier", "blocks.2", "blocks.3")),
        ("head+2", of("head", "classifier", "blocks")),
        ("head+3", of("")),
        ("head+99", of("")),
        ("gradual", of("")),
        ("all", of("")),
    ],
)
def test_what_is_frozen_stays_to_the_bit_statistics_too(data: DeviceData, trainable: str, trained: set[str]) -> None:
    model = fresh()
    before = copied(model)
    # Averaged weights and weight decay must not move it either.
    train(model, data, Recipe(epochs=1, steps=6, trainable=trainable, ema=0.5, weight_decay=1.0))
    assert changed(before, model) == trained
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module.training for module in model.modules())


def test_gradual_opens_part_after_part_from_the_head_and_all_by_half_of_the_training(data: DeviceData) -> None:
    model = fresh()
    before = copied(model)
    parts = ["classifier", "head", "blocks.3", "blocks.2", "blocks.1", "blocks.0", "stem"]
    first: dict[str, int] = {}
    step = 0

    def look() -> None:
        nonlocal step
        step += 1
        for name in changed(before, model):
            first.setdefault(next(part for part in parts if name.startswith(part)), step)

    with after_each_step(look):
        train(model, data, Recipe(epochs=2, trainable="gradual"))
    opened = [first[part] for part in parts]
    assert opened == sorted(opened)
    assert first["classifier"] == first["head"] == 1
    assert first["blocks.3"] == first["blocks.2"]
    assert first["blocks.1"] == first["blocks.0"]
    assert 1 < first["blocks.2"] < first["blocks.0"] < first["stem"] <= STEPS + 1


def test_a_frozen_network_learns_by_its_head(data: DeviceData) -> None:
    history = train(fresh(), data, Recipe(epochs=3, trainable="head"))
    assert trained_to(history)[-1] < trained_to(history)[0] - 0.05


def test_a_network_without_stages_trains_as_a_whole_only(data: DeviceData) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(CandidateError, match=r"^Sequential has no stages to freeze; use trainable all$"):
        train(model, data, Recipe(trainable="head"))
    assert train(model, data, Recipe(epochs=3, dropout=0.2, ema=0.5))[-1].score > 0.5


# ---------------------------------------------------------------- dropout, classes


def test_dropout_is_before_the_classifier_while_training_only(data: DeviceData) -> None:
    model = fresh()
    whole: list[torch.Tensor] = []
    dropped: list[torch.Tensor] = []
    trained: list[bool] = []

    def keep(kept: list[torch.Tensor]) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        return lambda module, inputs: kept.append(inputs[0].detach().clone())

    model.classifier.register_forward_pre_hook(keep(whole))
    training = finetune(model, data, SIDE, Recipe(epochs=2, dropout=0.25), ACCURACY, seed=0)
    next(training)
    whole.clear()
    model.classifier.register_forward_pre_hook(keep(dropped))  # after the one that drops
    model.classifier.register_forward_pre_hook(lambda module, _: trained.append(module.training))
    last = list(training)[-1]
    share = []
    for active, before, after in zip(trained, whole, dropped, strict=True):
        if not active:
            assert torch.equal(before, after)
            continue
        kept = after != 0
        torch.testing.assert_close(after[kept], before[kept] / 0.75)
        share.append((~kept)[before != 0].float().mean().item())
    assert len(share) == STEPS
    assert trained.count(False) > 0
    assert np.mean(share) == pytest.approx(0.25, abs=0.03)
    assert len(set(share)) > 1
    assert len(model.classifier._forward_pre_hooks) == 3  # those of this test
    assert predict(model, data, data.validation, SIDE).loss == last.validation_loss


@pytest.fixture(scope="module")
def uneven(digits: ImageData) -> DeviceData:
    """Digits of which few are fives to nines."""
    rows = np.flatnonzero((digits.train.labels < 5) | (np.arange(len(digits.train)) % 12 == 0))
    return DeviceData(replace(digits, train=digits.train.subset(rows)), "cpu")


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
    """Labels and class weights of the steps taken."""
    seen: list[tuple[torch.Tensor, torch.Tensor | None]] = []

    def watched(
        loss: CrossEntropy, raw: torch.Tensor, labels: torch.Tensor, mixed: Mixed | None, weighed: bool
    ) -> torch.Tensor:
        seen.append((labels, loss.class_weights if weighed else None))
        return mean_loss(loss, raw, labels, mixed, weighed)

    monkeypatch.setattr("nas.training.loop.mean_loss", watched)
    return seen


Steps = list[tuple[torch.Tensor, torch.Tensor | None]]


def test_uneven_classes_come_as_they_are_by_default(uneven: DeviceData, steps: Steps) -> None:
    train(fresh(), uneven, Recipe(epochs=1, batch_size=len(uneven.train)))
    assert torch.equal(torch.cat([labels for labels, _ in steps]).bincount(), uneven.train.labels.bincount())
    assert [weights for _, weights in steps] == [None]


def test_balance_by_loss_gives_each_class_the_same_weight_in_all(uneven: DeviceData, steps: Steps) -> None:
    train(fresh(), uneven, Recipe(epochs=1, balance="loss"))
    counts = uneven.train.labels.bincount()
    for _, weights in steps:
        assert weights is not None
        torch.testing.assert_close(weights * counts, torch.full((10,), len(uneven.train) / 10))
    seen = torch.cat([labels for labels, _ in steps]).bincount(minlength=10)
    assert seen.max() > 5 * seen.min()


def test_balance_by_sampling_draws_each_class_equally_often(uneven: DeviceData, steps: Steps) -> None:
    train(fresh(), uneven, Recipe(epochs=3, balance="sampling"))
    seen = torch.cat([labels for labels, _ in steps]).bincount(minlength=10)
    expected = seen.sum().item() / 10
    assert (seen - expected).abs().max() < 5 * expected**0.5
    assert all(weights is None for _, weights in steps)


@pytest.mark.slow
def test_balancing_finds_more_of_the_rare_classes(uneven: DeviceData) -> None:
    def recall(balance: Any) -> float:
        model = small()
        train(model, uneven, Recipe(epochs=6, balance=balance, learning_rate=0.02))
        rare = uneven.data.validation.labels >= 5
        found = predict(model, uneven, uneven.validation, SIDE).predictions == uneven.data.validation.labels
        return float(found[rare].mean())

    plain = recall("none")
    assert recall("loss") > plain + 0.1
    assert recall("sampling") > plain + 0.1


@pytest.mark.slow
def test_a_very_rare_class_does_not_swallow_the_others(data: DeviceData) -> None:
    """torch's own class weights would weigh label smoothing by class, and call every image the rare one."""
    digits = data.data
    parts = [replace(part, labels=(part.labels == 1).astype(np.int64)) for part in (digits.train, digits.validation)]
    train_part = parts[0]
    keep = np.sort(
        np.concatenate([np.flatnonzero(train_part.labels == 0), np.flatnonzero(train_part.labels == 1)[:24]])
    )
    uneven = replace(digits, classes=("rest", "one"), train=train_part.subset(keep), validation=parts[1], test=None)
    model = small(classes=2)
    history = train(model, DeviceData(uneven, "cpu"), Recipe(epochs=5, balance="loss", learning_rate=0.02))
    assert history[-1].scores["balanced_accuracy"] > 0.85
    assert history[-1].scores["accuracy"] > 0.85


# ---------------------------------------------------------------- every option trains


@pytest.fixture(scope="module")
def plain(data: DeviceData) -> State:
    """The weights after two epochs without options."""
    model = small()
    train(model, data, TWO)
    return copied(model)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "sgd", "learning_rate": 0.1},
        {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.5},
        {"schedule": "cosine"},
        {"warmup": 0.0},
        {"clip_norm": 0.5},
        {"ema": 0.9},
        {"label_smoothing": 0.0},
        {"label_smoothing": 0.3},
        {"dropout": 0.3},
        {"balance": "loss"},
        {"balance": "sampling"},
        {"crop_share": 0.0, "hflip": False},
        {"hflip": True},
        {"resized_crop": 0.5},
        {"cutout": 0.3},
        {"colour": 0.4},
        {"mixup": 0.2},
        {"cutmix": 1.0},
        {"mixup": 0.2, "cutmix": 1.0, "balance": "loss"},
    ],
    ids=str,
)
def test_each_option_trains_and_does_something(data: DeviceData, plain: State, options: dict[str, Any]) -> None:
    model = small()
    history = train(model, data, replace(TWO, **options))
    assert all(map(math.isfinite, trained_to(history)))
    assert trained_to(history)[-1] < trained_to(history)[0] - 0.05
    assert history[-1].score > 0.2  # chance is 0.1
    assert all(p.dtype is torch.float32 and torch.isfinite(p).all() for p in model.parameters())
    assert changed(plain, model)


EVERYTHING_RANDOM = Recipe(
    epochs=2,
    precision="float32",
    dropout=0.2,
    balance="sampling",
    ema=0.9,
    trainable="gradual",
    hflip=True,
    crop_share=0.25,
    resized_crop=0.5,
    cutout=0.25,
    colour=0.3,
    mixup=0.2,
    cutmix=1.0,
)


def losses(history: list[EpochMetrics]) -> list[tuple[float | None, float, float]]:
    return [(epoch.train_loss, epoch.validation_loss, epoch.score) for epoch in history]


def test_the_seed_alone_decides(few: DeviceData) -> None:
    models, results = [small(), small(), small()], []
    for number, (model, seed) in enumerate(zip(models, (5, 5, 6), strict=True)):
        torch.manual_seed(number)  # nothing is drawn from the generator that all share
        np.random.seed(number)
        results.append(losses(train(model, few, EVERYTHING_RANDOM, seed)))
        assert torch.initial_seed() == number
    assert results[0] == results[1] != results[2]
    assert changed(copied(models[0]), models[1]) == set()


@pytest.mark.subprocess
def test_images_read_by_workers_train_the_same(digits: ImageData) -> None:
    recipe = replace(EVERYTHING_RANDOM, steps=3, batch_size=256)  # ends amid an epoch
    part = replace(digits, validation=digits.validation.subset(np.arange(100)))
    models = [small(), small()]
    resident, streamed = (
        losses(train(model, DeviceData(part, "cpu", resident=resident), recipe))
        for model, resident in zip(models, (True, False), strict=True)
    )
    assert resident == streamed
    assert changed(copied(models[0]), models[1]) == set()
    assert multiprocessing.active_children() == []


def test_a_training_that_is_left_early_leaves_the_model_free(data: DeviceData) -> None:
    model = fresh()
    recipe = Recipe(epochs=5, dropout=0.5, trainable="head", ema=0.9)
    training = finetune(model, data, SIDE, recipe, ACCURACY, seed=0)
    next(training)
    assert not all(parameter.requires_grad for parameter in model.parameters())
    assert model.classifier._forward_pre_hooks
    training.close()  # type: ignore[attr-defined]
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())


# ---------------------------------------------------------------- precision, compilation


def test_bfloat16_steps_leave_a_float32_network_of_about_the_same_loss(data: DeviceData) -> None:
    model, recipe = small(), replace(TWO, batch_size=512, learning_rate=0.05)
    low = train(model, data, replace(recipe, precision="bfloat16"))
    full = train(small(), data, recipe)
    assert trained_to(low)[1] < trained_to(low)[0]
    assert low[0].train_loss != full[0].train_loss
    assert low[-1].train_loss == pytest.approx(full[-1].train_loss, rel=0.1)
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32, torch.int64}


def test_the_faster_precision_is_one_of_two_and_the_model_is_left_alone() -> None:
    model = small().eval()
    before = copied(model)
    images = torch.rand(64, 1, SIDE, SIDE)
    given = images.clone()
    assert faster_precision(model, images, Recipe(precision="auto", ema=0.9)) in ("float32", "bfloat16")
    assert changed(before, model) == set()
    assert not model.training
    assert torch.equal(images, given)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_what_a_cpu_cannot_do_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for precision in ("auto", "float32", "bfloat16"):
        check_recipe(Recipe(precision=precision), "cpu")  # type: ignore[arg-type]
    check_recipe(Recipe(precision="float16"), "cuda:0")
    with pytest.raises(InputError, match=r"^precision float16: only on cuda; use auto, float32 or bfloat16 on a CPU$"):
        check_recipe(Recipe(precision="float16"), "cpu")
    monkeypatch.setenv("CXX", "no-compiler-of-that-name")
    check_recipe(Recipe(compile=True), "cuda")
    with pytest.raises(InputError, match=r"^compile true: .*needs a C\+\+ compiler"):
        check_recipe(Recipe(compile=True), "cpu")


@pytest.mark.subprocess
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.timeout(240)
def test_a_compiled_step_is_the_plain_one_and_leaves_a_plain_network(
    data: DeviceData, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[nn.Module] = []
    original = torch.compile

    def watched(model: nn.Module) -> Any:
        compiled.append(model)
        return original(model)

    monkeypatch.setattr(torch, "compile", watched)
    torch._dynamo.reset()
    smallest = replace(SPACE.smallest, layers=SPACE.smallest.layers[:1])  # each kernel of C++ takes a second
    models = [build(smallest, 10), build(smallest, 10)]
    recipe = Recipe(steps=1, batch_size=512, dropout=0.3, precision="float32")
    fast, plain = (
        train(model, data, replace(recipe, compile=choice))[-1]
        for model, choice in zip(models, (True, False), strict=True)
    )
    assert compiled == [models[0]]
    assert fast.train_loss == pytest.approx(plain.train_loss, rel=1e-4)
    assert fast.validation_loss == pytest.approx(plain.validation_loss, rel=1e-3)
    assert list(models[0].state_dict()) == list(models[1].state_dict())


# ---------------------------------------------------------------- metrics


def test_metrics_of_each_epoch_are_those_of_scikit_learn(data: DeviceData) -> None:
    labels = data.data.validation.labels
    model = small()
    training = finetune(model, data, SIDE, TWO, CLASSIFICATION.load_metric("macro_f1"), seed=0)
    number = 0
    for number, epoch in enumerate(training, start=1):
        predicted = predict(model, data, data.validation, SIDE)
        assert epoch.epoch == number
        assert epoch.scores["accuracy"] == pytest.approx((predicted.predictions == labels).mean())
        assert (
            epoch.scores["macro_f1"]
            == epoch.score
            == pytest.approx(f1_score(labels, predicted.predictions, average="macro"))
        )
        assert epoch.scores["balanced_accuracy"] == pytest.approx(
            balanced_accuracy_score(labels, predicted.predictions)
        )
        assert epoch.scores["accuracy"] <= epoch.scores["top5"] <= 1
        with torch.inference_mode():
            logits = model(data.prepare(torch.from_numpy(data.data.validation.images), SIDE))
        assert epoch.scores["top5"] == pytest.approx(top_k_accuracy_score(labels, logits.numpy(), k=5))
        assert epoch.validation_loss == pytest.approx(
            nn.functional.cross_entropy(logits, torch.from_numpy(labels)).item(), rel=1e-5
        )
    assert number == 2
