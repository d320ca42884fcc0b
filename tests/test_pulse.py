"""Output that is a pipe: a line while something takes long, whichever command it is, and one for many rejections."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from answers import answer
from conftest import GLANCE, RunFactory
from rich.console import Console

import nas.views.terminal.pulse
from nas.cli.app import main
from nas.cli.options import flag_of
from nas.runs.record import Outcome
from nas.runs.settings import Budgets, EvaluationSettings, SearchSettings
from nas.search.broker import Broker
from nas.spaces.files import load_space
from nas.views.terminal.progress import LineProgress
from nas.views.terminal.pulse import Pulse

SEARCH = (
    *("--data", "slow_parts:slow_data", "--metric", "slow_parts:slow_score", "--trials", "2", "--epochs", "3"),
    *("--objectives", "accuracy,macs", "--max-concurrent", "1", "--set", "precision=float32", "--device", "cpu"),
    *("--latency", GLANCE),
)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The standard output of a command, which is no terminal: a line for every half second without one, not every 25."""
    monkeypatch.setattr(nas.views.terminal.pulse, "QUIET_S", 0.5)

    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit) as end:
            main(list(arguments))
        out, err = capsys.readouterr()
        assert not end.value.code, err
        return out

    return run


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
@pytest.mark.usefixtures("own_ray")  # starting it is what takes long
def test_a_search_and_what_follows_it_say_what_goes_on(said: Callable[..., str], tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    shown = said("search", "digits", *SEARCH, "--out", out)
    assert "reading the data and looking at this machine, for" in shown
    assert "starting Ray and its workers, for" in shown
    assert "at epoch 1/3" in shown
    assert "about 0.0 s left" not in shown
    trained = said("train", out, "--epochs", "3")
    assert "epoch 2 of 3, for" in trained
    assert "a few seconds left" in trained
    compared = said("baseline", out, "--train", "--networks", "mobilenet_v2_050")
    assert "mobilenet_v2_050: epoch 1 of 3 done, for" in compared


@pytest.mark.slow
def test_slow_data_are_waited_for_with_a_line(said: Callable[..., str], tmp_path: Path) -> None:
    out = str(tmp_path / "net")
    shown = said("supernet", "train", "digits", "--data", "slow_parts:slow_data", "--epochs", "1", "--out", out)
    assert "reading the data, for" in shown


def test_a_pulse_is_silent_on_a_terminal_and_where_lines_come_anyway(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nas.views.terminal.pulse, "QUIET_S", 0.1)
    terminal, log, quiet = io.StringIO(), io.StringIO(), io.StringIO()
    other = Pulse(Console(file=terminal, force_terminal=True), "working")
    with other, Pulse(Console(file=quiet), "working"), Pulse(Console(file=log), "working") as pulse:
        for number in range(20):
            pulse.say(f"line {number}")
            time.sleep(0.015)
    assert terminal.getvalue() == ""
    assert "working, for 0.1 s so far" in quiet.getvalue()
    assert log.getvalue().splitlines() == [f"line {number}" for number in range(20)]


def test_many_candidates_over_a_limit_are_one_line(make_run: RunFactory) -> None:
    evaluation = EvaluationSettings(budgets=Budgets(max_latency_ms=1))
    broker = Broker(make_run(SearchSettings(load_space("digits"), "digits", evaluation=evaluation, trials=50)))
    log = io.StringIO()
    progress = LineProgress(Pulse(Console(file=log, width=300), "searching", flag_of))
    progress.begin(broker)
    broker.on_record = progress.record
    for number in range(9):
        candidate = broker.ask()
        assert candidate is not None
        rejected = replace(answer(candidate, Outcome.REJECTED, 1.0), reason=f"reason {number}")
        latency = rejected.latency
        assert latency is not None
        rejected = replace(rejected, latency=replace(latency, p10_ms=2.0))
        broker.finish(candidate, answer(candidate) if number in (0, 7) else rejected)
    progress.end()
    first, many, trained, one = log.getvalue().splitlines()
    assert many.startswith("6 candidates over --max-latency not trained")
    assert "trial 0 done" in first
    assert "trial 7 done" in trained
    assert "trial 8 rejected: reason 8" in one
