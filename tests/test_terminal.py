"""What a terminal shows: signs that its encoding lacks, 80 columns, what members are known for, commands to paste."""

from __future__ import annotations

import csv
import io
import os
import random
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from conftest import RunFactory
from rich.console import Console

from nas.cli.app import main
from nas.common.jsonl import json_line
from nas.common.text import count_text, ms_text
from nas.latency.protocol import LatencyProtocol
from nas.latency.result import Latency
from nas.runs.objectives import objective
from nas.runs.picks import known_as
from nas.runs.record import Evaluation, Outcome, TrialRecord
from nas.runs.settings import EvaluationSettings, SearchSettings
from nas.runs.status import status_of
from nas.runs.store import RunDirectory, open_run
from nas.spaces.base import Cost
from nas.spaces.files import load_space
from nas.training.history import EpochMetrics
from nas.views.report import write_report
from nas.views.terminal.front import front_table, no_front_text
from nas.views.terminal.status import resume_command


def add(run: RunDirectory, number: int, accuracy: float, ms: float) -> TrialRecord:
    """A trained candidate with these figures, and large costs."""
    values = run.settings.space.sample(random.Random(number))
    architecture = run.settings.space.architecture(values).canonical
    protocol = LatencyProtocol()
    latency = Latency(ms, 0.9 * ms, 1.1 * ms, 0.2, 30, 1, True, False, 0.0, True, "test", (1, 1, 8, 8), protocol)
    epoch = EpochMetrics(1, 1.0, 1.0, accuracy, {"accuracy": accuracy}, 1.0, 1.0)
    evaluation = Evaluation(Outcome.DONE, None, Cost(123_456_789, 45_678_912), latency, (epoch,))
    record = TrialRecord(
        number, architecture.digest, str(architecture), architecture, values, evaluation,
        {"accuracy": accuracy, "latency": ms},
    )  # fmt: skip
    run.append(record)
    return record


def shown(run: RunDirectory, width: int = 80) -> list[str]:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(front_table(run, run.records()))
    return console.export_text().splitlines()


@pytest.mark.subprocess
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "gbk", "cp437", "cp1252"])
def test_a_front_is_printed_in_every_encoding(make_run: RunFactory, encoding: str) -> None:
    run = make_run()
    add(run, 0, 0.5, 1.0)
    add(run, 1, 0.9, 2.0)
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    command = [sys.executable, "-m", "nas.cli", "front", str(run.path)]
    done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode(encoding)
    assert re.search(r"90\.00 (±|\+-) 1\.50", text)


@pytest.mark.subprocess
def test_an_error_names_what_no_encoding_has(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    for name in (os.fsencode(tmp_path) + b"/\xff", "/no/größe→"):  # a name that is not UTF-8, one beyond ASCII
        command = [sys.executable, "-m", "nas.cli", "front", name]
        done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=120)
        assert done.returncode == 2
        assert b"Traceback" not in done.stderr
        assert done.stderr.startswith(b"nas: ")


def test_a_member_has_all_its_names(make_run: RunFactory) -> None:
    run = make_run()
    small, best = add(run, 0, 0.5, 1.0), add(run, 1, 0.9, 1.01)
    add(run, 2, 0.95, 3.0)
    add(run, 3, 0.5, 4.0)  # dominated
    assert known_as(run.records(), run.settings.objectives) == {
        small.digest: ["fastest"],
        best.digest: ["knee"],
        run.records()[2].digest: ["most-accurate"],
    }
    run = make_run(name="two")
    add(run, 0, 0.5, 1.0)
    best = add(run, 1, 0.9, 1.0)
    row = next(line for line in shown(run, 120) if line.startswith(best.digest[:8]))
    assert row.endswith("knee, most-accurate, fastest")


def test_the_only_member_is_everything(make_run: RunFactory) -> None:
    run = make_run()
    only = add(run, 0, 0.5, 1.0)
    assert known_as(run.records(), run.settings.objectives) == {only.digest: ["knee", "most-accurate", "fastest"]}
    assert known_as([], run.settings.objectives) == {}


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "macro_f1"])
def test_the_table_fits_80_columns_whole(make_run: RunFactory, metric: str) -> None:
    evaluation = EvaluationSettings(metric=metric)
    run = make_run(SearchSettings(space=load_space("digits"), data="digits", evaluation=evaluation))
    records = [add(run, 0, 0.5, 812.3456), add(run, 1, 0.9666, 934.5678), add(run, 2, 1.0, 1234.5678)]
    table = shown(run)
    assert max(map(len, table)) <= 80
    assert "…" not in "\n".join(table)
    for record in records:
        row = next(line for line in table if line.startswith(record.digest[:8]))
        latency = record.evaluation.latency
        assert latency is not None
        for figure in (ms_text(latency.median_ms), objective("macs").show(123_456_789), "45.68 M"):
            assert figure in row
    assert re.search(r"knee,?\s+most-accurate|most-accurate,?\s+knee|knee", "\n".join(table))


