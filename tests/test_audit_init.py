"""Which initial weights rank better: the comparison on made-up records, what is trained for it, and one on real Ray."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import call
from conftest import RunFactory
from mobile import mobile_space
from rich.console import Console

from nas.common.files import weights_content
from nas.data.sets import ImageData, load_data
from nas.latency.protocol import LatencyProtocol
from nas.latency.result import Latency
from nas.models.elastic import Elastic
from nas.models.networks import Backbone, build
from nas.models.seen import together, write_seen
from nas.models.sources import SCRATCH, SUPERNET
from nas.models.weights import Scratch, Weights, load_weights
from nas.runs.record import Evaluation, InitialWeights, Outcome, TrialRecord
from nas.runs.run_images import RunImages
from nas.runs.settings import EvaluationSettings, SearchSettings
from nas.runs.store import RunDirectory
from nas.search.candidate import trained_again
from nas.search.evaluate import evaluate_steps
from nas.search.ray.worker import Worker
from nas.spaces.families import architecture_cost
from nas.tasks.classification_metrics import METRICS
from nas.training.device_data import DeviceData
from nas.training.history import EpochMetrics
from nas.training.images import normalised_for
from nas.training.recipe import INHERITED_RATE, SCRATCH_RATE, Recipe
from nas.training.supernet_file import SupernetFile, write_file
from nas.views.report import write_report
from nas.views.terminal.audit import audit_table
from nas.workflows.fidelity.agreement import Floats
from nas.workflows.fidelity.audit import Audit, audit_of, conclude
from nas.workflows.fidelity.auditing import Auditor, plan_audit
from nas.workflows.fidelity.inits import SAME_COST, InitRanking, compare, recipe_from, short_names
from nas.workflows.fidelity.ranking import Audited, Brief

SPACE = mobile_space("digits")
OBJECTIVES = ("accuracy", "latency")
BRIEF = Recipe(epochs=1, precision="float32")
OTHER = "/weights/other"


def curve(scores: Sequence[float]) -> tuple[EpochMetrics, ...]:
    return tuple(
        EpochMetrics(epoch, 1.0, 1.0, score, {"accuracy": score}, 1.0, 1.0) for epoch, score in enumerate(scores, 1)
    )


def trials(count: int) -> list[TrialRecord]:
    """Small networks, none like another, each slower and more accurate than the one before."""
    found: dict[str, TrialRecord] = {}
    rng = random.Random(3)
    while len(found) < count:
        architecture = SPACE.architecture(SPACE.sample(rng)).canonical
        cost = architecture_cost(architecture, 10)
        if cost.macs > 300_000:
            continue
        number = len(found)
        ms, score = 1.0 + number, 0.5 + 0.01 * number
        latency = Latency(ms, ms, ms, 0.0, 30, 1, False, False, 0.0, True, "test", (1, 1, 8, 8), LatencyProtocol())
        evaluation = Evaluation(Outcome.DONE, None, cost, latency, curve([score]), seconds=1.0)
        values = {"accuracy": score, "latency": ms}
        text = str(architecture)
        trial = TrialRecord(number, architecture.digest, text, architecture, {}, evaluation, values)
        found.setdefault(architecture.digest, trial)
    return list(found.values())


CANDIDATES = trials(60)


# ---------------------------------------------------------------- the comparison


def noisy(true: Floats, reliability: float, rng: np.random.Generator) -> list[float]:
    """Scores of which a share `reliability` of the variance is that of the true values."""
    return list(np.sqrt(reliability) * true + np.sqrt(1 - reliability) * rng.normal(size=len(true)))


def made_up(count: int, own: float, other: float, *, times: float = 1.0, seed: int = 0) -> list[Audited]:
    """Candidates whose proxy scores have these reliabilities, the others' trainings taking `times` as long."""
    rng = np.random.default_rng(seed)
    true = rng.normal(size=count)
    scores = [noisy(true, reliability, rng) for reliability in (own, own, other, 0.95, 0.95)]
    return [
        Audited(
            trial,
            (first, again),
            (one, two),
            ((one,), (two,)),
            {SCRATCH: Brief(again, 10.0), OTHER: Brief(tried, 10 * times)},
        )
        for trial, first, again, tried, one, two in zip(CANDIDATES, *scores, strict=False)
    ]


