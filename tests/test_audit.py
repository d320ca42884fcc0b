"""The audit: its statistics against known values, what it trains, its verdicts, and one on real Ray."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from commands import call
from conftest import RunFactory

import nas
from nas.common.errors import InputError
from nas.data.sets import load_data
from nas.latency.device import device_name
from nas.latency.protocol import LatencyProtocol
from nas.latency.result import Latency
from nas.runs.front import pareto_front
from nas.runs.objectives import objective_values
from nas.runs.record import Evaluation, Outcome, TrialRecord
from nas.runs.run_file import Provenance
from nas.runs.settings import EvaluationSettings, SearchSettings
from nas.runs.store import RunDirectory, open_run
from nas.search.broker import MAX_LOSSES
from nas.search.ending import MAX_LOSSES_IN_A_ROW
from nas.search.evaluate import evaluate_candidate
from nas.spaces.families import architecture_cost
from nas.spaces.files import load_space
from nas.training.history import EpochMetrics
from nas.training.recipe import Recipe
from nas.views.report import write_report
from nas.workflows.fidelity.agreement import (
    Coefficient,
    Floats,
    attenuated,
    interval,
    mean_correlation,
    rank_correlation,
    repeatability,
    resamples,
    spearman,
)
from nas.workflows.fidelity.audit import Audit, audit_of, choose, conclude, full_recipe
from nas.workflows.fidelity.auditing import Auditor, plan_audit, run_audit
from nas.workflows.fidelity.ranking import MARGIN, Audited

SPACE = load_space("digits")
OBJECTIVES = ("accuracy", "latency")
BRIEF, FULL = Recipe(epochs=2), Recipe(epochs=8)


# ---------------------------------------------------------------- statistics


def once(candidates: int) -> Floats:
    """No bootstrap: the sample itself."""
    return np.ones((1, candidates))


@pytest.mark.parametrize(
    ("a", "b", "kendall", "rho"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 40], 1.0, 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0, -1.0),
        ([1, 2, 3, 4], [1, 2, 4, 3], 4 / 6, 0.8),  # one of six pairs in the wrong order; 1 - 6 * 2 / (4 * 15)
        ([1, 1, 2, 3], [1, 2, 2, 3], 0.8, 5 / 6),  # 4 of 5 untied pairs each; mean ranks 1.5 1.5 3 4 and 1 2.5 2.5 4
    ],
)
def test_coefficients_of_small_samples(a: list[float], b: list[float], kendall: float, rho: float) -> None:
    assert rank_correlation("kendall", a, b, once(4))[0] == pytest.approx(kendall)
    assert spearman(a, b) == pytest.approx(rho)


def test_a_constant_score_ranks_nothing() -> None:
    assert np.isnan(rank_correlation("kendall", [1, 1, 1], [1, 2, 3], once(3))).all()
    assert np.isnan(spearman([1, 2, 3], [1, 1, 1]))
    assert np.isnan(interval(rank_correlation("kendall", [1, 1, 1], [1, 2, 3], resamples(3))).low)


def test_a_bootstrap_sample_is_what_its_candidates_give_one_by_one() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=12), rng.normal(size=12)
    weights = resamples(12, draws=5)
    assert (weights.sum(axis=1) == 12).all()
    for row in weights:
        held = np.repeat(np.arange(12), row.astype(int))
        for kind in get_args(Coefficient):
            alone = rank_correlation(kind, a[held], b[held], once(12))
            assert rank_correlation(kind, a, b, row[None])[0] == pytest.approx(alone[0])


def noisy(true: Floats, reliability: float, rng: np.random.Generator, repeats: int = 2) -> Floats:
    """Scores (candidates, repeats) of which a share `reliability` of the variance is that of the true values."""
    noise = rng.normal(size=(len(true), repeats))
    return np.sqrt(reliability) * true[:, None] + np.sqrt(1 - reliability) * noise


def test_the_interval_holds_the_true_value_about_as_often_as_it_says() -> None:
    true_tau, held, weights = 2 / np.pi * np.arcsin(0.6), 0, resamples(20, draws=600)
    for seed in range(60):
        rng = np.random.default_rng(seed)
        pair = noisy(rng.normal(size=20), 0.6, rng)
        found = interval(rank_correlation("kendall", pair[:, 0], pair[:, 1], weights))
        held += found.low <= true_tau <= found.high
    assert 52 <= held <= 60


THEORY: dict[str, Callable[[float], float]] = {
    "kendall": lambda r: 2 / np.pi * float(np.arcsin(r)),
    "spearman": lambda r: 6 / np.pi * float(np.arcsin(r / 2)),
}
"""The rank correlations of two normal variables whose correlation is r (Greiner, 1909; Pearson, 1907)."""


def test_repeats_give_the_reliability_and_with_it_what_noise_allows() -> None:
    """An unbiased proxy score agrees with a full one exactly as far as both reliabilities allow; a biased one less."""
    rng = np.random.default_rng(1)
    true, bias = rng.normal(size=(2, 1_500))
    brief, full = noisy(true, 0.5, rng), noisy(true, 0.8, rng)
    biased = noisy(0.6 * true + 0.8 * bias, 0.5, rng)
    weights = once(1_500)
    for kind in get_args(Coefficient):
        theory = THEORY[kind]
        ceiling = repeatability(kind, full, weights)
        assert ceiling[0] == pytest.approx(theory(0.8), abs=0.03)
        allowed = attenuated(kind, (repeatability(kind, brief, weights), ceiling))
        assert allowed[0] == pytest.approx(theory(np.sqrt(0.5 * 0.8)), abs=0.03)
        assert mean_correlation(kind, brief[:, 0], full, weights)[0] == pytest.approx(allowed[0], abs=0.04)
        assert mean_correlation(kind, biased[:, 0], full, weights)[0] < allowed[0] - 0.1


# ---------------------------------------------------------------- verdicts


def trial(number: int, accuracy: float, ms: float) -> TrialRecord:
    architecture = SPACE.architecture(SPACE.sample(random.Random(number)))
    latency = Latency(ms, ms, ms, 0.0, 30, 1, False, False, 0.0, True, "test", (1, 1, 8, 8), LatencyProtocol())
    evaluation = Evaluation(
        Outcome.DONE, None, architecture_cost(architecture, 10), latency, curve([accuracy]), seconds=1.0
    )
    values = {"accuracy": accuracy, "latency": ms}
    return TrialRecord(number, architecture.digest, str(architecture), architecture, {}, evaluation, values)


def curve(scores: list[float]) -> tuple[EpochMetrics, ...]:
    return tuple(
        EpochMetrics(epoch, 1.0, 1.0, score, {"accuracy": score}, 1.0, 1.0) for epoch, score in enumerate(scores, 1)
    )


def simulated(
    count: int, brief_reliability: float, *, biased: bool = False, settles: int = FULL.epochs, seed: int = 0
) -> Audit:
    """A fidelity check whose full trainings have a reliability of 0.95, and rank at random before the epoch `settles`."""
    rng = np.random.default_rng(seed)
    true = rng.normal(size=count)
    brief = noisy(rng.normal(size=count) if biased else true, brief_reliability, rng)
    full = noisy(true, 0.95, rng)
    curves = rng.normal(size=(count, 2, FULL.epochs))
    curves[:, :, settles - 1 :] = full[:, :, None]
    audited = [
        Audited(
            trial(index, float(brief[index, 0]), float(rng.uniform(1, 9))),
            (float(brief[index, 0]), float(brief[index, 1])),
            (float(full[index, 0]), float(full[index, 1])),
            tuple(tuple(one) for one in curves[index].tolist()),
        )
        for index in range(count)
    ]
    return conclude(BRIEF, FULL, audited, OBJECTIVES)


def test_a_brief_score_as_good_as_a_full_one_ranks_well_enough() -> None:
    audit = simulated(60, 0.95)
    assert audit.verdict.kind == "enough", audit.verdict
    tau = audit.rankings[0].agreements["kendall"]
    assert tau.shortfall.high <= MARGIN
    assert tau.brief.value > 0.7
    assert "τ 0." in audit.verdict.sentence
    assert audit.verdict.epochs is None


@pytest.mark.parametrize("settles", [4, 6, FULL.epochs])
def test_a_score_that_ranks_at_random_wants_the_epochs_from_which_full_trainings_rank(settles: int) -> None:
    audit = simulated(60, 0.95, biased=True, settles=settles)
    assert audit.verdict.kind == "raise"
    assert audit.verdict.epochs == settles
    assert f"Raise the budget to {settles} epochs" in audit.verdict.sentence
    assert audit.rankings[0].agreements["kendall"].allowed.value > 0.7  # it is no noise that spoils it
    assert "the same with every seed" in audit.verdict.notes[0]
    assert any("MACs alone" in note for note in audit.verdict.notes)


@pytest.mark.slow
def test_a_loss_that_noise_explains_is_told_from_bias() -> None:
    audit = simulated(80, 0.3)
    assert audit.verdict.kind == "raise"
    assert "several seeds may help as much" in audit.verdict.notes[0]


@pytest.mark.slow
def test_where_curves_end_apart_the_budget_is_doubled() -> None:
    whole = simulated(60, 0.95, biased=True)
    first = replace(whole.audited[0], curves=tuple(curve[:-1] for curve in whole.audited[0].curves))
    verdict = conclude(BRIEF, FULL, [first, *whole.audited[1:]], OBJECTIVES).verdict
    assert (verdict.kind, verdict.epochs) == ("raise", 2 * BRIEF.epochs)
    assert any("guess" in note for note in verdict.notes)


def test_few_candidates_tell_nothing() -> None:
    audit = simulated(10, 0.7)
    assert audit.verdict.kind == "unsure"
    assert "with 10 candidates" in audit.verdict.sentence
    tau = audit.rankings[0].agreements["kendall"]
    assert tau.shortfall.low <= 0 < MARGIN < tau.shortfall.high
    none = simulated(7, 0.9)
    assert none.rankings == ()
    assert "7 candidates have all trainings, and it takes 8" in none.verdict.sentence


def test_candidates_that_score_alike_are_not_ranked() -> None:
    audited = [replace(each, full=(0.9, 0.9)) for each in simulated(12, 0.9).audited]
    audit = conclude(BRIEF, FULL, audited, OBJECTIVES)
    assert (audit.verdict.kind, audit.verdict.sentence) == ("unsure", "Cannot tell: the candidates all score alike.")


@pytest.mark.slow
def test_verdicts_over_many_audits_are_seldom_wrong() -> None:
    """A perfect proxy score is seldom told to be raised, and one that ranks at random never ranks well enough."""
    perfect = [simulated(30, 0.95, seed=seed).verdict.kind for seed in range(12)]
    assert perfect.count("raise") <= 1
    assert perfect.count("enough") >= 9
    useless = [simulated(30, 0.95, biased=True, seed=seed).verdict.kind for seed in range(12)]
    assert set(useless) == {"raise"}


def test_bands_of_latency_are_told_apart_where_each_has_enough() -> None:
    assert len(simulated(23, 0.9).rankings) == 1
    rankings = simulated(24, 0.9).rankings
    assert [(ranking.name, ranking.candidates) for ranking in rankings[1:]] == [
        ("fast third", 8), ("middle third", 8), ("slow third", 8)
    ]  # fmt: skip
    assert rankings[1].slowest_ms <= rankings[2].fastest_ms <= rankings[2].slowest_ms <= rankings[3].fastest_ms


def test_the_members_of_the_front_that_the_brief_scores_have_are_counted() -> None:
    """Three candidates, each slower than the one before: by full scores the second is beaten, by proxy scores the third."""
    scores = [((0.5, 0.5), 0.5), ((0.7, 0.7), 0.4), ((0.6, 0.6), 0.8)]
    audited = [
        Audited(trial(index, brief[0], 1.0 + index), brief, (full, full), ((full,), (full,)))
        for index, (brief, full) in enumerate(scores)
    ]
    audit = conclude(BRIEF, FULL, audited, OBJECTIVES)
    assert (audit.full_front, audit.kept_front) == (2, 1)


# ---------------------------------------------------------------- what is trained


def cloud(count: int) -> list[TrialRecord]:
    """Candidates whose accuracy grows with latency, most of them well behind the front."""
    rng = random.Random(5)
    found = []
    for number in range(count):
        ms = rng.uniform(1, 10)
        found.append(trial(number, 0.5 + 0.04 * ms - rng.random() ** 0.5 * 0.3, ms))
    return found


def test_candidates_are_chosen_on_the_front_and_spread_behind_it() -> None:
    records = cloud(80)
    front = {record.number for record in pareto_front(records, OBJECTIVES)}
    chosen = choose(records, OBJECTIVES, 30)
    assert chosen == choose(records, OBJECTIVES, 30)
    assert len({record.digest for record in chosen}) == 30
    on_front = [record for record in chosen if record.number in front]
    assert len(on_front) == min(len(front), 15)
    behind = [record for record in chosen if record.number not in front]
    for name in OBJECTIVES:
        third = np.quantile(
            [record.objectives[name] for record in records if record.number not in front], [1 / 3, 2 / 3]
        )
        counts = np.bincount(np.digitize([record.objectives[name] for record in behind], third), minlength=3)
        assert counts.min() >= len(behind) / 5, (name, counts)


def test_half_of_the_candidates_come_from_a_long_front_with_its_ends() -> None:
    line = [trial(number, 0.5 + 0.01 * number, 1.0 + number) for number in range(30)]
    below = [trial(100 + number, 0.4 + 0.01 * number, 1.5 + number) for number in range(30)]
    chosen = choose([*line, *below], OBJECTIVES, 10)
    of_front = [record.number for record in chosen if record.number < 100]
    assert len(of_front) == 5
    assert (of_front[0], of_front[-1]) == (0, 29)
    assert np.diff(of_front).max() <= 8
    assert [record.number for record in choose(line, OBJECTIVES, 10)][::9] == [0, 29]  # nothing is behind it
    assert len(choose(line[:4], OBJECTIVES, 10)) == 4


def test_only_what_was_trained_is_chosen() -> None:
    records = cloud(12)
    for index, outcome in enumerate((Outcome.FAILED, Outcome.REJECTED, Outcome.STOPPED, Outcome.REPEAT)):
        records[index] = replace(records[index], evaluation=replace(records[index].evaluation, outcome=outcome))
    assert {record.number for record in choose(records, OBJECTIVES, 30)} == set(range(4, 12))


def test_the_full_recipe_is_the_brief_one_made_longer() -> None:
    brief = Recipe(epochs=5, steps=30, seconds=2.0, patience=2, learning_rate=0.02)
    assert full_recipe(brief) == replace(brief, epochs=20, steps=120, seconds=8.0, patience=0)
    assert full_recipe(brief, 6) == replace(brief, epochs=6, steps=36, seconds=2.4, patience=0)
    assert full_recipe(Recipe(epochs=3)) == Recipe(epochs=12)


# ---------------------------------------------------------------- a fidelity check by hand


@pytest.fixture
def run(make_run: RunFactory) -> RunDirectory:
    """A run of twelve trained candidates."""
    settings = SearchSettings(SPACE, "digits", evaluation=EvaluationSettings(Recipe(epochs=2, precision="float32")))
    made = make_run(settings)
    for record in cloud(12):
        made.append(record)
    return made


def give(auditor: Auditor, count: int) -> list[tuple[str, int, int]]:
    """Answer so many trainings; which they were: digest, epochs and seed."""
    asked = []
    for _ in range(count):
        candidate = auditor.ask()
        assert candidate is not None
        asked.append((candidate.digest, candidate.settings.recipe.epochs, candidate.settings.seed))
        scores = [0.5 + 0.01 * epoch for epoch in range(candidate.settings.recipe.epochs)]
        auditor.finish(candidate, Evaluation(Outcome.DONE, history=curve(scores), seconds=2.0))
    return asked


def test_an_audit_that_was_killed_goes_on_where_it_was(run: RunDirectory) -> None:
    plan = plan_audit(run, 8)
    first = Auditor(run, plan.missing)
    before = give(first, 10)
    assert first.ask() is not None  # runs when the process dies
    with (run.path / "audit.jsonl").open("a") as file:
        file.write('{"torn')
    again = plan_audit(open_run(run.path), 8)
    assert len(again.missing) == 24 - 10
    second = Auditor(run, again.missing)
    after = give(second, 14)
    assert second.finished
    assert len({*before, *after}) == 24
    assert plan_audit(run, 8).missing == []
    found = audit_of(run)
    assert found is not None
    assert (len(found.audited), found.failed, found.unfinished, found.seconds) == (8, 0, 0, 48.0)
    by_digest = {
        digest: [(epochs, seed) for which, epochs, seed in (*before, *after) if which == digest]
        for digest, *_ in before
    }
    for asked in by_digest.values():
        assert sorted(epochs for epochs, _ in asked) == [2, 8, 8]
        seeds = {seed for _, seed in asked}
        assert len(seeds) == 3
        assert run.settings.evaluation.seed not in seeds


def test_an_audit_ends_as_it_did_where_its_report_cannot_be_written(
    run: RunDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    plan = plan_audit(run, 8)
    give(Auditor(run, plan.missing), 24)
    run.report_path.mkdir()  # nothing can take its place, as nothing is written on a full disk
    assert run_audit(plan, report=write_report) is None
    warning = caplog.messages[-1]
    assert warning.startswith(f"{run.report_path}: cannot be written: ")
    assert warning.endswith(f"; once it can be: nas report {run.path}")


def test_another_recipe_is_another_audit_in_the_same_file(run: RunDirectory) -> None:
    give(Auditor(run, plan_audit(run, 8).missing), 24)
    longer = plan_audit(run, 8, Recipe(epochs=16, precision="float32"))
    assert len(longer.missing) == 16  # the proxy trainings serve both
    give(Auditor(run, longer.missing), 2)
    latest, first = audit_of(run), audit_of(run, plan_audit(run, 8).full)
    assert latest is not None
    assert first is not None
    assert (latest.full.epochs, len(latest.audited), latest.unfinished) == (16, 1, 0)
    assert (first.full.epochs, len(first.audited)) == (8, 8)


def test_failures_are_recorded_and_leave_their_candidates_out(run: RunDirectory) -> None:
    plan = plan_audit(run, 9)
    auditor = Auditor(run, plan.missing)
    candidate = auditor.ask()
    assert candidate is not None
    auditor.finish(candidate, Evaluation(Outcome.FAILED, "the metric gave nan"))
    give(auditor, 26)
    assert auditor.finished
    found = audit_of(run)
    assert found is not None
    assert (len(found.audited), found.failed, found.unfinished) == (8, 1, 0)
    assert found.verdict.kind == "unsure"
    assert plan_audit(run, 9).missing == []  # it would only fail again
    assert [record.evaluation.reason for record in run.audit_records() if record.evaluation.reason] == [
        "the metric gave nan"
    ]


def test_a_training_whose_worker_died_is_tried_again_a_bounded_number_of_times(run: RunDirectory) -> None:
    auditor = Auditor(run, plan_audit(run, 8).missing[:2])
    times = 0
    while not auditor.finished:
        candidate = auditor.ask()
        assert candidate is not None
        if candidate.settings.seed == auditor.run.audit_records()[0].seed if times else True:
            auditor.report_lost(candidate, "its worker died: killed")
            times += 1
        else:
            auditor.finish(candidate, Evaluation(Outcome.DONE, history=curve([0.5])))
    assert times == MAX_LOSSES + 1
    assert auditor.ending is None
    assert len(plan_audit(run, 8).missing) == 23  # and once more when it is called again


def test_an_audit_whose_workers_all_die_ends(run: RunDirectory) -> None:
    auditor = Auditor(run, plan_audit(run, 8).missing)
    for _ in range(MAX_LOSSES_IN_A_ROW):
        candidate = auditor.ask()
        assert candidate is not None
        auditor.report_lost(candidate, "its worker died: killed")
    assert auditor.finished
    assert "12 trainings in a row were lost: its worker died" in (auditor.ending or "")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--count", "7"], "--count 7: with fewer than 8 candidates a rank correlation says nothing"),
        (["--epochs", "2"], "the recipe is the run's own; give more --epochs, or another --recipe"),
        (
            ["--epochs", "1"],
            "a full training of 1 epoch (1 step of 64 images) is shorter than the search's proxy one of 2",
        ),
        (
            ["--epochs", "8", "--set", "steps=1"],
            "8 epochs (1 step of 64 images) is shorter than the search's proxy one",
        ),
        (["--set", "seconds=0.1"], "8 epochs (8 steps of 64 images) in 0.1 s is shorter than the search's proxy one"),
        (["--set", "epocs=9"], "--set epocs=9: unknown key 'epocs'"),
        (["--set", "precision=float16"], "precision float16: only on cuda"),
        (["--recipe", "none.yaml"], "--recipe none.yaml: cannot be read"),
        ([], "the data set digits has changed since the search began"),
    ],
)
def test_what_cannot_be_audited_is_said_in_a_sentence(
    run: RunDirectory, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    code, _, err = call(capsys, "audit", str(run.path), *arguments)
    assert code == 2
    assert sentence in " ".join(err.split())
    assert run.audit_records() == []


def test_a_run_with_too_few_candidates_or_a_search_is_not_audited(
    run: RunDirectory, make_run: RunFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    few = make_run(run.settings, name="few")
    few.append(cloud(1)[0])
    with pytest.raises(InputError, match="1 candidate is trained, and a fidelity check takes at least 8"):
        plan_audit(few)
    with run.locked():
        code, _, err = call(capsys, "audit", str(run.path))
    assert code == 2
    assert "another search is running on this directory" in " ".join(err.split())


def test_a_report_without_an_audit_says_nothing_of_it(run: RunDirectory) -> None:
    assert "Trust in the ranking" not in write_report(run).read_text(encoding="utf-8")


# ---------------------------------------------------------------- on real Ray

ALONE = ("--max-concurrent", "1")


def searched(path: Path) -> RunDirectory:
    """A run of eight candidates, evaluated in this process, as a search would have left it."""
    quick = EvaluationSettings(
        Recipe(epochs=1, precision="float32"), LatencyProtocol(warmup_s=0.01, min_blocks=5, max_s=0.05)
    )
    data = load_data("digits", channels=1, size=8)
    settings = SearchSettings(SPACE, "digits", evaluation=quick, trials=8)
    provenance = Provenance(
        time.time(), "nas search", {}, "here", device_name("cpu"), 2, None, data.fingerprint(), data.classes,
        len(data.train), len(data.validation), data.mean, data.std,
    )  # fmt: skip
    run = RunDirectory.create(path, settings, provenance)
    rng = random.Random(3)
    while len(run.records()) < 8:
        architecture = SPACE.architecture(SPACE.sample(rng)).canonical
        if architecture_cost(architecture, 10).macs > 300_000 or architecture.digest in {
            r.digest for r in run.records()
        }:
            continue
        found = evaluate_candidate(architecture, data, quick).evaluation
        values = objective_values(found, settings.objectives)
        number = len(run.records())
        run.append(TrialRecord(number, architecture.digest, str(architecture), architecture, {}, found, values))
    return run


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_an_audit_on_ray_ends_with_a_verdict_and_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = searched(tmp_path / "run")
    code, out, err = call(capsys, "audit", str(run.path), "--count", "8", "--epochs", "2", "--json", *ALONE)
    assert code == 0, err
    after = run.audit_records()
    assert len(after) == len({(record.digest, record.seed) for record in after}) == 24
    assert {record.evaluation.outcome for record in after} == {Outcome.DONE}
    assert sorted({len(record.evaluation.history) for record in after}) == [1, 2]
    latencies = {record.digest: record.evaluation.latency for record in run.records()}
    assert all(record.evaluation.latency == latencies[record.digest] for record in after)  # not measured again
    found = json.loads(out)
    assert found["verdict"]["kind"] in ("enough", "raise", "unsure")
    assert len(found["audited"]) == found["rankings"][0]["candidates"] == 8
    assert not list((run.path / "weights").iterdir())
    page = run.report_path.read_text(encoding="utf-8")
    assert "Trust in the ranking" in page
    assert found["verdict"]["sentence"].split(":")[0] in page

    code, out, _ = call(capsys, "audit", str(run.path), "--count", "8", "--epochs", "2")  # nothing is left to train
    said = " ".join(out.split())
    assert code == 0
    assert "24 of 24 trainings are recorded already" in said
    assert found["verdict"]["sentence"] in said
    assert len(run.audit_records()) == 24
    python = nas.audit_of(nas.open_run(run.path))
    assert python is not None
    assert python.verdict.sentence == found["verdict"]["sentence"]