def test_numbers_take_as_many_digits_as_they_have() -> None:
    assert [ms_text(ms) for ms in (0.0764, 9.8765, 98.765, 987.65, 9876.5)] == [
        "0.076",
        "9.877",
        "98.77",
        "987.6",
        "9876",
    ]
    macs = objective("macs")
    assert [macs.show(count) for count in (5_800, 1_979_000, 56_289_000, 473_123_000, 4_491_000_000)] == [
        "5.8 k", "1.979 M", "56.29 M", "473.1 M", "4.491 G",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["my runs #1", "it's $HOME", "a;b&c"])
def test_commands_can_be_pasted(make_run: RunFactory, name: str) -> None:
    run = make_run(name=name)
    add(run, 0, 0.5, 1.0)
    assert shlex.split(resume_command(status_of(run))) == ["nas", "search", "--resume", str(run.path)]
    write_report(run)
    import html

    page = html.unescape(run.report_path.read_text(encoding="utf-8"))
    commands = re.findall(r"nas (?:export|train|search) [^\n<]*", page)
    ours = [command for command in commands if str(run.path.parent) in command]
    assert len(ours) >= 3
    for command in ours:
        assert str(run.path) in shlex.split(command)


@pytest.mark.subprocess
def test_status_counts_in_words(make_run: RunFactory) -> None:
    run = make_run(replace(SearchSettings(space=load_space("digits"), data="digits"), trials=1))
    add(run, 0, 0.5, 1.0)
    command = [sys.executable, "-m", "nas.cli"]
    done = subprocess.run([*command, "front", str(run.path)], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.startswith("1 trial: 1 done")
    done = subprocess.run([*command, "status", str(run.path)], capture_output=True, text=True, check=True, timeout=120)
    assert "1 of 1 candidate" in done.stdout
    assert "1 candidates" not in done.stdout


@pytest.mark.parametrize(
    ("count", "text"), [(7, "7"), (320, "320"), (999_999, "999,999"), (95_000_000, "9.5e+07"), (10**17, "1.0e+17")]
)
def test_a_number_of_networks_is_whole_while_it_can_be_read(count: int, text: str) -> None:
    assert count_text(count) == text


def test_why_there_is_no_front_is_not_laid_on_limits_that_nothing_is_over(make_run: RunFactory) -> None:
    trained = add(make_run(), 0, 0.5, 1.0)
    ended = {outcome: replace(trained, evaluation=replace(trained.evaluation, outcome=outcome)) for outcome in Outcome}
    failed, stopped, over = ended[Outcome.FAILED], ended[Outcome.STOPPED], ended[Outcome.REJECTED]
    assert no_front_text([failed]) == "No candidate was trained."
    assert no_front_text([failed, stopped]) == "No candidate came to the end of its training."
    assert no_front_text([failed, stopped, over]) == "No candidate is within the hard limits."


HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e[/b][red]=cmd|'/C calc'!A0"


def test_texts_of_records_are_shown_and_never_obeyed(make_run: RunFactory, capsys: pytest.CaptureFixture[str]) -> None:
    """A run of somebody else's moved the cursor, set the title, ended with a MarkupError, and gave spreadsheets a formula."""
    run = make_run()
    good, lost, failed = (add(run, number, 0.5 + number / 10, 1.0 + number) for number in range(3))
    evaluation = replace(good.evaluation, worker=HOSTILE)
    records = [
        replace(good, text=f"={HOSTILE}", evaluation=evaluation, imported_from=f"=1+{HOSTILE}"),
        replace(lost, evaluation=Evaluation(Outcome.LOST, HOSTILE, worker=HOSTILE), objectives={}),
        replace(failed, evaluation=Evaluation(Outcome.FAILED, HOSTILE, worker=HOSTILE), objectives={}),
    ]
    (run.path / "trials.jsonl").write_text("".join(f"{json_line(record)}\n" for record in records))
    content = yaml.safe_load((run.path / "run.yaml").read_text())
    content["provenance"].update(host=HOSTILE, hardware=HOSTILE, command=f"nas search {HOSTILE}")
    (run.path / "run.yaml").write_text(yaml.safe_dump(content))
    for command in (["front"], ["front", "--csv"], ["front", "--json"], ["status"]):
        with pytest.raises(SystemExit) as end:
            main([command[0], str(run.path), *command[1:]])
        told = "".join(capsys.readouterr())
        assert end.value.code in (0, None), told
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", told)
        if command == ["front", "--csv"]:
            (row,) = csv.DictReader(io.StringIO(told))
            assert row["architecture"].startswith("'=\\x1b]0;owned")
            assert row["imported_from"].startswith("'=1+")
        if command == ["status"]:
            assert "[/b][red]=cmd" in told
    assert "\x1b" not in write_report(run).read_text(encoding="utf-8")
    assert open_run(run.path).records()[1].evaluation.reason == HOSTILE.replace("\x1b", "\\x1b").replace(
        "\x07", "\\x07"
    ).replace("\x9b", "\\x9b").replace("\u202e", "\\u202e")
