"""The door of samplers: ours propose as ever, and one that is not ours is used by name, from a file and from a package."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from answers import search
from conftest import BRIEF, RunFactory, install_package
from toy_sampler import TOY

from nas.cli.app import main
from nas.common.errors import InputError
from nas.runs.record import Outcome
from nas.runs.settings import Budgets, EvaluationSettings, SearchSettings
from nas.runs.store import open_run
from nas.search.samplers import SAMPLERS, make_sampler, sampler_kind
from nas.search.samplers.known import KnownCosts
from nas.spaces.families import architecture_cost
from nas.spaces.files import load_space
from nas.views.report.progress import phases

DIGITS = load_space("digits")
OWN_FILE = "toy_sampler:TOY"

RANDOM = [
    "r8-c4k3/2-k3e1s16/2-h0",
    "r8-c8k3-k3e2s16-k3e2s16-k3e4s32/2-k3e4s32-h32",
    "r8-c8k3-k5e4f16-k5e4f16-k5e4f32/2-k5e4f32-k5e4f32-h32",
    "r8-c4k3-k5e2s16/2-h0",
    "r8-c8k3-k3e4f16-k3e2s16-k5e1f16/2-h32",
    "r8-c8k3/2-k5e1s16/2-h32",
    "r8-c4k3-k5e2f16/2-h32",
    "r8-c8k3/2-k3d2e4f16/2-k3e4f16-k3e2s16-h32",
    "r8-c8k3-k5d2e2f16-k5e4f16-k3e1s16/2-k3d2e2f16-h0",
    "r8-c4k3-k5d2e4s8-k5d2e4f8-k3d2e1f16/2-k3d2e2f16-k3d2e2s16-h0",
    "r8-c4k3/2-k3d2e4f8-k3d2e4f32/2-h32",
    "r8-c8k3/2-k3d2e2s16-k5e2f16-k3e2f16/2-k1e1s16-k3e1s16-h32",
]
"""The first networks of `nas search digits --sampler random --trials 12 --confirm 0 --epochs 1 --max-concurrent 1
--objectives accuracy,macs` by commit 1b20abf, the three reference networks first."""


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy's file lies in the working directory."""
    monkeypatch.chdir(Path(__file__).parent)


def settings(sampler: str, trials: int = 12, budgets: Budgets | None = None) -> SearchSettings:
    evaluation = EvaluationSettings(budgets=budgets or Budgets())
    return SearchSettings(
        DIGITS, "digits", objectives=("accuracy", "macs"), trials=trials, sampler=sampler, evaluation=evaluation
    )


def test_random_proposes_what_it_always_did(make_run: RunFactory) -> None:
    run = make_run(settings("random"))
    search(run, 12)
    assert [record.text for record in run.records()] == RANDOM


@pytest.mark.parametrize("name", SAMPLERS.own)
def test_ours_are_called_what_they_are_had_by(name: str) -> None:
    assert sampler_kind(name).name == name


@pytest.mark.usefixtures("here")
def test_a_sampler_of_a_users_file_proposes_and_goes_on_within_limits(make_run: RunFactory) -> None:
    whole = make_run(settings(OWN_FILE))
    search(whole, 12)
    asked = [record.text for record in whole.records()]
    assert asked[:3] == RANDOM[:3]
    assert not set(asked[3:]) & set(RANDOM)
    halves = make_run(settings(OWN_FILE), "halves")
    search(halves, 6)
    search(open_run(halves.path), 6)
    assert [record.text for record in halves.records()] == asked
    limited = make_run(settings(OWN_FILE, 8, Budgets(max_params=3000)), "limited")
    search(limited, 8)
    done = [record for record in limited.records() if record.outcome is Outcome.DONE]
    assert len(done) == 8
    assert all(architecture_cost(record.architecture, 10).params <= 3000 for record in done)


@pytest.mark.usefixtures("here")
def test_what_is_no_sampler_is_refused_by_name() -> None:
    known = KnownCosts(DIGITS, 10, ("accuracy", "macs"))
    with pytest.raises(
        InputError, match=r"sampler 'toy_sampler:Counting': is the class Counting, and .* instance of .*SamplerKind"
    ):
        make_sampler("toy_sampler:Counting", 0, known)
    with pytest.raises(InputError, match=r"unknown sampler 'rando' \(did you mean 'random'\?\)"):
        make_sampler("rando", 0, known)


def test_a_chart_names_a_sampler_that_is_not_here(make_run: RunFactory) -> None:
    run = make_run(settings("random"))
    search(run, 12)
    gone = replace(run.settings, sampler="gone")
    assert [(phase.name, phase.end) for phase in phases(run.records(), gone)] == [
        ("first networks", 3),
        ("by gone", 12),
    ]


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_a_sampler_of_an_installed_package_searches_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    brings = "[nas.samplers]\ntoy = toy_sampler:TOY\nbroken = toy_sampler:NONE\n"
    toy = Path(__file__).with_name("toy_sampler.py")
    site = install_package(tmp_path / "site", "toys", brings, {"toy_sampler": toy})
    monkeypatch.syspath_prepend(str(site))

    with pytest.raises(SystemExit) as ended:
        main(["search", "--help"])
    assert ended.value.code == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"toy ({TOY.description})" in said
    assert "sampler 'broken' of the package toys could not be loaded" in said

    out = tmp_path / "run"
    with pytest.raises(SystemExit) as ended:
        main(["search", "digits", "--sampler", "toy", "--trials", "9", "--confirm", "0", *BRIEF, "--out", str(out)])
    assert ended.value.code == 0
    run = open_run(out)
    assert run.settings.sampler == "toy"
    assert len(run.records()) >= 9
    report = run.report_path.read_text(encoding="utf-8")
    assert "by counting (" in report
    assert ">toy<" in report