def compared(count: int, own: float, other: float, *, times: float = 1.0) -> Audit:
    """The audit of such candidates."""
    audited = made_up(count, own, other, times=times)
    return conclude(BRIEF, Recipe(epochs=4), audited, OBJECTIVES, own=SCRATCH, inits=[OTHER])


def of_other(audit: Audit) -> InitRanking:
    own, other = audit.inits
    assert (own.init, own.verdict, own.times, other.init) == (SCRATCH, None, 1.0, OTHER)
    assert other.verdict is not None
    return other


@pytest.mark.slow
def test_weights_that_truly_rank_better_are_told_so_with_what_they_cost() -> None:
    audit = compared(40, own=0.3, other=0.95)
    other = of_other(audit)
    assert other.verdict is not None
    assert other.lead is not None
    assert other.verdict.kind == "better"
    assert 0 < other.lead.low < other.lead.value < other.lead.high
    gained = other.agreements["kendall"].value - audit.inits[0].agreements["kendall"].value
    assert other.lead.value == pytest.approx(gained)
    assert other.verdict.sentence.startswith("other ranks better than scratch at the same cost: τ 0.")
    assert list(other.bands) == ["fast third", "middle third", "slow third"]
    costlier = of_other(compared(40, own=0.3, other=0.95, times=2.5))
    assert costlier.verdict is not None
    assert costlier.times == pytest.approx(2.5)
    assert "ranks better than scratch at 2.5 times its cost" in costlier.verdict.sentence


def test_the_terminal_shows_all_in_eighty_columns() -> None:
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(audit_table(compared(24, own=0.3, other=0.95, times=12.0), METRICS["accuracy"]))
    lines = [line.split() for line in console.export_text().splitlines()]
    (own,) = (line for line in lines if line[:1] == ["scratch"] and line[-1] == "24")
    (other,) = (line for line in lines if line[:1] == ["other"] and line[-1] == "24")
    assert (own[-2], other[-2]) == ("10.00", "120.00")
    heads = [" ".join(line) for line in lines]
    assert "initial weights Kendall τ Spearman ρ score s each n" in heads
    assert "τ within fast third middle third slow third" in heads


@pytest.mark.parametrize(("times", "words"), [(1 + 0.9 * SAME_COST, "the same cost"), (0.85, "0.85 times its cost")])
def test_a_cost_is_the_same_within_a_tenth(times: float, words: str) -> None:
    verdict = of_other(compared(40, own=0.95, other=0.2, times=times)).verdict
    assert verdict is not None
    assert verdict.kind == "worse"
    assert f"ranks worse than scratch at {words}: " in verdict.sentence


def test_where_it_cannot_be_told_that_is_said() -> None:
    other = of_other(compared(12, own=0.7, other=0.75))
    assert other.verdict is not None
    assert other.lead is not None
    assert other.verdict.kind == "unsure"
    assert other.lead.low < 0 < other.lead.high
    assert "Cannot tell with so few as 12 candidates whether other ranks better than scratch" in other.verdict.sentence
    few = of_other(compared(7, own=0.2, other=0.95))
    assert few.verdict is not None
    assert (few.agreements, few.lead, few.verdict.kind) == ({}, None, "unsure")
    assert "7 candidates have a proxy score from other, and it takes 8" in few.verdict.sentence


def test_scores_that_are_all_alike_rank_nothing() -> None:
    alike = [
        replace(each, by_init={**each.by_init, OTHER: Brief(0.1, 10.0)}) for each in compared(12, 0.9, 0.9).audited
    ]
    verdict = of_other(conclude(BRIEF, Recipe(epochs=4), alike, OBJECTIVES, inits=[OTHER])).verdict
    assert verdict is not None
    assert (verdict.kind, "the same for all" in verdict.sentence) == ("unsure", True)


@pytest.mark.slow
def test_over_many_audits_a_difference_is_seldom_claimed_that_is_none_and_seldom_missed() -> None:
    def kinds(own: float, other: float) -> list[str]:
        found = [compare(made_up(23, own, other, seed=seed), BRIEF, SCRATCH, [OTHER])[1].verdict for seed in range(8)]
        return [verdict.kind for verdict in found if verdict]

    assert kinds(0.8, 0.8).count("unsure") >= 7
    assert kinds(0.2, 0.95).count("better") >= 7


