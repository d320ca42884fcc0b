"""The door of families: one that is not ours, in a file of its own, is searched, resumed, reported and shown by name."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import BRIEF, GLANCE, check_consistent, install_package
from test_browse_guard import Page

from nas.cli.app import main
from nas.common.errors import InputError
from nas.common.plugins import children_path
from nas.latency.protocol import LatencyProtocol
from nas.models.networks import Backbone, build
from nas.runs.front import pareto_front
from nas.runs.record import Outcome
from nas.runs.store import open_run
from nas.search.latency import candidate_latency
from nas.spaces.families import architecture_cost, family_of, layer_rows, read_architecture
from nas.spaces.files import load_space
from nas.views.report.choices import choices_figure

TOY = Path(__file__).with_name("toy_family.py")
SPACE = {"family": "toy", "name": "stacks", "side": 8, "width": [4, 8], "depth": [1, 2, 3], "kernel": [1, 3]}
STACK = {"kind": "toy", "channels": 1, "side": 8, "width": 8, "kernels": [3, 1]}


@pytest.fixture(scope="module")
def _installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A package that brings the family `toy`, as pip would leave it; on the path of this process and its children."""
    site = tmp_path_factory.mktemp("site")
    install_package(site, "toys", "[nas.spaces]\ntoy = toy_family:FAMILY\n", {"toy_family": TOY})
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(site), children_path()]))
        yield site
    family_of.cache_clear()


@pytest.fixture(scope="module")
def space_file(_installed: Path) -> Path:
    """Its space."""
    path = _installed / "stacks.yaml"
    path.write_text(yaml.safe_dump(SPACE))
    return path


MEASURED = ("--objectives", "accuracy,latency", "--latency", f"threads:1,{GLANCE}")
QUICK = LatencyProtocol(warmup_s=0.01, block_ms=0.1, min_blocks=5, max_s=0.05, attempts=1)


def nas(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code or 0)


def test_what_is_asked_of_a_family_is_answered(space_file: Path) -> None:
    space, stack = load_space(space_file), read_architecture(STACK)
    assert (space.family, space.size, str(stack)) == ("toy", 2 * 3 * 2**3, "toy-w8-k3.1")
    assert space.architecture(space.locate(stack)).digest == stack.digest == space.parse("toy-w8-k3.1").digest
    assert read_architecture(json.loads(json.dumps(stack.to_json()))) == stack
    assert space.encode_canonical(stack) == (1, 1, 1, 0, 2)  # the third layer is not there
    network, rows, cost = build(stack, 10), layer_rows(stack, 10), architecture_cost(stack, 10)
    assert network(torch.zeros(2, *stack.input_shape)).shape == (2, 10)
    assert sum(parameter.numel() for parameter in network.parameters()) == cost.params
    assert (sum(row.macs for row in rows), sum(row.params for row in rows)) == (cost.macs, cost.params)
    first, again = (candidate_latency(stack, 10, QUICK) for _ in range(2))
    assert again.cached or first.contended  # what was measured while others used the device is not kept


def test_weights_are_inherited_within_a_family_alone(space_file: Path) -> None:
    space, stack = load_space(space_file), read_architecture(STACK)
    source = Backbone("theirs", stack, build(stack, 10, seed=5).state_dict(), 10, (0.5,), (0.5,))
    source.check_fits(space)
    inheritance = source.inherit(space.parse("toy-w8-k3"), 10)
    assert torch.equal(inheritance.state["0.weight"], source.state["0.weight"])
    with pytest.raises(InputError, match="the weights theirs are of the family toy, and the space digits is of mobile"):
        source.check_fits(load_space("digits"))


def test_a_network_lies_in_no_space_of_another_family(space_file: Path) -> None:
    stack, digits = read_architecture(STACK), load_space("digits")
    with pytest.raises(InputError, match=r"architecture toy-w8-k3\.1 is not in the space digits"):
        digits.locate(stack)
    with pytest.raises(InputError, match="is not in the space stacks"):
        load_space(space_file).locate(digits.smallest)


# ---------------------------------------------------------------- a search of an installed family


