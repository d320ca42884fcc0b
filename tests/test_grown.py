"""Records that vanish, are cut or are replaced under a live search: none is begun anew over them, here or in the replica."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import RunFactory
from driving import searcher_of
from test_run import record

from nas.common.errors import InputError
from nas.runs.settings import SearchSettings
from nas.runs.store import RunDirectory, open_run
from nas.search.broker import Broker
from nas.spaces.files import load_space

SETTINGS = SearchSettings(load_space("digits"), "digits", sampler="random", trials=6)


def vanishes(trials: Path) -> None:
    trials.unlink()


def is_cut(trials: Path) -> None:
    os.truncate(trials, 100)


def is_begun_anew(trials: Path) -> None:
    trials.unlink()
    trials.write_text("{}\n" * 5000)


harmed = pytest.mark.parametrize("harm", [vanishes, is_cut, is_begun_anew])


@harmed
@pytest.mark.parametrize("through", ["what was read", "what was written"])
def test_nothing_is_added_to_records_that_lost_something(
    make_run: RunFactory, harm: Callable[[Path], None], through: str
) -> None:
    run = make_run(SETTINGS)
    run.append(record(0))
    if through == "what was read":
        run = open_run(run.path)
        assert run.records() == [record(0)]
    harm(run.path / "trials.jsonl")
    left = (run.path / "trials.jsonl").read_bytes() if (run.path / "trials.jsonl").exists() else None
    with pytest.raises(
        InputError, match=r"trials\.jsonl: cannot be written: (No such file|it no longer holds the \d+ bytes)"
    ):
        run.append(record(1))
    assert left == ((run.path / "trials.jsonl").read_bytes() if (run.path / "trials.jsonl").exists() else None)


def test_a_search_whose_records_vanish_ends_and_says_so(make_run: RunFactory) -> None:
    run = make_run(SETTINGS)
    broker = Broker(run)
    searcher = searcher_of(broker)
    assert isinstance(searcher.suggest("a"), dict)
    (run.path / "trials.jsonl").unlink()
    searcher.on_trial_complete("a", error=True)
    assert isinstance(searcher.error, InputError)
    assert "trials.jsonl: cannot be written: No such file or directory" in str(searcher.error)
    assert searcher.suggest("b") == "FINISHED"
    assert not (run.path / "trials.jsonl").exists()


def test_a_torn_line_and_what_others_add_are_no_loss(make_run: RunFactory) -> None:
    run = make_run(SETTINGS)
    run.append(record(0))
    with (run.path / "trials.jsonl").open("a") as file:
        file.write('{"torn')
    again = open_run(run.path)
    again.append(record(1))
    run.append(record(2))
    assert [each.number for each in RunDirectory.recorded(again)] == [0, 1, 2]