@pytest.mark.slow
def test_candidates_without_a_score_from_some_weights_are_left_out_of_that_comparison_alone() -> None:
    whole = compared(20, 0.7, 0.7)
    first, *rest = whole.audited
    partly = [replace(first, by_init={SCRATCH: first.by_init[SCRATCH]}), *rest]
    audit = conclude(BRIEF, Recipe(epochs=4), partly, OBJECTIVES, inits=[OTHER])
    assert [ranking.candidates for ranking in audit.inits] == [20, 19]
    assert audit.rankings == whole.rankings


def test_the_learning_rate_is_the_default_for_the_weights_unless_the_run_had_another() -> None:
    default, chosen = Recipe(learning_rate=SCRATCH_RATE), Recipe(learning_rate=0.005)
    assert recipe_from(default, SCRATCH, OTHER) == replace(default, learning_rate=INHERITED_RATE)
    assert recipe_from(replace(default, learning_rate=INHERITED_RATE), OTHER, SCRATCH) == default
    assert recipe_from(default, SCRATCH, SCRATCH) == default
    assert recipe_from(chosen, SCRATCH, OTHER) == recipe_from(chosen, OTHER, SCRATCH) == chosen


def test_folders_are_called_by_their_last_part_where_that_tells_them_apart() -> None:
    short = {f"{SUPERNET}/nets/digits": f"{SUPERNET}digits", "/nets/digits": "digits", SCRATCH: SCRATCH}
    assert short_names(list(short)) == short
    assert set(short_names(["/a/digits", "/b/digits"]).values()) == {"/a/digits", "/b/digits"}


# ---------------------------------------------------------------- what is trained


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load_data("digits", channels=1, size=8)


@pytest.fixture
def run(make_run: RunFactory, digits: ImageData) -> RunDirectory:
    """A run of eight candidates on the real data."""
    made = make_run(SearchSettings(SPACE, "digits", evaluation=EvaluationSettings(BRIEF)))
    provenance = replace(made.provenance, data_fingerprint=digits.fingerprint())
    made = RunDirectory.create(made.path.with_name("audited"), made.settings, provenance)
    for trial in CANDIDATES[:8]:
        made.append(trial)
    return made


def write_supernet(folder: Path, data: ImageData, seed: int = 0) -> str:
    """A supernet as its training would have left it, with random weights."""
    folder.mkdir(exist_ok=True)
    file = SupernetFile(
        space=SPACE,
        data="digits",
        data_fingerprint=data.fingerprint(),
        split_seed=0,
        classes=data.classes,
        mean=data.mean,
        std=data.std,
        recipe=BRIEF,
        device="cpu",
    )
    write_file(folder, file)
    content = weights_content(Elastic(SPACE, len(data.classes), seed).state_dict())
    (folder / "weights.safetensors").write_bytes(content)
    return f"{SUPERNET}{folder}"


def give(auditor: Auditor) -> list[tuple[str, int, int, str, float]]:
    """Answer all trainings; of which digest, epochs, seed, initial weights and learning rate they were."""
    asked = []
    while (candidate := auditor.ask()) is not None:
        settings = candidate.settings
        asked.append(
            (candidate.digest, settings.recipe.epochs, settings.seed, settings.init, settings.recipe.learning_rate)
        )
        scores = [0.5 + 0.01 * candidate.number] * settings.recipe.epochs
        auditor.finish(candidate, Evaluation(Outcome.DONE, history=curve(scores), seconds=2.0))
    return asked


def test_each_candidate_is_trained_once_from_each_of_the_weights_with_the_seed_of_the_second_brief_training(
    run: RunDirectory, tmp_path: Path, digits: ImageData
) -> None:
    supernet = write_supernet(tmp_path / "net", digits)
    asked = give(Auditor(run, plan_audit(run, 8, inits=[SCRATCH, supernet]).missing))
    assert len(asked) == 8 * 4
    for trial in CANDIDATES[:8]:
        of_trial = {
            (epochs, init): (seed, rate) for digest, epochs, seed, init, rate in asked if digest == trial.digest
        }
        own_seed, own_rate = of_trial[1, SCRATCH]
        assert of_trial[1, supernet] == (own_seed, INHERITED_RATE)
        assert own_rate == SCRATCH_RATE
        assert of_trial[4, SCRATCH][1] == SCRATCH_RATE
    assert plan_audit(run, 8, inits=[supernet]).missing == []
    found = audit_of(run)
    assert found is not None
    assert [(each.init, each.candidates) for each in found.inits] == [(SCRATCH, 8), (supernet, 8)]
    assert found.seconds == 2.0 * 32


