"""Starting from what is known: networks to try first, and the trials of earlier runs."""

from __future__ import annotations

import json
import os
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import call as nas
from conftest import BRIEF, RunFactory, new_run
from mobile import mobile_space
from optuna.trial import TrialState

from nas.common.errors import InputError
from nas.common.files import weights_content
from nas.export.folder import ExportOptions, export_candidate
from nas.latency.protocol import LatencyProtocol, default_protocol
from nas.latency.result import Latency
from nas.models.networks import build
from nas.runs.front import hypervolume_history, pareto_front, reference_point
from nas.runs.record import Evaluation, Outcome, TrialRecord
from nas.runs.settings import Budgets, EvaluationSettings, LatencyTarget, SearchSettings
from nas.runs.store import RunDirectory, open_run
from nas.search.broker import Broker
from nas.search.candidate import Candidate
from nas.search.study import RunStudy
from nas.spaces.families import architecture_cost
from nas.spaces.known import known_architectures
from nas.spaces.mobile.space import SearchSpace
from nas.training.history import EpochMetrics
from nas.training.recipe import Recipe
from nas.views.report import write_report
from nas.views.terminal.front import front_csv, front_json, outcome_counts
from nas.workflows.plan import plan_search
from nas.workflows.warm_start import Conditions, WarmStart, earlier_precision, warm_start, with_earlier_estimators

CLASSES = tuple("0123456789")
HERE = Conditions("test", "test", "0" * 16, CLASSES, {"cpu": "test"})  # those of `make_run`


def space(kernels: list[int], name: str = "some", depth: tuple[int, ...] = (1, 2)) -> SearchSpace:
    stage = {"depth": depth, "out_channels": [8, 16], "kernel_size": kernels, "expansion": [1, 2]}
    described = {"name": name, "data": "digits", "input": {"channels": 1, "size": 8}, "stem": {"out_channels": 8}}
    return SearchSpace.model_validate({**described, "stages": [stage]})


SOME = space([1, 3])
OTHER = space([3, 5], "other")  # half of the layers are in both


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda file: None)


def settings(of: SearchSpace = SOME, **changes: Any) -> SearchSettings:
    return replace(SearchSettings(space=of, data="digits", sampler="random", trials=10), **changes)


def answer(candidate: Candidate) -> Evaluation:
    """What a worker would send back: larger networks are more accurate and slower."""
    cost = architecture_cost(candidate.architecture.canonical, 10)
    limit = candidate.settings.budgets.max_macs
    if limit is not None and cost.macs > limit:
        return Evaluation(Outcome.REJECTED, "over", cost, violation=cost.macs / limit - 1)
    ms = cost.macs / 1e6
    latency = Latency(ms, ms, ms, 0.0, 30, 1, False, False, 0.0, True, "test", (1, 1, 8, 8), LatencyProtocol())
    score = 1 - 1 / (1 + cost.params)
    return Evaluation(
        Outcome.DONE, None, cost, latency, (EpochMetrics(1, 1.0, 1.0, score, {"accuracy": score}, 1.0, 1.0),), 0.0, 1.0
    )


