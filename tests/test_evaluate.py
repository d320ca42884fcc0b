"""One candidate, start to end: real fine-tuning, order of the steps, failures as data."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import RunFactory
from mobile import mobile_space
from safetensors.torch import load_file, save_file
from torch import nn

import nas.search.evaluate
from nas.common.errors import CandidateError, InputError
from nas.common.files import weights_content
from nas.data.sets import ImageData, load_data
from nas.export.folder import ExportOptions, export_candidate
from nas.latency.lease import DeviceLease
from nas.latency.protocol import LatencyProtocol
from nas.latency.result import Latency
from nas.models.backbones import load_backbone
from nas.models.build import build
from nas.models.weights import load_weights
from nas.runs.limits import budget_violation
from nas.runs.record import Outcome, TrialRecord
from nas.runs.settings import Budgets, EvaluationSettings, LatencyTarget
from nas.runs.store import RunDirectory
from nas.search.conditions import data_of
from nas.search.evaluate import Evaluated, evaluate_candidate
from nas.spaces.base import Cost
from nas.spaces.families import architecture_cost
from nas.tasks.classification import CLASSIFICATION
from nas.training.device_data import DeviceData
from nas.training.images import normalised_for
from nas.training.loop import finetune, predict
from nas.training.recipe import Recipe

SPACE = mobile_space("digits")
QUICK = LatencyProtocol(warmup_s=0.02, block_ms=0.1, min_blocks=5, max_s=0.02, attempts=1)
BRIEF = Recipe(epochs=1, precision="float32")
"""With a precision of its own: the timing that settles `auto` may choose another the next time."""
SETTINGS = EvaluationSettings(recipe=replace(BRIEF, epochs=2), protocol=QUICK)


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load_data("digits", channels=1).without_test()


@pytest.fixture(scope="module")
def learned(digits: ImageData) -> Evaluated:
    """The backbone, trained until it knows most digits."""
    return evaluate_candidate(SPACE.backbone, digits, replace(SETTINGS, recipe=replace(BRIEF, epochs=6)))


def test_a_brief_finetune_learns_real_digits(digits: ImageData, learned: Evaluated) -> None:
    result, evaluation = learned, learned.evaluation
    assert evaluation.outcome is Outcome.DONE
    assert evaluation.reason is None
    assert [epoch.epoch for epoch in evaluation.history] == [1, 2, 3, 4, 5, 6]
    assert evaluation.history[-1].score > 0.9  # chance is 0.1
    first, last = (evaluation.history[i].train_loss for i in (0, -1))
    assert first is not None
    assert last is not None
    assert last < first
    assert evaluation.cost is not None
    assert evaluation.latency is not None
    # The score is that of the network handed back, on the validation split.
    assert result.network is not None
    data = DeviceData(digits, "cpu")
    predictions = predict(result.network, data, data.validation, 8).predictions
    assert (predictions == digits.validation.labels).mean() == evaluation.history[-1].score


def test_the_same_seed_gives_the_same_network_and_another_seed_another(digits: ImageData) -> None:
    scores = [
        [epoch.train_loss for epoch in evaluate_candidate(SPACE.smallest, digits, s).evaluation.history]
        for s in (SETTINGS, SETTINGS, replace(SETTINGS, seed=1))
    ]
    assert scores[0] == scores[1] != scores[2]


@pytest.mark.parametrize(("epochs", "batch_size"), [(1, 1000), (2, 1000), (3, 1000), (1, 300), (1, 500)])
def test_trainings_of_a_few_steps(digits: ImageData, epochs: int, batch_size: int) -> None:
    recipe = replace(BRIEF, epochs=epochs, batch_size=batch_size)
    assert evaluate_candidate(SPACE.smallest, digits, replace(SETTINGS, recipe=recipe)).evaluation.reason is None


def test_other_input_sizes_are_resized_to(digits: ImageData) -> None:
    larger = replace(SPACE.smallest, input_size=12)
    evaluation = evaluate_candidate(larger, digits, replace(SETTINGS, recipe=BRIEF)).evaluation
    assert evaluation.outcome is Outcome.DONE
    assert evaluation.latency is not None
    assert evaluation.latency.input_shape == (1, 1, 12, 12)


@pytest.mark.parametrize(
    ("budgets", "reason"),
    [
        (Budgets(max_macs=1000), r"[\d,]{6,} MACs, [\d,]+ times the budget of 1,000"),
        (Budgets(max_params=10), r"[\d,]{4,} parameters, [\d,]+ times the budget of 10"),
        (Budgets(max_latency_ms=1e-6), r"\d\.\d{3} ms, [\d,]+ times the budget of 1e-06 ms"),
    ],
)
def test_a_candidate_over_a_hard_budget_is_rejected_before_training(
    digits: ImageData, budgets: Budgets, reason: str
) -> None:
    evaluation = evaluate_candidate(SPACE.backbone, digits, replace(SETTINGS, budgets=budgets)).evaluation
    assert evaluation.outcome is Outcome.REJECTED
    assert evaluation.history == ()
    assert re.fullmatch(reason, evaluation.reason or "")
    assert evaluation.violation > 0
    assert evaluation.cost is not None
    assert (evaluation.latency is not None) == (budgets.max_latency_ms is not None)


def test_a_candidate_with_too_many_macs_is_neither_built_nor_measured(
    digits: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in ("build", "known_peak", "candidate_latency"):
        monkeypatch.setattr(nas.search.evaluate, step, lambda *_: pytest.fail("not cheapest first"))
    cost = architecture_cost(SPACE.backbone, 10)
    budgets = Budgets(max_macs=cost.macs - 1, max_params=cost.params - 1, max_latency_ms=1e-6)
    evaluation = evaluate_candidate(SPACE.backbone, digits, replace(SETTINGS, budgets=budgets)).evaluation
    assert evaluation.outcome is Outcome.REJECTED
    assert evaluation.cost == cost
    assert evaluation.violation == pytest.approx(1 / (cost.params - 1))  # the worse one of the two


def test_a_budget_met_exactly_is_met(digits: ImageData) -> None:
    cost = architecture_cost(SPACE.smallest, 10)
    budgets = Budgets(max_macs=cost.macs, max_params=cost.params)
    settings = replace(SETTINGS, recipe=BRIEF, budgets=budgets)
    evaluation = evaluate_candidate(SPACE.smallest, digits, settings).evaluation
    assert (evaluation.outcome, evaluation.violation) == (Outcome.DONE, 0.0)


def test_a_loss_that_is_not_a_number_fails_the_candidate(digits: ImageData) -> None:
    diverging = replace(SETTINGS, recipe=replace(BRIEF, learning_rate=1e30))
    result = evaluate_candidate(SPACE.smallest, digits, diverging)
    assert result.evaluation.outcome is Outcome.FAILED
    assert result.network is None
    assert "the training loss became" in (result.evaluation.reason or "") or "not finite" in (
        result.evaluation.reason or ""
    )


def test_whatever_a_candidate_raises_becomes_its_reason(digits: ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.\nTried to allocate 20 GiB")

    monkeypatch.setattr(nas.search.evaluate, "build", lambda *_: Broken())
    monkeypatch.setenv("NAS_LATENCY_CACHE", "off")  # another test may have measured the candidate of this name
    evaluation = evaluate_candidate(SPACE.smallest, digits, SETTINGS).evaluation
    assert evaluation.outcome is Outcome.FAILED
    assert evaluation.reason == (
        "latency could not be measured in mode eager: OutOfMemoryError: CUDA out of memory. Tried to allocate 20 GiB"
    )


def nan_metric(labels: np.ndarray, predictions: np.ndarray) -> float:
    return math.nan


def half_metric(labels: np.ndarray, predictions: np.ndarray) -> float:
    assert labels.shape == predictions.shape
    return 0.5


def test_a_metric_of_the_users_own_scores_the_candidate(digits: ImageData) -> None:
    one_epoch = replace(SETTINGS, recipe=BRIEF)
    half = evaluate_candidate(SPACE.smallest, digits, replace(one_epoch, metric="test_evaluate:half_metric"))
    assert half.evaluation.history[-1].score == 0.5
    assert half.evaluation.history[-1].scores["accuracy"] != 0.5
    nan = evaluate_candidate(SPACE.smallest, digits, replace(one_epoch, metric="test_evaluate:nan_metric"))
    assert nan.evaluation.outcome is Outcome.FAILED
    assert nan.evaluation.reason == "the metric gave nan"


def test_metrics_by_hand() -> None:
    labels, predictions = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    assert CLASSIFICATION.load_metric("accuracy")(labels, predictions) == 0.75
    assert CLASSIFICATION.load_metric("balanced_accuracy")(labels, predictions) == pytest.approx((2 / 3 + 1) / 2)
    assert CLASSIFICATION.load_metric("macro_f1")(labels, predictions) == pytest.approx((0.8 + 2 / 3) / 2)
    for name in ("nope", "no_module_of_that_name:f", "math:nope", "math:pi", ":f", ".a:f", "antigravity_\0:f"):
        with pytest.raises(InputError):
            CLASSIFICATION.load_metric(name)


@pytest.mark.subprocess
@pytest.mark.slow
def test_inherited_weights_start_well_and_what_is_fresh_is_recorded(
    digits: ImageData, learned: Evaluated, make_run: RunFactory, tmp_path: Path
) -> None:
    assert learned.network is not None
    run = make_run()
    run.save_weights(SPACE.backbone.digest, weights_content(learned.network.state_dict()))
    record = TrialRecord(
        0,
        SPACE.backbone.digest,
        str(SPACE.backbone),
        SPACE.backbone,
        {},
        learned.evaluation,
        {"accuracy": 1.0, "latency": 1.0},
    )
    folder = export_candidate(run, record, tmp_path / "model", ExportOptions(measure=False))
    inheriting = replace(SETTINGS, recipe=replace(BRIEF, learning_rate=1e-3), init=str(folder))
    data = normalised_for(digits, load_weights(str(folder)))
    narrow = replace(SPACE.backbone, layers=tuple(replace(layer, expansion=2) for layer in SPACE.backbone.layers))
    inherited = evaluate_candidate(narrow, data, inheriting).evaluation
    scratch = evaluate_candidate(narrow, digits, replace(inheriting, init="scratch")).evaluation
    assert inherited.fresh == ()
    assert inherited.history[-1].score > scratch.history[-1].score + 0.2
    wider = replace(SPACE.backbone, head_channels=0)
    assert evaluate_candidate(wider, data, inheriting).evaluation.fresh == ("classifier",)
    _a_run_does_not_go_on_from_other_weights_of_that_name(run, folder, data)


def _a_run_does_not_go_on_from_other_weights_of_that_name(run: RunDirectory, folder: Path, data: ImageData) -> None:
    settings = replace(run.settings, evaluation=replace(run.settings.evaluation, init=str(folder)))
    began = replace(
        run.provenance, data_fingerprint=data.fingerprint(), init_fingerprint=load_backbone(str(folder)).fingerprint()
    )
    inheriting = RunDirectory(run.path, replace(run.content, settings=settings, provenance=began))
    assert data_of(inheriting).fingerprint() == data.fingerprint()
    other = {name: tensor + 1 for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(other, folder / "model.safetensors")
    load_weights.cache_clear()
    with pytest.raises(InputError, match=r"the weights .* have changed since the search began"):
        data_of(inheriting)


def test_training_holds_the_lease_in_bursts_and_leaves_it_free(
    digits: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[str] = []
    original = DeviceLease.shared

    def watched(self: DeviceLease) -> object:
        held.append(self.key)
        return original(self)

    monkeypatch.setattr(DeviceLease, "shared", watched)
    model = build(SPACE.smallest, 10)
    data = DeviceData(digits, "cpu")
    lease = DeviceLease("burst-test")
    for _ in finetune(model, data, 8, Recipe(epochs=1), CLASSIFICATION.load_metric("accuracy"), seed=0, lease=lease):
        with DeviceLease("burst-test", patience_s=0).exclusive() as grant:
            assert not grant.contended  # nothing is held between epochs
    assert held
    assert set(held) == {"burst-test"}
    with torch.no_grad():
        model.classifier.bias.fill_(math.inf)
    with pytest.raises(CandidateError):
        predict(model, data, data.validation, 8, lease=lease)
    with DeviceLease("burst-test", patience_s=0).exclusive() as grant:
        assert not grant.contended  # nor after an error


@pytest.mark.parametrize(("contended", "over"), [(False, True), (True, False)])
def test_neighbours_do_not_get_a_fast_network_rejected(contended: bool, over: bool) -> None:
    latency = Latency(2.0, 0.8, 9.0, 1.0, 30, 1, True, contended, 0.0, True, "a", (1, 1, 8, 8), LatencyProtocol())
    violation, reason = budget_violation(Budgets(max_latency_ms=1.0), Cost(1, 1), latency)
    assert (violation > 0) == over
    assert (reason is not None) == over


@pytest.mark.parametrize(
    ("low", "high", "flaw", "over"),
    [
        (0.9, 3.1, {"noisy": True}, False),  # it may be within the budget
        (0.9, 3.1, {"contended": True}, False),
        (1.2, 3.1, {"noisy": True}, True),  # noise or not
        (1.2, 3.1, {"contended": True}, True),
        (1.98, 2.02, {}, True),
    ],
)
def test_a_latency_that_is_not_sure_is_over_a_budget_where_all_of_its_interval_is(
    low: float, high: float, flaw: dict[str, Any], over: bool
) -> None:
    latency = Latency(2.0, 0.8, 9.0, 1.0, 30, 1, False, False, 0.0, True, "a", (1, 1, 8, 8), LatencyProtocol())
    latency = replace(latency, interval_ms=(low, high), **flaw)
    target = LatencyTarget("edge", LatencyProtocol(), max_ms=1.0)
    for violation, _ in (
        budget_violation(Budgets(max_latency_ms=1.0), Cost(1, 1), latency),
        budget_violation(Budgets(), Cost(1, 1), None, [(target, latency)]),
    ):
        assert (violation > 0) == over


def test_what_a_budget_is_held_against_is_the_value_of_the_estimator() -> None:
    latency = Latency(
        2.0, 0.8, 9.0, 1.0, 30, 1, False, False, 0.0, True, "a", (1, 1, 8, 8), LatencyProtocol(),
        process_p25_ms=0.9, estimator="lower quartile of process time", interval_ms=(0.89, 0.91),
    )  # fmt: skip
    assert budget_violation(Budgets(max_latency_ms=1.0), Cost(1, 1), latency) == (0.0, None)
