"""The run directory: what is written can be read again, and what cannot be read is said, never fatal."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
import torch
import yaml
from conftest import RunFactory

from nas.common.errors import InputError
from nas.common.files import weights_content, write_atomically
from nas.latency.protocol import LatencyProtocol
from nas.latency.result import Latency
from nas.runs.record import Evaluation, Outcome, TrialRecord
from nas.runs.settings import Budgets, EvaluationSettings, SearchSettings
from nas.runs.store import RunDirectory, open_run
from nas.search.conditions import settings_here
from nas.spaces.base import Cost
from nas.spaces.files import list_spaces, load_space
from nas.training.history import EpochMetrics


def record(number: int, space_name: str = "digits") -> TrialRecord:
    space = load_space(space_name)
    values = space.sample(random.Random(number))
    architecture = space.architecture(values).canonical
    latency = Latency(1.5, 1.25, 2.0, 0.02, 30, 4, False, True, 0.5, True, "a GPU", (1, 3, 8, 8), LatencyProtocol())
    epochs = (
        EpochMetrics(1, 2.0, 1.75, 0.5, {"accuracy": 0.5}, 1000.0, 0.25),
        EpochMetrics(2, 1.0, 1.5, 0.75, {"accuracy": 0.75}, 900.0, 0.25),
    )
    return TrialRecord(
        number=number,
        digest=architecture.digest,
        text=str(architecture),
        architecture=architecture,
        parameters=values,
        evaluation=Evaluation(Outcome.DONE, None, Cost(10, 20), latency, epochs, 0.0, 3.5, "host"),
        objectives={"accuracy": 0.75, "latency": 1.5},
        started=1.0,
        finished=2.0,
    )


@pytest.mark.parametrize("name", list_spaces())
def test_settings_and_records_come_back_as_they_were(make_run: RunFactory, name: str) -> None:
    budgets = Budgets(max_macs=10**9, max_latency_ms=2.5)
    settings = SearchSettings(
        load_space(name),
        "some/folder",
        3,
        ("accuracy", "params"),
        EvaluationSettings(budgets=budgets),
        7,
        60.0,
        5,
        "gp",
    )
    run = make_run(settings)
    records = [record(number, name) for number in range(5)]
    for each in records:
        run.append(each)
    again = open_run(run.path)
    assert again.settings == settings
    assert again.provenance == run.provenance
    assert again.records() == records
    assert [r.architecture.digest for r in again.records()] == [r.digest for r in records]
    assert isinstance(yaml.safe_load((run.path / "run.yaml").read_text()), dict)


@pytest.mark.parametrize("name", ["x" * 300, "a/" * 3000])
def test_a_name_too_long_for_a_folder_is_one_sentence(name: str) -> None:
    with pytest.raises(InputError, match=r"^'[xa/.]{20,}'?: cannot be read: File name too long$"):
        open_run(name)


def test_a_folder_that_may_not_be_read_is_one_sentence(make_run: RunFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:  # as root none is closed
        raise PermissionError(13, "Permission denied", str(path))

    run = make_run()
    monkeypatch.setattr(Path, "stat", closed)
    with pytest.raises(InputError, match=r"run': cannot be read: Permission denied"):
        open_run(run.path)


def test_an_existing_folder_is_refused_and_left_alone(make_run: RunFactory, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "precious").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        make_run(name="taken")
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["precious"]


def test_a_record_after_a_torn_line_is_not_swallowed(make_run: RunFactory) -> None:
    run = make_run()
    run.append(record(0))
    with (run.path / "trials.jsonl").open("ab") as file:
        file.write(b'{"number": 1, "dig')
    run.append(record(2))
    assert [r.number for r in run.records()] == [0, 2]


@pytest.mark.parametrize(
    "told", [["latency", "macs"], ["accuracy"], ["accuracy", "speed"], ["accuracy", "macs", "macs"]]
)
def test_objectives_that_no_search_has_are_refused_where_a_run_is_opened(make_run: RunFactory, told: list[str]) -> None:
    run = make_run()
    written = yaml.safe_load((run.path / "run.yaml").read_text())
    written["settings"]["objectives"] = told
    (run.path / "run.yaml").write_text(yaml.safe_dump(written))
    with pytest.raises(InputError, match=r"run.yaml: settings: objectives"):
        open_run(run.path)


@pytest.mark.parametrize("told", [float("inf"), float("nan"), -float("inf"), 10**400])
def test_numbers_that_no_search_was_told_are_refused_where_a_run_is_opened(make_run: RunFactory, told: float) -> None:
    run = make_run()
    written = yaml.safe_load((run.path / "run.yaml").read_text())
    (run.path / "run.yaml").write_text(yaml.safe_dump(written | {"settings": written["settings"] | {"confirm": told}}))
    with pytest.raises(
        InputError, match=r"run.yaml: settings.confirm: .{2,80} is not allowed: a number of at most 64 bits"
    ):
        open_run(run.path)


@pytest.mark.parametrize("told", [7, "r8-c8k3-h0", None, [], True])
def test_a_record_whose_architecture_is_no_mapping_is_left_out(make_run: RunFactory, told: object) -> None:
    run = make_run()
    run.append(record(0))
    line = json.loads((run.path / "trials.jsonl").read_text()) | {"architecture": told}
    with (run.path / "trials.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    assert [r.number for r in open_run(run.path).records()] == [0]


@pytest.mark.parametrize("change", [{"input_size": 10**400}, {"head_channels": 10**30}, {"input_channels": 0}])
def test_a_record_whose_architecture_has_numbers_beyond_all_networks_is_left_out(
    make_run: RunFactory, change: dict[str, int]
) -> None:
    run = make_run()
    run.append(record(0))
    line = json.loads((run.path / "trials.jsonl").read_text())
    with (run.path / "trials.jsonl").open("a") as file:
        file.write(json.dumps(line | {"architecture": line["architecture"] | change}) + "\n")
    assert [r.number for r in open_run(run.path).records()] == [0]


def test_foreign_newer_and_damaged_lines_are_left_out_with_a_warning(
    make_run: RunFactory, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run()
    run.append(record(0))
    newer = json.loads((run.path / "trials.jsonl").read_text()) | {"schema": 99}
    with (run.path / "trials.jsonl").open("ab") as file:
        file.write(json.dumps(newer).encode() + b'\n{"schema": "1"}' + b"\n[1, 2]\nnull\n\xff\xfe\n{}\n\n")
    run.append(record(1))
    assert [r.number for r in run.records()] == [0, 1]
    assert "trials.jsonl:2: written by a newer version" in caplog.text
    assert caplog.text.count("not a record") == 5
    assert f"{run.path / 'trials.jsonl'}:4: not a record, left out (" in caplog.text
    assert (
        ":5: not a record, left out (no whole line of JSON)" in caplog.text.replace("\xff", "") or "JSON" in caplog.text
    )
    told = len(caplog.records)
    run.records()
    assert len(caplog.records) == told  # of each line once


def test_records_of_a_family_that_is_not_here_are_no_damaged_ones(
    make_run: RunFactory, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run()
    run.append(record(0))
    theirs = json.loads((run.path / "trials.jsonl").read_text())
    theirs["architecture"] = {"kind": "attention", "depth": 3}
    with (run.path / "trials.jsonl").open("a") as file:
        file.write(f"{json.dumps(theirs)}\n" * 3)
    assert [r.number for r in run.records()] == [0]
    assert [each.getMessage() for each in caplog.records] == [
        f"{run.path / 'trials.jsonl'}: records that cannot be read here are left out: unknown family of networks 'attention': use "
        "one of mobile, graph, or module:name of yours"
    ]
    later = run.records_from(0)
    assert (later.foreign, len(later.missing)) == (0, 1)


def test_a_run_of_a_version_that_knew_no_precision_was_trained_in_float32(make_run: RunFactory) -> None:
    run = make_run()
    written = yaml.safe_load((run.path / "run.yaml").read_text())
    del written["settings"]["evaluation"]["recipe"]["precision"]
    (run.path / "run.yaml").write_text(yaml.safe_dump(written))
    assert settings_here(open_run(run.path)).evaluation.recipe.precision == "float32"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "not valid YAML"),
        ("[]", "run.yaml"),
        ("settings: {}\nprovenance: {}\n", "settings"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
        ("[" * 20_000, "not valid YAML"),
        ("schema: " + "9" * 5_000, "not valid YAML"),
        ("settings: {}\nsettings: {}\n", "the key 'settings' is given twice"),
        (
            "schema: 2\nprovenance: {versions: {pareto-nas: 0.7.1}}\n",
            r"by a newer version, 0\.7\.1, whose settings would be lost",
        ),
        ("schema: 2\nsettings: []\n", "by a newer version, whose settings would be lost here; update pareto-nas"),
    ],
)
def test_a_damaged_run_file_is_one_sentence(make_run: RunFactory, content: str, message: str) -> None:
    run = make_run()
    (run.path / "run.yaml").write_text(content)
    with pytest.raises(InputError, match=message):
        open_run(run.path)


def test_weights_of_the_front_and_the_recent_few_are_kept(make_run: RunFactory) -> None:
    run = make_run()
    for index in range(10):
        run.save_weights(f"{index:016}", weights_content({"w": torch.full((2,), float(index))}))
        path = run.weights_path(f"{index:016}")
        os.utime(path, (index, index))
    run.prune_weights({f"{0:016}", f"{3:016}"})
    kept = sorted(int(path.stem) for path in (run.path / "weights").iterdir())
    assert kept == [0, 3, 6, 7, 8, 9]
    assert torch.equal(run.load_weights(f"{3:016}")["w"], torch.tensor([3.0, 3.0]))
    with pytest.raises(InputError, match="were not kept"):
        run.load_weights(f"{1:016}")


def test_weights_are_never_unpickled(make_run: RunFactory) -> None:
    run = make_run()
    torch.save({"w": torch.zeros(1)}, run.weights_path("0" * 16))
    with pytest.raises(InputError, match="not a readable safetensors file"):
        run.load_weights("0" * 16)


def test_one_search_at_a_time_on_a_directory(make_run: RunFactory) -> None:
    run = make_run()
    with run.locked(), pytest.raises(InputError, match="another search is running"), open_run(run.path).locked():
        pass
    with open_run(run.path).locked():
        pass


def test_not_a_run_directory(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(InputError, match="not a run directory"):
            open_run(path)
    assert isinstance(RunDirectory, type)


def test_what_killed_processes_left_half_written_goes_with_the_next_search(make_run: RunFactory) -> None:
    run = make_run()
    left = [run.path / name for name in (".run.yaml.4711.tmp", f"weights/.a.safetensors.{'0f' * 8}.tmp")]
    fresh, mine = run.path / f".report.html.{'0f' * 8}.tmp", run.path / ".notes.tmp"
    for path in (*left, fresh, mine):
        path.write_text("half")
        if path != fresh:
            os.utime(path, (0, 0))
    with run.locked():
        assert not any(path.exists() for path in left)
        assert fresh.exists()
        assert mine.exists()


def test_files_written_at_once_by_processes_of_one_number_are_whole(
    make_run: RunFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hosts have processes of the same number; one's draft was the other's."""
    run = make_run()
    drafts: set[str] = set()
    replaced = Path.replace

    def replace_later(self: Path, target: Path) -> Path:
        drafts.add(self.name)
        if len(drafts) == 1:
            write_atomically(run.report_path, b"the other's")
        return replaced(self, target)

    monkeypatch.setattr(Path, "replace", replace_later)
    write_atomically(run.report_path, b"mine")
    assert len(drafts) == 2
    assert run.report_path.read_bytes() == b"mine"