def finish_all(broker: Broker) -> list[str]:
    """Digests of what was asked for."""
    asked = []
    while not broker.finished:
        candidate = broker.ask()
        if candidate is not None:
            asked.append(candidate.digest)
            broker.finish(candidate, answer(candidate))
    return asked


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A finished run in the space SOME, weights of its front kept."""
    run = new_run(tmp_path_factory.mktemp("finished") / "earlier", settings())
    finish_all(Broker(run))
    for record in pareto_front(run.records(), run.settings.objectives):
        run.save_weights(record.digest, weights_content(build(record.architecture, 10).state_dict()))
    return run


@pytest.fixture
def earlier(finished: RunDirectory, tmp_path: Path) -> RunDirectory:
    """A copy of that run for one test."""
    return open_run(shutil.copytree(finished.path, tmp_path / "earlier"))


def begin(make_run: RunFactory, given: SearchSettings, warm: WarmStart, name: str = "new") -> RunDirectory:
    """A new run that takes over what a plan would."""
    model = make_run(given, f"model of {name}")
    return RunDirectory.create(
        model.path.with_name(name), given, model.provenance, records=warm.records, weights=warm.weights
    )


def from_earlier(run: RunDirectory, **changes: Any) -> SearchSettings:
    return settings(**{"seed": 7, "warm_start": (str(run.path),), **changes})


# ---------------------------------------------------------------- known good points


def test_known_points_are_tried_before_the_reference_networks_also_after_a_restart(make_run: RunFactory) -> None:
    known = ["r8-c8k3-k3e2s8-k1e1s8-h0", "r8-c8k3-k3e1s16-h0"]
    digests = [SOME.parse(text).digest for text in known]
    run = make_run(settings(enqueue=(*known, str(SOME.largest))))
    first = Broker(run).ask()
    assert first is not None
    resumed = Broker(open_run(run.path))  # the first one ran when the search died
    asked = [candidate.digest for _ in range(4) if (candidate := resumed.ask()) is not None]
    assert asked == [digests[1], SOME.largest.digest, SOME.smallest.digest, digests[0]]
    assert len(resumed.study.trials) == 5  # nothing is queued twice


def test_what_is_not_answered_is_queued_again_when_the_study_is_lost(make_run: RunFactory) -> None:
    known = ["r8-c8k3-k3e2s8-k1e1s8-h0", "r8-c8k3-k3e1s16-h0", "r8-c8k3-k1e2s16-h0"]
    run = make_run(settings(enqueue=tuple(known)))
    broker = Broker(run)
    first = broker.ask()
    assert first is not None
    broker.finish(first, answer(first))
    run.study_path.unlink()
    asked = finish_all(Broker(open_run(run.path)))
    assert asked[:2] == [SOME.parse(text).digest for text in known[1:]]
    assert first.digest not in asked


@pytest.mark.subprocess
def test_known_points_are_read_from_every_kind_of_file(earlier: RunDirectory, tmp_path: Path) -> None:
    records = earlier.records()
    front = pareto_front(records, earlier.settings.objectives)
    expected = [record.digest for record in front]
    lines = ["# what was good", "", *(f"{record.text}  # {record.digest}" for record in front), "largest"]
    texts = {"a.txt": "\n".join(lines), "b.csv": front_csv(earlier, records), "c.json": front_json(earlier, records)}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        read = [architecture.digest for architecture in known_architectures(SOME, str(tmp_path / name))]
        assert read[: len(expected)] == expected
    folder = export_candidate(earlier, front[0], tmp_path / "model", ExportOptions(measure=False))
    for given in (folder, folder / "model.json", "smallest", front[0].text):
        assert known_architectures(SOME, str(given))[0].digest in expected


@pytest.mark.parametrize(
    ("content", "flags", "said"),
    [
        (None, ["--enqueue", "r8-c16"], "--enqueue r8-c16: architecture 'r8-c16' is not of the form"),
        (None, ["--enqueue", "front.csv"], "front.csv: architecture 'front.csv' is not of the form"),
        (None, ["--enqueue", "r8-c16k3-k3e3s16-h64"], "r8-c16k3-k3e3s16-h64 is not in the space digits"),
        ("largest\n\nr8-c16\n", ["--enqueue", "FILE"], "FILE: line 3: architecture 'r8-c16' is not of the form"),
        ("# none\n", ["--enqueue", "FILE"], "--enqueue FILE: names no architecture"),
        ("digest,architecture\n1,largest\n2,r8-c16\n", ["--enqueue", "FILE"], "FILE: line 3: architecture 'r8-c16'"),
        (
            '{"front": [{"architecture": "r9"}]}',
            ["--enqueue", "FILE"],
            "FILE: member 1 of the front: architecture 'r9'",
        ),
        ('{"front": [', ["--enqueue", "FILE"], "--enqueue FILE: not valid JSON"),
        ('{"classes": []}', ["--enqueue", "FILE"], "--enqueue FILE: architecture: there is no architecture"),
        (b"\xff\xfe\x00", ["--enqueue", "FILE"], "--enqueue FILE: cannot be read: not a UTF-8 text file"),
        (None, ["--enqueue", "RUN"], "RUN: not a folder that nas export made"),
        (None, ["--warm-start", "nowhere"], "--warm-start nowhere: "),
        (None, ["--warm-start", "RUN"], "--warm-start RUN: none of its 10 networks is in the space digits"),
        (None, ["--warm-start", "RUN", "--resume", "RUN"], "--warm-start cannot change in a search that is resumed"),
        (None, ["--enqueue", "largest", "--resume", "RUN"], "--enqueue cannot change in a search that is resumed"),
    ],
)
def test_wrong_flags_are_one_sentence_before_anything_is_written(
    capsys: pytest.CaptureFixture[str], earlier: RunDirectory, tmp_path: Path, content: str | bytes | None,
    flags: list[str], said: str,
) -> None:  # fmt: skip
    file = tmp_path / "known"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    names = {"FILE": str(file), "RUN": str(earlier.path)}
    new = [] if "--resume" in flags else ["--out", str(tmp_path / "new")]
    code, _, err = nas(capsys, "search", *new, *(names.get(flag, flag) for flag in flags))
    assert code == 2
    for name, path in names.items():
        said = said.replace(name, path)
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "new").exists()


# ---------------------------------------------------------------- trials imported


def test_trials_of_an_overlapping_space_are_known_and_not_counted(make_run: RunFactory, earlier: RunDirectory) -> None:
    given = from_earlier(earlier, space=OTHER, trials=5)
    warm = warm_start(given, HERE)
    within = [r for r in earlier.records() if r.outcome is Outcome.DONE and "k1" not in r.text]
    assert [record.digest for record in warm.records] == [record.digest for record in within]
    assert f"{len(within)} of 10 trials imported" in warm.notes[0]
    run = begin(make_run, given, warm)
    broker = Broker(run)
    assert broker.trained == 0
    trials = broker.study.trials
    for record, before in zip(warm.records, within, strict=True):
        assert record.imported_from == f"earlier, trial {before.number}"
        assert OTHER.architecture(record.parameters).digest == before.digest
        assert trials[record.number].state is TrialState.COMPLETE
        assert trials[record.number].values == list(before.objectives.values())
        assert trials[record.number].params == record.parameters
    asked = finish_all(broker)
    assert len(asked) == 5
    assert not {record.digest for record in within} & set(asked)
    assert broker.stop_reason == "5 candidates trained"
    records = run.records()
    assert records == broker.records
    own = sum(record.imported_from is None for record in records)
    assert f"5 done, {own - 5} repeat, {len(within)} from earlier" in outcome_counts(records).replace(
        "5 done,", "5 done,"
    )
    assert Broker(open_run(run.path)).finished
    page = write_report(run).read_text(encoding="utf-8")
    assert f"<dt>From earlier runs</dt><dd>{len(within)}</dd>" in page
    assert "<dt>Trained</dt><dd>5<small> of 5</small></dd>" in page
    assert f"<dt>Repeat</dt><dd>{own - 5}</dd>" in page
    assert f"imported from earlier, trial {within[0].number}" in page
    assert "imported from" not in write_report(earlier).read_text(encoding="utf-8")


@pytest.mark.parametrize("digest", ["../../escaped", "/tmp/escaped", "..", "a/b", "", "a" * 65, "a\n"])
def test_records_whose_digest_leads_elsewhere_are_none(
    make_run: RunFactory, earlier: RunDirectory, digest: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Such a record overwrote weights beside the run."""
    known = warm_start(from_earlier(earlier), HERE).records
    first, *others = (json.loads(line) for line in (earlier.path / "trials.jsonl").read_text().splitlines())
    lines = [json.dumps(each) for each in ({**first, "digest": digest}, *others)]
    (earlier.path / "trials.jsonl").write_text("\n".join(lines) + "\n")
    outside = earlier.path.parent / "escaped.safetensors"
    outside.write_bytes(b"mine")
    given = from_earlier(earlier)
    run = begin(make_run, given, warm_start(given, HERE))
    assert outside.read_bytes() == b"mine"
    assert [record.digest for record in run.records()] == [
        each.digest for each in known if each.digest != first["digest"]
    ]
    assert "trials.jsonl:1: not a record, left out" in caplog.text
    with pytest.raises(InputError, match="cannot be part of a file's name"):
        run.save_weights(digest, b"")