def test_trainings_of_a_candidate_from_several_weights_may_run_at_once(
    run: RunDirectory, tmp_path: Path, digits: ImageData
) -> None:
    supernet = write_supernet(tmp_path / "net", digits)
    auditor = Auditor(
        run, [each for each in plan_audit(run, 8, inits=[supernet]).missing if each.recipe.epochs == 1][:2]
    )
    own, other = auditor.ask(), auditor.ask()
    assert own is not None
    assert other is not None
    assert len(auditor.running) == 2
    auditor.finish(other, Evaluation(Outcome.DONE, history=curve([0.9])))
    auditor.finish(own, Evaluation(Outcome.DONE, history=curve([0.1])))
    scores = {record.init and record.init.name: record.evaluation.history[-1].score for record in run.audit_records()}
    assert scores == {supernet: 0.9, None: 0.1}


def test_weights_that_changed_since_are_tried_anew(run: RunDirectory, tmp_path: Path, digits: ImageData) -> None:
    supernet = write_supernet(tmp_path / "net", digits)
    give(Auditor(run, plan_audit(run, 8, inits=[supernet]).missing))
    write_supernet(tmp_path / "net", digits, seed=1)
    load_weights.cache_clear()
    missing = plan_audit(run, 8, inits=[supernet]).missing
    assert {training.init.name for training in missing if training.init} == {supernet}
    assert len(missing) == 8
    give(Auditor(run, missing[:3]))
    found = audit_of(run)
    assert found is not None
    assert [ranking.candidates for ranking in found.inits] == [8, 3]  # of the new weights alone


def test_a_failure_from_other_weights_spoils_nothing_but_its_comparison(
    run: RunDirectory, tmp_path: Path, digits: ImageData
) -> None:
    missing = plan_audit(run, 8, inits=[write_supernet(tmp_path / "net", digits)]).missing
    auditor = Auditor(run, [training for training in missing if training.init])
    candidate = auditor.ask()
    assert candidate is not None
    auditor.finish(candidate, Evaluation(Outcome.FAILED, "the loss became nan"))
    give(auditor)
    give(Auditor(run, [training for training in missing if not training.init]))
    found = audit_of(run)
    assert found is not None
    assert (len(found.audited), found.failed, found.unfinished) == (8, 0, 0)
    assert [ranking.candidates for ranking in found.inits] == [8, 7]


@pytest.mark.parametrize(
    ("inits", "sentence"),
    [
        (["nonsense"], "--init nonsense: unknown weights 'nonsense': use scratch, efficientnet_lite0"),
        (["scratch", "scratch"], "--init scratch: is given twice"),
        (["supernet:none"], "none: no folder that nas supernet train made"),
        (
            ["scratch", "efficientnet_lite0"],
            "--init efficientnet_lite0: the weights efficientnet_lite0 fit no layer of",
        ),
    ],
)
def test_weights_that_cannot_be_tried_are_said_in_a_sentence_before_any_work(
    run: RunDirectory, capsys: pytest.CaptureFixture[str], inits: list[str], sentence: str
) -> None:
    code, _, err = call(capsys, "audit", str(run.path), *(word for init in inits for word in ("--init", init)))
    assert code == 2
    assert sentence in " ".join(err.split())
    assert run.audit_records() == []


