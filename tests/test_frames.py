"""A run as people work with it from Python: DataFrames, the Pareto figure, a summary and progress in a notebook."""

from __future__ import annotations

import random
from dataclasses import replace

import pandas as pd
import pytest
from conftest import RunFactory
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell

import nas
from nas.common.errors import InputError
from nas.latency.protocol import LatencyProtocol
from nas.latency.result import Latency
from nas.runs.record import Confirmation, Evaluation, Outcome, TrialRecord
from nas.runs.settings import EvaluationSettings, LatencyTarget, SearchSettings
from nas.search.broker import Broker
from nas.spaces.base import Cost
from nas.spaces.files import load_space
from nas.training.history import EpochMetrics
from nas.views.notebook import NotebookProgress, progress_here
from nas.views.run import Run

SPACE = load_space("digits")
EDGE = LatencyTarget("edge", LatencyProtocol(batch_size=8))
SETTINGS = SearchSettings(
    SPACE, "digits", objectives=("accuracy", "latency", "latency:edge"), evaluation=EvaluationSettings(targets=(EDGE,))
)


def latency(ms: float) -> Latency:
    return Latency(
        ms, 0.9 * ms, 1.2 * ms, 0.02, 40, 3, False, True, 0.0, True, "Bench CPU", (1, 1, 8, 8), LatencyProtocol(),
        interval_ms=(0.95 * ms, 1.1 * ms),
    )  # fmt: skip


def trial(number: int, accuracy: float, ms: float) -> TrialRecord:
    """A trained candidate."""
    values = SPACE.sample(random.Random(number))
    architecture = SPACE.architecture(values).canonical
    history = (EpochMetrics(1, 1.0, 1.0, accuracy, {"accuracy": accuracy}, 3000.0, 0.3),)
    return TrialRecord(
        number, architecture.digest, str(architecture), architecture, values,
        Evaluation(Outcome.DONE, None, Cost(1000, 100), latency(ms), history, seconds=4.0, worker="here:1", latencies={"edge": latency(8 * ms)}),
        {"accuracy": accuracy, "latency": ms, "latency:edge": 8 * ms}, started=1.79e9, finished=1.79e9 + 4,
    )  # fmt: skip


def failed(number: int) -> TrialRecord:
    """A candidate of which nothing became known, recorded without times."""
    evaluation = Evaluation(Outcome.FAILED, "loss is not finite")
    return replace(trial(number, 0.5, 1.0), evaluation=evaluation, objectives={}, started=0.0, finished=0.0)


@pytest.fixture
def run(make_run: RunFactory) -> Run:
    made = make_run(SETTINGS)
    for record in (trial(0, 0.9, 2.0), trial(1, 0.8, 1.0), trial(2, 0.7, 1.5), failed(3)):
        made.append(record)
    return nas.open_run(made.path)


def test_frame_has_a_row_a_trial_and_nothing_that_is_not_known(run: Run) -> None:
    frame = run.frame()
    assert frame["number"].tolist() == [0, 1, 2, 3]
    assert frame["outcome"].tolist() == ["done", "done", "done", "failed"]
    assert frame["on_front"].tolist() == [True, True, False, False]
    assert frame["reason"].isna().tolist() == [True, True, True, False]
    first, last = frame.iloc[0], frame.iloc[3]
    assert (first["accuracy"], first["latency"], first["latency_low"], first["latency_high"]) == (0.9, 2.0, 1.9, 2.2)
    assert (first["latency:edge"], first["latency:edge_p90"], first["macs"], first["params"]) == (16.0, 19.2, 1000, 100)
    assert frame["latency_contended"].tolist() == [True, True, True, pd.NA]
    assert (first["epochs"], first["seconds"], first["worker"]) == (1, 4.0, "here:1")
    assert first["finished"] - first["started"] == pd.Timedelta(seconds=4)
    unknown = ["accuracy", "latency", "latency:edge", "latency_noisy", "macs", "memory", "started", "repeat_of"]
    assert last[unknown].isna().all()


def test_frame_holds_what_was_chosen_under_prefixed_names(run: Run) -> None:
    frame = run.frame()
    chosen = frame.filter(regex=r"^parameter\.")
    assert list(chosen) == [f"parameter.{name}" for name in SPACE.parameters]
    for record, (_, row) in zip(run.records(), chosen.iterrows(), strict=True):
        assert {name.removeprefix("parameter."): value for name, value in row.items()} == record.parameters  # type: ignore[attr-defined]