def test_a_digest_that_is_not_the_networks_own_is_not_imported(make_run: RunFactory, earlier: RunDirectory) -> None:
    known = [record.digest for record in warm_start(from_earlier(earlier), HERE).records]
    first, *others = (json.loads(line) for line in (earlier.path / "trials.jsonl").read_text().splitlines())
    lines = [json.dumps(each) for each in ({**first, "digest": first["digest"][::-1]}, *others)]
    (earlier.path / "trials.jsonl").write_text("\n".join(lines) + "\n")
    warm = warm_start(from_earlier(earlier), HERE)
    assert first["digest"] in known
    assert [record.digest for record in warm.records] == [digest for digest in known if digest != first["digest"]]
    assert f"{len(known) - 1} of" in warm.notes[0]


def test_a_repeat_of_a_trial_taken_over_is_answered_and_shown(make_run: RunFactory, earlier: RunDirectory) -> None:
    shallow = space([1, 3], "shallow", depth=(1,))
    given = from_earlier(earlier, space=shallow, trials=100)
    warm = warm_start(given, HERE)
    taken = len(warm.records)
    assert 0 < taken < shallow.size
    run = begin(make_run, given, warm)
    broker = Broker(run)
    assert len(finish_all(broker)) == shallow.size - taken
    assert broker.stop_reason == "the space has nothing new"
    repeats = [r for r in run.records() if r.outcome is Outcome.REPEAT and (r.repeat_of or 0) < taken]
    assert repeats
    assert repeats[0].evaluation.reason == f"the same network as trial {repeats[0].repeat_of} (done)"
    count = sum(record.outcome is Outcome.REPEAT for record in run.records())
    page = write_report(run).read_text(encoding="utf-8")
    assert f"<dt>Repeat</dt><dd>{count}</dd>" in page
    assert str(repeats[0].evaluation.reason) in page