@pytest.fixture(scope="module")
def finished(own_ray: None, space_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of three candidates that was resumed for two more."""
    out = tmp_path_factory.mktemp("toy") / "run"
    flags = [*BRIEF, *MEASURED, "--confirm", "0", "--out", out]
    assert nas("search", space_file, "--trials", 4, "--enqueue", "toy-w4-k3.1", *flags) == 0
    assert nas("search", "--resume", out, "--trials", 6) == 0
    return out


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_a_family_of_an_installed_package_is_searched_and_resumed(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = open_run(finished)
    records = check_consistent(run)
    assert [record.outcome for record in records].count(Outcome.DONE) == 6
    assert {str(record.architecture) for record in records} >= {"toy-w4-k3.1", "toy-w4-k1", "toy-w8-k3.3.3"}
    for record in records:
        assert record.evaluation.latency is not None
        assert record.evaluation.cost is not None
        assert record.digest == read_architecture(record.architecture.to_json()).digest
    written = [json.loads(line) for line in (finished / "trials.jsonl").read_text().splitlines()]
    assert {line["architecture"]["kind"] for line in written} == {"toy"}
    assert yaml.safe_load((finished / "run.yaml").read_text())["settings"]["space"] == SPACE | {"channels": 1}

    best = pareto_front(run.judged(), run.settings.objectives)[0]
    assert nas("front", finished, "--json") == 0
    assert best.text in capsys.readouterr().out
    report = run.report_path.read_text(encoding="utf-8")
    assert best.text in report
    assert "convolution" in report  # the kind of its layers


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_its_candidates_fill_the_page(finished: Path) -> None:
    run = open_run(finished)
    digest = pareto_front(run.judged(), run.settings.objectives)[0].digest
    page, version = Page(run), "0:1"
    for tab, part in (("front", "scatter.figure"), ("choices", "choices-figure.children"), ("trials", "grid.rowData")):
        drawn = page.call(part, "tab.data", tab=tab, version=version, run="0", colour="kernel2")
        assert drawn.status_code == 200, part
    opened = page.call("drawer.hidden", "candidate.data", candidate=f"0:{digest}", version=version).text
    assert digest in opened
    assert "convolution" in opened


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_its_choices_are_told_layer_by_layer(finished: Path) -> None:
    run = open_run(finished)
    spread = [
        replace(record, objectives={"accuracy": number / 10, "latency": float(number)})
        for number, record in enumerate(run.records())
    ]
    heat = choices_figure(spread, run.settings.objectives, run.settings.space).data[0]
    assert (list(heat.x), list(heat.y)) == (["kernel 1", "kernel 3", "not there"], ["l0", "l1", "l2"])
    lacking = sum(len(layer_rows(record.architecture, 10)) < 4 for record in spread)  # three layers and the classifier
    assert heat.z[2][2] == pytest.approx(100 * lacking / len(spread), abs=0.1)
    assert heat.z[0][2] is None  # every network has the first one


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_its_trials_are_taken_over(finished: Path, space_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    flags = [*BRIEF, *MEASURED, "--confirm", "0", "--out", out]
    assert nas("search", space_file, "--trials", 1, "--warm-start", finished, *flags) == 0
    records = open_run(out).records()
    assert sum(record.imported_from is not None for record in records) == 6
    assert sum(record.counts for record in records) == 1


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_what_a_family_cannot_do_is_said(
    finished: Path, space_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert nas("space", "show", space_file, "--no-measure") == 0
    assert "kernel2" in capsys.readouterr().out
    assert nas("export", finished, "--to", tmp_path / "model", "--no-measure") == 2
    assert "networks of the family toy cannot be exported" in " ".join(capsys.readouterr().err.split())
    assert nas("supernet", "train", space_file, "--out", tmp_path / "net") == 2
    assert "a supernet is of mobile networks" in " ".join(capsys.readouterr().err.split())


# ---------------------------------------------------------------- by module and name, and wrong ones


@pytest.mark.usefixtures("brief_measurements")
def test_a_family_of_a_file_of_the_users_is_named_by_its_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(TOY.read_text().replace('NAME = "toy"', 'NAME = "mine:FAMILY"'))
    monkeypatch.chdir(tmp_path)
    Path("space.yaml").write_text(yaml.safe_dump(SPACE | {"family": "mine:FAMILY"}))
    assert nas("evaluate", "toy-w4-k3", "--space", "space.yaml", "--epochs", 1, "--device", "cpu", "--json") == 0
    assert json.loads(capsys.readouterr().out)["architecture"] == "toy-w4-k3"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "toi"}, r"space\.yaml:\d+: family: unknown family of networks 'toi'"),
        ({"family": 3}, r"space\.yaml:\d+: family: 3 is not allowed"),
        ({"family": "toy", "width": 8}, r"space\.yaml: a toy space has name"),
    ],
)
@pytest.mark.usefixtures("_installed")
def test_a_space_of_no_family_is_refused_with_its_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(SPACE | changes))
    with pytest.raises(InputError, match=message):
        load_space(path)