def test_front_frame_is_the_front_cheapest_first_with_what_confirmed_it(run: Run) -> None:
    confirmed = replace(trial(1, 0.84, 1.0).evaluation)
    run.append_confirmation(Confirmation(run.records()[1].digest, 1, 7, 2, confirmed))
    front = run.front_frame()
    assert front["number"].tolist() == [1, 0]
    assert front["known_as"].tolist() == ["knee, fastest", "most-accurate"]
    assert front.loc[run.records()[1].digest, "confirmed"] == 0.84
    assert front["confirmed_trainings"].tolist() == [1, 0]
    assert front["confirmed"].isna().tolist() == [False, True]


def test_frames_of_a_run_without_a_trial_have_their_columns(run: Run, make_run: RunFactory) -> None:
    empty = nas.open_run(make_run(SETTINGS, "empty").path)
    assert list(empty.frame()) == list(run.frame())
    untyped = [f"parameter.{name}" for name in SPACE.parameters]
    assert empty.frame().drop(columns=untyped).dtypes.to_dict() == run.frame().drop(columns=untyped).dtypes.to_dict()
    assert list(empty.front_frame()) == list(run.front_frame())
    assert empty.front_frame().empty


def test_figure_is_the_pareto_figure_against_any_cost_of_the_run(run: Run) -> None:
    assert run.figure().layout.xaxis.title.text == "Latency (ms)"
    assert run.figure("latency:edge").layout.xaxis.title.text == "Latency on edge (ms)"
    plotted = {value for trace in run.figure().data for value in (trace.x if trace.x is not None else ())}
    assert {1.0, 1.5, 2.0} <= plotted
    with pytest.raises(InputError, match=r"cost 'macs': the run's costs are latency, latency:edge"):
        run.figure("macs")


def test_figure_without_a_trained_candidate_says_so(make_run: RunFactory) -> None:
    figure = nas.open_run(make_run(SETTINGS).path).figure()
    assert figure.layout.annotations[0].text == "No candidate is trained yet"


def test_a_run_shows_itself_in_a_notebook_with_its_text_escaped(run: Run, make_run: RunFactory) -> None:
    page = run._repr_html_()
    assert "3 done, 1 failed" in page
    assert page.index("80.00 ± 2.00 %") < page.index("90.00 ± 1.50 %")
    assert "1.000 ms (0.950–1.100)" in page
    assert run.records()[2].digest[:8] not in page
    hostile = nas.open_run(make_run(replace(SETTINGS, data="<script>"), "hostile").path)
    assert "<script>" not in hostile._repr_html_()
    assert "no trials yet" in hostile._repr_html_()


def test_what_a_resumed_search_renews_keeps_tables_and_figures(run: Run) -> None:
    assert isinstance(run.with_settings(replace(run.settings, trials=50)), Run)


def test_progress_in_a_notebook_is_one_output_that_is_replaced_and_cleared(run: Run) -> None:
    shell = InteractiveShell.instance()
    published, shell.display_pub = shell.display_pub, CapturingDisplayPublisher(shell=shell)
    try:
        progress = NotebookProgress()
        broker = Broker(run)
        progress.begin(broker)
        asked = broker.ask()
        assert asked is not None
        progress.epoch(asked, EpochMetrics(1, 1.0, 1.0, 0.5, {"accuracy": 0.5}, 3000.0, 0.3))
        progress.end()
        pages = [output["data"]["text/html"] for output in shell.display_pub.outputs]
        displays = {output["transient"]["display_id"] for output in shell.display_pub.outputs}
    finally:
        shell.display_pub = published
        InteractiveShell.clear_instance()
    assert len(displays) == 1
    assert "3/30 trained, 0 running, 1 failed" in pages[0]
    assert "Pareto front so far" in pages[0]
    assert "epoch 1/10, 50.0 %" in pages[1]
    assert pages[-1] == ""


def test_elsewhere_a_search_from_python_keeps_silent() -> None:
    assert not isinstance(progress_here(), NotebookProgress)


@pytest.mark.parametrize(("started", "finished"), [(1e308, float(2**62)), (-1e300, 1e18)])
def test_times_beyond_every_calendar_are_missing(run: Run, started: float, finished: float) -> None:
    run.append(replace(trial(4, 0.6, 3.0), started=started, finished=finished))
    row = nas.open_run(run.path).frame().iloc[-1]
    assert row["number"] == 4
    assert pd.isna(row["started"])
    assert pd.isna(row["finished"])


def test_a_record_with_whole_numbers_of_more_than_64_bits_is_left_out(run: Run) -> None:
    line = (run.path / "trials.jsonl").read_text().splitlines()[0]
    changed = [
        line.replace('"number":0', f'"number":{10**400}'),
        line.replace('"batch_size":1', f'"batch_size":{2**63}'),
    ]
    assert line not in changed
    with (run.path / "trials.jsonl").open("a") as file:
        file.writelines(each + "\n" for each in changed)
    assert list(nas.open_run(run.path).frame()["number"]) == [0, 1, 2, 3]