def test_weights_that_have_seen_validation_images_are_not_compared(
    run: RunDirectory,
    tmp_path: Path,
    digits: ImageData,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    supernet = write_supernet(tmp_path / "net", digits)
    assert plan_audit(run, 8, inits=["scratch", supernet]).missing
    assert "not known whether the weights have seen images that score" in caplog.text
    assert "was trained on is not known, since an older version made it" in caplog.text
    write_seen(tmp_path / "net", digits.validation.image_hashes[:3])
    images = RunImages(digits.train.image_hashes, digits.validation.image_hashes, together())
    known = RunDirectory.create(run.path.with_name("known"), run.settings, run.provenance, run.records(), images=images)
    code, _, err = call(capsys, "audit", str(known.path), "--init", supernet)
    assert code == 2
    assert "3 of 360 validation images of digits were training images of the supernet" in " ".join(err.split())
    write_seen(tmp_path / "net", digits.train.image_hashes)
    assert plan_audit(known, 8, inits=[supernet]).missing
    assert plan_audit(run, 8, inits=[supernet]).missing  # an older run does not know its images


class NoKeeper:
    """Keeps nothing: what is evaluated here leaves no weights."""

    def begin(self, number: int, worker: str) -> None:
        """Nobody asks."""


def last_loss(steps: Generator[Evaluation, None, object]) -> float:
    """The training loss of the last epoch."""
    *_, last = steps
    loss = last.history[-1].train_loss
    assert loss is not None
    return loss


def test_a_worker_feeds_each_candidate_as_its_own_weights_want(
    digits: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process trains from scratch and from weights with another normalisation as two separate evaluations do."""
    monkeypatch.setattr("nas.search.ray.measuring.node_name", lambda: "here")  # it would start Ray
    name, trial = "other-normalisation", CANDIDATES[0]
    state = build(trial.architecture, 10, seed=7).state_dict()
    other = Backbone(name, trial.architecture, state, 10, mean=(0.9,), std=(0.1,))
    own = EvaluationSettings(replace(BRIEF, steps=3), init=name)
    weights: dict[str, Weights] = {name: other, SCRATCH: Scratch()}
    worker = Worker(SearchSettings(SPACE, "digits", evaluation=own), digits.without_test(), NoKeeper(), weights)  # type: ignore[arg-type]
    evaluate = worker.start()

    def together(init: str) -> float:
        return last_loss(evaluate(trained_again(trial, replace(own, init=init))))

    def alone(data: ImageData, init: str) -> float:
        settings, known = replace(own, init=init), trial.evaluation.latency
        return last_loss(
            evaluate_steps(trial.architecture, DeviceData(data, "cpu"), settings, known=known, weights=weights[init])
        )

    normalised = normalised_for(digits, other)
    expected = {SCRATCH: alone(digits, SCRATCH), name: alone(normalised, name)}
    assert alone(normalised, SCRATCH) != pytest.approx(expected[SCRATCH], rel=1e-3)
    for init in (name, SCRATCH):
        assert together(init) == pytest.approx(expected[init], rel=1e-5), init


# ---------------------------------------------------------------- on real Ray


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_an_audit_on_ray_compares_initial_weights_and_goes_on_where_it_was(
    run: RunDirectory, tmp_path: Path, digits: ImageData, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of the run's own weights are recorded already, by a version that knew of no others."""
    give(Auditor(run, plan_audit(run, 8).missing))
    lines = (run.path / "audit.jsonl").read_text().splitlines()
    (run.path / "audit.jsonl").write_text("".join(f"{_without_init(line)}\n" for line in lines))
    supernet = write_supernet(tmp_path / "net", digits)
    audit = ("audit", str(run.path), "--count", "8", "--init", "scratch", "--init", supernet, "--max-concurrent", "1")

    code, out, err = call(capsys, *audit, "--json")
    assert code == 0, err
    new = run.audit_records()[24:]
    assert len(new) == 8
    assert {record.init for record in new} == {InitialWeights(supernet, load_weights(supernet).fingerprint())}
    assert {(record.evaluation.outcome, len(record.evaluation.history)) for record in new} == {(Outcome.DONE, 1)}
    own, other = json.loads(out)["inits"]
    assert (own["init"], other["init"], other["candidates"]) == (SCRATCH, supernet, 8)
    assert other["seconds"] > 0
    assert other["lead"]["low"] <= other["lead"]["value"] <= other["lead"]["high"]

    code, out, _ = call(capsys, *audit)
    said = " ".join(out.split())
    assert code == 0
    assert "32 of 32 trainings are recorded already" in said
    assert "And once by the proxy recipe from supernet:net, with learning rate 0.002" in said
    assert other["verdict"]["sentence"] in said
    assert len(run.audit_records()) == 32
    page = write_report(run).read_text(encoding="utf-8")
    assert "Which initial weights rank better" in page
    assert other["verdict"]["sentence"] in page


def _without_init(line: str) -> str:
    record = json.loads(line)
    del record["init"]
    return json.dumps(record)