def test_the_hypervolume_is_measured_from_where_the_earlier_run_did(
    make_run: RunFactory, earlier: RunDirectory
) -> None:
    given = from_earlier(earlier, trials=3)
    run = begin(make_run, given, warm_start(given, HERE))
    finish_all(Broker(run))
    objectives = given.objectives
    assert reference_point(run.records(), objectives) == reference_point(earlier.records(), objectives)
    history = hypervolume_history(run.records(), objectives)
    assert history[0] == (0, hypervolume_history(earlier.records(), objectives)[-1][1])
    assert all(count <= 3 for count, _ in history)


def test_a_start_that_is_killed_is_completed_without_doubles(
    make_run: RunFactory, earlier: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = SOME.unseen({record.digest for record in earlier.records()}, random.Random(0))
    assert new is not None
    given = from_earlier(earlier, enqueue=(str(SOME.architecture(new)),), trials=3)
    warm = warm_start(given, HERE)
    whole = begin(make_run, given, warm, "whole")
    copy = whole.path.with_name("killed")
    shutil.copytree(whole.path, copy)
    put_back, calls = RunStudy.put_back, []

    def die_at_the_fourth(self: RunStudy, *arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        put_back(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(RunStudy, "put_back", die_at_the_fourth)
        with pytest.raises(KeyboardInterrupt):
            Broker(open_run(copy))
    enqueue = RunStudy.enqueue

    def die_when_it_is_queued(self: RunStudy, *arguments: Any, **options: Any) -> None:
        enqueue(self, *arguments, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunStudy, "enqueue", die_when_it_is_queued)
        with pytest.raises(KeyboardInterrupt):
            Broker(open_run(copy))
    assert finish_all(Broker(open_run(copy))) == finish_all(Broker(whole))
    ours, theirs = open_run(copy).records(), whole.records()
    assert [(r.number, r.digest, r.outcome) for r in ours] == [(r.number, r.digest, r.outcome) for r in theirs]


@pytest.mark.parametrize("sampler", ["front", "tpe", pytest.param("gp", marks=pytest.mark.slow)])
def test_samplers_learn_from_trials_taken_over(make_run: RunFactory, earlier: RunDirectory, sampler: str) -> None:
    given = from_earlier(earlier, trials=2, sampler=sampler, enqueue=())
    asked = {}
    for name, warm in (("warm", warm_start(given, HERE)), ("cold", WarmStart())):
        run = begin(make_run, given, warm, name)
        broker = Broker(run)
        asked[name] = finish_all(broker)
        assert broker.trained == 2
    assert asked["warm"] != asked["cold"]
    assert SOME.smallest.digest not in asked["warm"]  # a reference network that is known is not trained again


# ---------------------------------------------------------------- other conditions


def evaluation(**changes: Any) -> EvaluationSettings:
    return replace(EvaluationSettings(), **changes)


@pytest.mark.parametrize(
    ("changes", "conditions", "why"),
    [
        ({}, replace(HERE, hardware="a GPU"), "device test, here a GPU"),
        ({}, replace(HERE, data_fingerprint="1" * 16), "other data: digits, split seed 0"),
        ({}, replace(HERE, classes=CLASSES[::-1]), "other data"),
        ({"evaluation": evaluation(recipe=Recipe(epochs=3))}, HERE, "recipe: epochs 10, here 3"),
        ({"evaluation": evaluation(metric="macro_f1")}, HERE, "metric accuracy, here macro_f1"),
        ({"evaluation": evaluation(init="mobilenet_v2")}, HERE, "initial weights scratch, here mobilenet_v2"),
        ({"evaluation": evaluation(protocol=LatencyProtocol(batch_size=8))}, HERE, "latency: batch_size 1, here 8"),
        ({"objectives": ("accuracy", "memory")}, HERE, "no memory in its records"),
    ],
)
def test_under_other_conditions_the_front_is_trained_anew_and_it_says_why(
    make_run: RunFactory, earlier: RunDirectory, changes: dict[str, Any], conditions: Conditions, why: str
) -> None:
    warm = warm_start(from_earlier(earlier, **changes), conditions)
    front = pareto_front(earlier.records(), earlier.settings.objectives)
    assert warm.records == ()
    assert warm.enqueue == tuple(record.text for record in front)
    assert why in warm.notes[0]
    assert f"{len(front)} networks of its front will be trained again, first" in warm.notes[0]
    broker = Broker(make_run(replace(from_earlier(earlier, **changes), enqueue=warm.enqueue, trials=20)))
    asked = [candidate.digest for _ in front if (candidate := broker.ask()) is not None]
    assert asked == [record.digest for record in front]


def test_where_latency_decides_nothing_another_device_does_not_matter(earlier: RunDirectory) -> None:
    given = from_earlier(earlier, objectives=("accuracy", "macs"))
    warm = warm_start(given, replace(HERE, hardware="a GPU"))
    assert len(warm.records) == 10
    assert all(record.evaluation.latency is None for record in warm.records)  # theirs says nothing here
    assert all(set(record.objectives) == {"accuracy", "macs"} for record in warm.records)
    budget = evaluation(budgets=Budgets(max_latency_ms=1.0))
    assert not warm_start(replace(given, evaluation=budget), replace(HERE, hardware="a GPU")).records


def told_conditions(run: RunDirectory, of: list[dict[str, str] | None]) -> None:
    """Have the run's records say that each was measured under these conditions, in turn."""
    lines = [json.loads(line) for line in (run.path / "trials.jsonl").read_text().splitlines()]
    for number, line in enumerate(lines):
        line["evaluation"]["latency"]["conditions"] = of[number % len(of)]
    (run.path / "trials.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_latencies_of_other_conditions_are_not_taken_over(earlier: RunDirectory) -> None:
    told_conditions(earlier, [{}])
    assert len(warm_start(from_earlier(earlier), replace(HERE, measured_under={"latency": {}})).records) == 10
    here = replace(HERE, measured_under={"latency": {"governor": "powersave"}})
    warm = warm_start(from_earlier(earlier), here)
    assert warm.records == ()
    assert len(warm.enqueue) == len(pareto_front(earlier.records(), earlier.settings.objectives))
    assert "10 networks measured under other conditions, latency: governor powersave, before not set" in warm.notes[0]
    by_cost = warm_start(from_earlier(earlier, objectives=("accuracy", "macs")), here)
    assert [record.evaluation.latency for record in by_cost.records] == [None] * 10
    assert (
        "latencies of 10 left out, of other conditions (latency: governor powersave, before not set)"
        in by_cost.notes[0]
    )
    told_conditions(earlier, [{"governor": "powersave"}, {}])  # of a version that did not pin them
    assert warm_start(from_earlier(earlier), here).records == ()
    assert "4 networks measured under other conditions, latency" in warm_start(from_earlier(earlier), here).notes[0]


def test_of_latencies_of_before_conditions_were_kept_it_is_said(earlier: RunDirectory) -> None:
    warm = warm_start(from_earlier(earlier), replace(HERE, measured_under={"latency": {"governor": "powersave"}}))
    assert len(warm.records) == 10
    assert "under what conditions its latency was measured is not known" in warm.notes[0]


def test_trials_taken_over_are_judged_by_the_budgets_of_the_new_run(
    make_run: RunFactory, earlier: RunDirectory
) -> None:
    limit = sorted(record.evaluation.cost.macs for record in earlier.records() if record.evaluation.cost)[6]
    given = from_earlier(earlier, evaluation=evaluation(budgets=Budgets(max_macs=limit)))
    run = begin(make_run, given, warm_start(given, HERE))
    broker = Broker(run)
    over = [record for record in run.records() if record.outcome is Outcome.REJECTED]
    assert over
    for record in over:
        assert "the budget of" in (record.evaluation.reason or "")
        assert broker.study.trials[record.number].constraints["budget"] > 0
    front = pareto_front(run.records(), given.objectives)
    assert all(record.evaluation.cost and record.evaluation.cost.macs <= limit for record in front)
    finish_all(broker)
    looser = from_earlier(run, evaluation=evaluation(budgets=Budgets(max_macs=2 * limit)))
    again = warm_start(looser, HERE).records
    assert {record.digest for record in again} >= {r.digest for r in run.records() if r.outcome is Outcome.DONE}
    costs = [
        record.evaluation.cost.macs for record in again if record.outcome is Outcome.REJECTED and record.evaluation.cost
    ]
    assert all(macs > 2 * limit for macs in costs)  # what was rejected there and is not here is asked for again
    assert {record.imported_from for record in again if record.digest == front[0].digest} == {front[0].imported_from}


def test_a_precision_that_an_earlier_run_settled_is_kept(make_run: RunFactory) -> None:
    from nas.latency.device import device_name

    run = make_run(settings(evaluation=evaluation(recipe=Recipe(precision="bfloat16"))))
    here = RunDirectory(run.path, replace(run.content, provenance=replace(run.provenance, hardware=device_name("cpu"))))
    here.with_settings(run.settings)
    given = from_earlier(run, evaluation=evaluation(recipe=Recipe(precision="auto")))
    assert earlier_precision(Recipe(precision="auto"), given, device_name("cpu")).precision == "bfloat16"
    assert earlier_precision(Recipe(precision="auto", epochs=3), given, device_name("cpu")).precision == "auto"
    assert earlier_precision(Recipe(precision="float32"), given, device_name("cpu")).precision == "float32"


@pytest.mark.subprocess
def test_weights_of_the_front_come_along_and_are_exported(
    make_run: RunFactory, earlier: RunDirectory, tmp_path: Path
) -> None:
    given = from_earlier(earlier, trials=1)
    run = begin(make_run, given, warm_start(given, HERE))
    finish_all(Broker(run))
    front = [record for record in pareto_front(run.records(), given.objectives) if record.imported_from]
    assert front
    assert export_candidate(run, front[0], tmp_path / "model", ExportOptions(measure=False)).is_dir()
    run.weights_path(front[0].digest).unlink()
    with pytest.raises(InputError, match=r"was imported from earlier, trial .* had not kept its weights"):
        export_candidate(run, front[0], tmp_path / "again", ExportOptions(measure=False))


# ---------------------------------------------------------------- the whole


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_a_search_goes_on_from_another_and_from_known_points(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    code, _, err = nas(capsys, "search", "digits", "--trials", "3", *BRIEF, "--out", first)
    assert code == 0, err
    before = open_run(first).records()
    known = str(mobile_space("digits").middle.canonical)
    flags = ["--warm-start", first, "--enqueue", "middle", "--seed", "1"]
    code, out, err = nas(capsys, "search", "digits", "--trials", "2", *BRIEF, *flags, "--out", second)
    assert code == 0, err
    assert f"Warm start from {first}: 3 of 3 trials imported" in out
    assert "2 done, " in out
    assert "3 from earlier runs" in out
    run = open_run(second)
    assert run.settings.enqueue == (known,)
    assert run.settings.warm_start == (first,)
    records = run.records()
    assert [(r.digest, r.objectives) for r in records[:3]] == [(r.digest, r.objectives) for r in before]
    own = [record for record in records if record.counts]
    assert len(own) == 2
    assert own[0].text == known
    assert not {record.digest for record in own} & {record.digest for record in before}
    member = pareto_front(records, run.settings.objectives)[0]  # the smallest network, of the first run
    assert member.imported_from == f"first, trial {before[0].number}"
    assert export_candidate(run, member, tmp_path / "model", ExportOptions(measure=False)).is_dir()
    code, out, _ = nas(capsys, "front", second)
    assert "earlier run" in out
    again = plan_search(run.settings, tmp_path / "third")  # run.yaml says all that is needed to run it again
    assert again.warm is not None
    assert [record.digest for record in again.warm.records] == [record.digest for record in before]


def test_records_without_the_new_field_are_read(earlier: RunDirectory) -> None:
    path = earlier.path / "trials.jsonl"
    path.write_text(path.read_text().replace(',"imported_from":null', ""))
    records: list[TrialRecord] = earlier.records()
    assert len(records) >= 10
    assert {record.imported_from for record in records} == {None}


def test_latencies_are_valued_as_the_earlier_run_did_where_all_else_is_the_same(make_run: RunFactory) -> None:
    def measured_by(own: LatencyProtocol, edge: LatencyProtocol) -> EvaluationSettings:
        return EvaluationSettings(protocol=own, targets=(LatencyTarget("edge", edge, max_ms=5.0),))

    new, older = default_protocol("cpu"), LatencyProtocol()
    assert new.estimator != older.estimator
    eight = replace(older, batch_size=8)
    run = make_run(settings(evaluation=measured_by(older, eight)), "older")
    now = from_earlier(run, evaluation=measured_by(new, replace(new, batch_size=8)))
    assert with_earlier_estimators(now).evaluation == measured_by(older, eight)
    otherwise = from_earlier(run, evaluation=measured_by(replace(new, threads=2), new))
    assert with_earlier_estimators(otherwise) == otherwise
    assert with_earlier_estimators(settings(evaluation=now.evaluation)).evaluation == now.evaluation
