"""Warnings of scores that guessing would get, and of supernets that their time budget cut off."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from commands import call
from conftest import RunFactory
from mobile import mobile_space

from nas.cli.options import flag_of
from nas.common.errors import named
from nas.runs.record import Evaluation, Outcome, TrialRecord
from nas.tasks.classification_metrics import by_guessing
from nas.training.history import EpochMetrics
from nas.training.recipe import Recipe
from nas.training.supernet_file import SupernetEpoch, SupernetFile, cut_short, read_file
from nas.views.chance import chance_note
from nas.views.report import write_report

DIGITS = mobile_space("digits")


def scored(number: int, balanced: float | None, accuracy: float = 0.9, **changes: object) -> TrialRecord:
    history = (
        EpochMetrics(
            1,
            1.0,
            1.0,
            accuracy,
            {"accuracy": accuracy} | ({} if balanced is None else {"balanced_accuracy": balanced}),
            1.0,
            1.0,
        ),
    )
    network = (DIGITS.smallest, DIGITS.middle, DIGITS.largest)[number % 3]
    record = TrialRecord(
        number, network.digest, str(network), network, {}, Evaluation(Outcome.DONE, history=history),
        {"accuracy": accuracy, "latency": 1.0 + number},
    )  # fmt: skip
    return replace(record, **changes)  # type: ignore[arg-type]


def test_candidates_at_chance_are_counted_by_their_balanced_accuracy(make_run: RunFactory) -> None:
    run = make_run()  # ten classes, 400 validation images: a guess has at most 0.1 + 2 * 0.015
    settings, provenance = run.settings, run.provenance
    assert by_guessing(10, 400) == pytest.approx(0.13)
    # The first guesses the most frequent class of an uneven part, and scores 90 %.
    records = [scored(0, 0.1), scored(1, 0.129), scored(2, 0.131), scored(3, None)]
    imported = scored(4, 0.1, imported_from="run 1")
    note = chance_note(settings, provenance, [*records, imported])
    assert note is not None
    assert note.startswith("2 of 4 candidates score no better than guessing would")
    assert "more --epochs, another --learning-rate" in named(note, flag_of)
    assert chance_note(settings, provenance, records[2:]) is None
    assert chance_note(settings, provenance, []) is None
    for record in records[:1]:
        run.append(record)
    page = write_report(run).read_text(encoding="utf-8")
    assert "Warning: 1 of 1 candidate scores no better than guessing would" in page
    untrained = replace(settings, evaluation=replace(settings.evaluation, recipe=Recipe(epochs=0)))
    assert "a supernet that was trained for longer" in (chance_note(untrained, provenance, records) or "")


@pytest.mark.parametrize(
    ("recipe", "share", "short"),
    [
        (Recipe(epochs=60, seconds=120.0), 0.2, "its time budget of 2 min ended the training after 20 % of 60 epochs"),
        (Recipe(epochs=1, seconds=5.0), 0.5, "its time budget of 5.0 s ended the training after 50 % of 1 epoch"),
        (Recipe(epochs=60, seconds=120.0), None, "its time budget of 2 min ended the training after 5 % of 60 epochs"),
        (Recipe(epochs=3, seconds=1e6), 1.0, None),
        (Recipe(epochs=60), 0.2, None),
    ],
)
def test_a_supernet_that_its_time_budget_ended_is_told_from_others(
    recipe: Recipe, share: float | None, short: str | None
) -> None:
    history = (SupernetEpoch(3, 1.0, {"smallest": 0.5}, 1.0, share),)
    file = SupernetFile(
        space=DIGITS,
        data="digits",
        data_fingerprint="0",
        split_seed=0,
        classes=tuple("0123456789"),
        mean=(0.5,),
        std=(0.2,),
        recipe=recipe,
        device="cpu",
        history=history,
    )
    assert cut_short(file) == short


@pytest.mark.slow
def test_a_cut_off_supernet_warns_when_it_is_trained(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "net"
    arguments = ["supernet", "train", "digits", "--out", str(folder), "--device", "cpu", "--epochs", "500"]
    code, told, _ = call(capsys, *arguments, "--time-budget", "1s", "--set", "learning_rate=1e-8")
    assert code == 0
    assert re.search(r"Warning: its time budget of 1\.0 s ended the training after [\d.]+ % of 500 epochs", told)
    assert "no better than guessing would" in told  # at that rate nothing is learned
    share = read_file(folder).history[-1].share
    assert share is not None
    assert 0 < share < 1
