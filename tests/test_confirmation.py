"""Confirmation: which candidates are trained again, that nothing of it is lost, and what is said of the front then."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from answers import answer
from conftest import RunFactory
from test_broker import _no_fsync  # noqa: F401
from typer.testing import CliRunner

from nas.cli.app import app
from nas.common.errors import InputError
from nas.runs.confirmation import confirmed, next_to_confirm
from nas.runs.record import Confirmation, Evaluation, Outcome, TrialRecord
from nas.runs.settings import SearchSettings
from nas.runs.store import RunDirectory, open_run
from nas.search.broker import Broker
from nas.search.candidate import Candidate
from nas.search.confirming import MAX_LOSSES, Confirmer
from nas.spaces.files import load_space
from nas.tasks.classification_metrics import METRICS
from nas.training.history import EpochMetrics
from nas.views.report import write_report
from nas.views.terminal.front import front_csv
from nas.workflows.plan import plan_search

DIGITS = load_space("digits")
OBJECTIVES = ("accuracy", "macs")
IMAGES = 400


def epoch(number: int, score: float) -> EpochMetrics:
    return EpochMetrics(number, 1.0, 1.0, score, {"accuracy": score}, 1.0, 1.0)


def trained(number: int, accuracy: float, macs: float) -> TrialRecord:
    architecture = DIGITS.smallest
    return TrialRecord(
        number=number,
        digest=f"{number:016x}",
        text=str(architecture),
        architecture=architecture,
        parameters={},
        evaluation=Evaluation(Outcome.DONE, history=(epoch(1, accuracy),)),
        objectives={"accuracy": accuracy, "macs": macs},
    )


def again(record: TrialRecord, score: float | None, seed: int = 0) -> Confirmation:
    evaluation = (
        Evaluation(Outcome.FAILED, reason="out of memory")
        if score is None
        else Evaluation(Outcome.DONE, history=(epoch(1, score),))
    )
    return Confirmation(record.digest, record.number, seed, 20, evaluation)


FRONT = [trained(0, 0.50, 1e6), trained(1, 0.80, 2e6), trained(2, 0.81, 3e6)]
NEAR, FAR = trained(3, 0.795, 2.5e6), trained(4, 0.40, 4e6)


def choose(confirmations: list[Confirmation], running: tuple[str, ...] = ()) -> int:
    chosen = next_to_confirm([*FRONT, NEAR, FAR], confirmations, OBJECTIVES, METRICS["accuracy"], IMAGES, running)
    assert chosen is not None
    return chosen.number


def test_members_of_the_front_come_first_then_what_noise_may_hide_and_never_what_is_far_behind() -> None:
    order: list[int] = []
    done: list[Confirmation] = []
    for _ in range(4):
        number = choose(done)
        order.append(number)
        record = [*FRONT, NEAR, FAR][number]
        done.append(again(record, record.objectives["accuracy"] + 0.05))
    assert set(order[:3]) == {0, 1, 2}
    assert order[3] == 3
    assert choose(done) in {0, 1, 2}  # all known once: a second seed for a member
    assert choose(done, running=tuple(record.digest for record in FRONT[:2])) == 2  # those that run count as asked


def test_a_candidate_that_others_passed_when_trained_again_makes_room_for_those_behind_it() -> None:
    # Trained again the middle one disappoints: what was just behind it is on the front of the best guesses.
    done = [again(FRONT[0], 0.55), again(FRONT[1], 0.60), again(FRONT[2], 0.86)]
    assert choose(done) == NEAR.number


def test_scores_of_longer_trainings_are_compared_with_each_other_only() -> None:
    lucky = confirmed([*FRONT], [again(FRONT[1], 0.90), again(FRONT[2], 0.85)], OBJECTIVES, METRICS["accuracy"], IMAGES)
    assert set(lucky) == {FRONT[1].digest, FRONT[2].digest}
    assert lucky[FRONT[1].digest].on_front
    assert not lucky[FRONT[2].digest].on_front  # more expensive and worse now
    once = lucky[FRONT[1].digest]
    assert once.error == pytest.approx((0.9 * 0.1 / IMAGES) ** 0.5)
    twice = confirmed(
        FRONT, [again(FRONT[1], 0.88, 1), again(FRONT[1], 0.92, 2)], OBJECTIVES, METRICS["accuracy"], IMAGES
    )
    assert twice[FRONT[1].digest].score == pytest.approx(0.9)
    assert twice[FRONT[1].digest].trainings == 2
    assert twice[FRONT[1].digest].error == pytest.approx((0.9 * 0.1 / IMAGES + 0.02**2) ** 0.5)
    assert (
        confirmed(FRONT, [again(FRONT[1], 0.9)], OBJECTIVES, METRICS["macro_f1"], IMAGES)[FRONT[1].digest].error is None
    )
    assert confirmed(FRONT, [again(FRONT[1], None)], OBJECTIVES, METRICS["accuracy"], IMAGES) == {}


# ---------------------------------------------------------------- the source


def settings(**changes: Any) -> SearchSettings:
    return replace(SearchSettings(space=DIGITS, data="digits", sampler="random", trials=14, confirm=0.3), **changes)


def longer(candidate: Candidate) -> Evaluation:
    evaluation = answer(candidate)
    return replace(evaluation, history=(epoch(1, 0.5), epoch(2, 0.97)))


def drive(confirmer: Confirmer, most: int = 1000) -> list[Candidate]:
    """Answer what is asked for; the candidates that were trained again."""
    trained_again = []
    while not confirmer.finished and most:
        candidate = confirmer.ask()
        assert candidate is not None
        is_again = confirmer.is_again(candidate)
        trained_again += [candidate] if is_again else []
        confirmer.finish(candidate, longer(candidate) if is_again else answer(candidate))
        most -= 1
    return trained_again


def test_a_share_of_the_budget_trains_the_front_again_longer_and_from_other_seeds(make_run: RunFactory) -> None:
    run = make_run(settings())
    assert (run.settings.candidates, run.settings.confirmations) == (10, 2)
    told: list[Confirmation] = []
    confirmer = Confirmer(Broker(run), told.append)
    candidates = drive(confirmer)
    records, confirmations = run.records(), run.confirmations()
    assert sum(record.outcome is Outcome.DONE for record in records) == 10
    assert len(candidates) == len(confirmations) == 2
    assert told == confirmations
    recipe = run.settings.evaluation.recipe
    for candidate in candidates:
        assert candidate.settings.recipe == replace(recipe, epochs=2 * recipe.epochs)
        assert candidate.settings.seed != run.settings.evaluation.seed
        assert not candidate.keep_weights
    assert len({candidate.settings.seed for candidate in candidates}) == 2
    assert confirmer.ending == "10 candidates trained; 2 trainings to confirm the front"
    assert not confirmer.resumable


def test_confirmations_of_a_killed_search_are_neither_lost_nor_paid_twice(make_run: RunFactory) -> None:
    run = make_run(settings())
    drive(Confirmer(Broker(run)), most=11)
    resumed = Confirmer(Broker(open_run(run.path)))
    assert len(resumed.confirmations) == 1
    assert len(drive(resumed)) == 1
    assert len(run.confirmations()) == 2
    with (run.path / "confirmations.jsonl").open("a") as file:
        file.write('{"digest": "torn')
    assert len(run.confirmations()) == 2
    assert Confirmer(Broker(open_run(run.path))).finished


def test_a_lost_confirmation_is_asked_for_again_a_bounded_number_of_times(make_run: RunFactory) -> None:
    run = make_run(settings())
    confirmer = Confirmer(Broker(run))
    drive(confirmer, most=10)
    seeds = set()
    for _ in range(MAX_LOSSES):
        candidate = confirmer.ask()
        assert candidate is not None
        assert list(confirmer.running.values()) == [candidate]
        seeds.add(candidate.settings.seed)
        confirmer.report_lost(candidate, "its worker died")
    assert len(seeds) == 1
    assert confirmer.finished
    assert confirmer.resumable
    assert run.confirmations() == []


def test_stopping_the_search_stops_its_confirmation(make_run: RunFactory) -> None:
    confirmer = Confirmer(Broker(make_run(settings())))
    drive(confirmer, most=10)
    confirmer.stop("stopped by SIGINT")
    assert confirmer.finished
    assert confirmer.resumable


def test_what_failed_when_trained_again_is_recorded_with_its_reason(make_run: RunFactory) -> None:
    run = make_run(settings())
    confirmer = Confirmer(Broker(run))
    drive(confirmer, most=10)
    candidate = confirmer.ask()
    assert candidate is not None
    confirmer.finish(candidate, Evaluation(Outcome.FAILED, reason="out of memory"))
    assert [confirmation.evaluation.reason for confirmation in run.confirmations()] == ["out of memory"]
    assert len(drive(confirmer)) == 1
    write_report(run)


def test_report_and_table_show_confirmed_members_apart(make_run: RunFactory) -> None:
    run = make_run(settings())
    drive(Confirmer(Broker(run)))
    again_in_it = {confirmation.digest for confirmation in run.confirmations()}
    page = write_report(run).read_text()
    assert "<h3>Confirmed</h3>" in page
    assert "<h3>Not confirmed</h3>" in page
    assert "97.00 ± 0.85 %" in page
    first, second = page.split("<h3>Not confirmed</h3>")[:2]
    assert all(digest in first for digest in again_in_it)
    members = second.split("</table>")[0]
    assert not any(digest in members for digest in again_in_it)
    lines = CliRunner().invoke(app, ["front", str(run.path)], env={"COLUMNS": "100"}).output.splitlines()
    apart = next(number for number, line in enumerate(lines) if line.strip() == "unconfirmed:")
    assert all(any(digest[:8] in line for line in lines[:apart]) for digest in again_in_it)
    assert sum("97.00 ± 0.85" in line for line in lines) == 2
    assert ",again_accuracy,again_error,again_trainings," in front_csv(run, run.records())


@pytest.mark.parametrize("share", [-0.1, 0.6, float("nan")])
def test_a_share_that_leaves_no_search_is_refused(share: float) -> None:
    with pytest.raises(InputError, match=r"confirm .*: needs a share from 0 to 0\.5"):
        plan_search(settings(confirm=share))


def test_runs_without_confirmation_are_as_before(make_run: RunFactory) -> None:
    run: RunDirectory = make_run(settings(confirm=0.0))
    assert (run.settings.candidates, run.settings.confirmations) == (14, 0)
    assert drive(Confirmer(Broker(run))) == []
    assert "Confirmed" not in write_report(run).read_text()
