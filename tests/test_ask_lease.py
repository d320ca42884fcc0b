"""What the driver of a search does under the CPU's lease: it computes, and waits for no disk. No Ray runs."""

from __future__ import annotations

import fcntl
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from answers import answer
from conftest import RunFactory
from driving import searcher_of

from nas.runs.record import Outcome
from nas.runs.settings import SearchSettings
from nas.search.broker import Broker
from nas.search.study import RunStudy
from nas.spaces.files import load_space


def cpu_is_free() -> bool:
    """Whether a measurement could begin now: the exclusive lock of the CPU's lease is to be had."""
    with (Path(os.environ["NAS_LEASE_DIR"]) / "cpu.device").open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_a_proposal_is_made_under_the_lease_of_the_cpu_and_what_is_recorded_with_it_is_not(
    make_run: RunFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SearchSettings(load_space("digits"), "digits", sampler="random", trials=6)
    broker = Broker(make_run(replace(settings, confirm=0.0)))
    for _ in range(3):  # the reference networks
        candidate = broker.ask()
        assert candidate is not None
        broker.finish(candidate, answer(candidate))
    broker.study.enqueue(broker.records[0].parameters)  # is answered by its record

    proposing, waiting, flush, propose = [], [], os.fsync, RunStudy.ask

    def fsync(file: int) -> None:
        waiting.append(cpu_is_free())
        flush(file)

    def ask(study: RunStudy, sampler: optuna.samplers.BaseSampler) -> Any:
        proposing.append(cpu_is_free())
        return propose(study, sampler)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(RunStudy, "ask", ask)
    searcher = searcher_of(broker)
    for trial in range(2):
        assert isinstance(searcher.suggest(str(trial)), dict)
    assert Outcome.REPEAT in {record.outcome for record in broker.records}
    assert proposing
    assert not any(proposing)
    assert waiting
    assert all(waiting)
