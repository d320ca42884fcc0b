"""Under what conditions a latency was measured: told apart in the cache, kept in the record, and the same for all of a run."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import RunFactory
from mobile import mobile_space

import nas.latency.conditions
import nas.workflows.search
from nas.common.errors import InputError
from nas.latency.conditions import conditions, difference
from nas.latency.protocol import LatencyProtocol
from nas.latency.result import Latency
from nas.runs.record import Evaluation, Outcome, TrialRecord
from nas.runs.settings import LatencyTarget
from nas.runs.store import RunDirectory, open_run
from nas.search.broker import Broker
from nas.search.candidate import Candidate
from nas.search.latency import candidate_latency
from nas.spaces.base import Cost
from nas.training.history import EpochMetrics
from nas.workflows.search import resume_search

QUICK = LatencyProtocol(warmup_s=0.01, max_s=0.05, min_blocks=5)


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /sys of the test's own, without anything in it."""
    monkeypatch.setattr(nas.latency.conditions, "_SYSTEM", tmp_path / "sys")
    for name in list(os.environ):
        if name.startswith(nas.latency.conditions._PREFIXES):
            monkeypatch.delenv(name)
    return tmp_path / "sys"


def put(file: Path, content: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)


def test_what_is_set_and_what_the_system_tells_is_listed_and_nothing_else(
    system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert conditions(QUICK) == {}
    monkeypatch.setenv("OMP_NUM_THREADS", "7")  # the protocol says how many
    monkeypatch.setenv("KMP_INIT_AT_FORK", "FALSE")  # scikit-learn sets it
    monkeypatch.setenv("UNRELATED", "x")
    assert conditions(QUICK) == {}
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    monkeypatch.setenv("LD_PRELOAD", "/opt/here/libjemalloc.so:/opt/here/libiomp5.so")
    for core in os.sched_getaffinity(0):
        folder = system / f"devices/system/cpu/cpu{core}/cpufreq"
        put(folder / "scaling_governor", "powersave\n")
        put(folder / "cpuinfo_max_freq", "4900000\n" if core else "3600000\n")
    put(system / "devices/system/cpu/intel_pstate/no_turbo", "1\n")
    found = conditions(QUICK)
    assert found["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    assert found["LD_PRELOAD"] == "libjemalloc.so libiomp5.so"
    assert found["governor"] == "powersave"
    assert set(found["core clock"].split(", ")) <= {"3600000", "4900000"}
    assert found["boost"] == "0"
    assert list(found) == sorted(found)


def test_a_quota_of_any_group_above_counts(system: Path) -> None:
    own = next(line.split(":", 2)[2] for line in Path("/proc/self/cgroup").read_text().splitlines())
    place = system / "fs/cgroup" / own.lstrip("/")
    version_1 = not Path("/proc/self/cgroup").read_text().startswith("0::")
    if version_1:
        pytest.skip("control groups of version 1 here")
    put(place / "cpu.max", "max 100000\n")
    assert "quota" not in conditions(QUICK)
    put(system / "fs/cgroup/cpu.max", "150000 100000\n")
    assert conditions(QUICK)["quota"] == "1.5 cores"


def test_differences_are_said_in_words() -> None:
    before, now = {"governor": "powersave", "quota": "2 cores"}, {"governor": "performance", "LD_PRELOAD": "x.so"}
    assert difference(before, before) == ""
    assert difference(before, now) == (
        "LD_PRELOAD x.so, before not set; governor performance, before powersave; quota not set, before 2 cores"
    )


def test_an_instruction_set_that_is_held_back_is_another_latency(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3.12 ms were looked up for 0.69."""
    monkeypatch.setenv("NAS_LATENCY_CACHE", str(tmp_path))
    monkeypatch.setattr(nas.latency.cache, "_worth_keeping", lambda latency: True)
    smallest = mobile_space("digits").smallest
    assert not candidate_latency(smallest, 10, QUICK).cached
    with monkeypatch.context() as patch:
        patch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
        slower = candidate_latency(smallest, 10, QUICK)
        assert not slower.cached
        assert slower.conditions is not None
        assert slower.conditions["ONEDNN_MAX_CPU_ISA"] == "SSE41"


def measured(broker: Broker, **changes: object) -> tuple[Candidate, Evaluation]:
    """The next candidate, and an evaluation of it."""
    candidate = broker.ask()
    assert candidate is not None
    latency = Latency(1.0, 1.0, 1.0, 0.0, 30, 1, False, False, 0.0, True, "a CPU", (1, 1, 8, 8), QUICK, conditions={})
    epoch = EpochMetrics(1, 1.0, 1.0, 0.5, {"accuracy": 0.5}, 1.0, 0.1)
    latency = replace(latency, **changes)  # type: ignore[arg-type]
    return candidate, Evaluation(Outcome.DONE, None, Cost(1000, 100), latency, (epoch,))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"device_name": "another CPU"}, "latency was measured on another CPU, before on a CPU"),
        (
            {"conditions": {"governor": "performance"}},
            "latency was measured under other conditions: governor performance, before not set",
        ),
    ],
)
def test_a_search_ends_before_latencies_of_other_conditions_are_among_its_own(
    make_run: RunFactory, changes: dict[str, object], told: str
) -> None:
    run = make_run()
    broker = Broker(run)
    broker.finish(*measured(broker))
    again = Broker(open_run(run.path))  # also where it was resumed meanwhile
    lost = again.finish(*measured(again, **changes))
    assert (lost.outcome, lost.evaluation.reason) == (Outcome.LOST, told)
    assert again.stop_reason == f"latencies of this run could no longer be compared: {told}"
    assert again.resumable
    back = Broker(open_run(run.path))
    done = [back.finish(*measured(back)) for _ in range(4)]
    assert {record.outcome for record in done} == {Outcome.DONE}
    assert lost.digest in {record.digest for record in done}  # it is tried again


def test_records_of_before_conditions_were_kept_pin_none(make_run: RunFactory) -> None:
    run: RunDirectory = make_run()
    broker = Broker(run)
    broker.finish(*measured(broker, conditions=None))
    record: TrialRecord = broker.finish(*measured(broker, conditions={"governor": "performance"}))
    assert record.outcome is Outcome.DONE


def test_latencies_that_decide_nothing_pin_nothing(make_run: RunFactory) -> None:
    by_cost = replace(make_run(name="model").settings, objectives=("accuracy", "macs"))
    broker = Broker(make_run(by_cost))
    broker.finish(*measured(broker))
    assert broker.finish(*measured(broker, device_name="another CPU")).outcome is Outcome.DONE


def resumed_under(run: RunDirectory, monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    """Resume on the same hardware, under these variables; data are looked at after the conditions."""
    monkeypatch.setattr(nas.workflows.search, "_check_same_hardware", lambda *_: None)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    resume_search(run.path)


def test_a_run_is_not_resumed_under_other_conditions(
    system: Path, make_run: RunFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = LatencyTarget("pi", QUICK, max_ms=10.0)
    asked = make_run(name="model").settings
    run = make_run(replace(asked, evaluation=replace(asked.evaluation, targets=(target,))))
    broker = Broker(run)
    candidate, evaluation = measured(broker)
    assert evaluation.latency is not None
    broker.finish(candidate, replace(evaluation, latencies={"pi": evaluation.latency}))
    with pytest.raises(InputError, match=r"other conditions \(latency: ONEDNN_MAX_CPU_ISA AVX2, before not set\)"):
        resumed_under(run, monkeypatch, ONEDNN_MAX_CPU_ISA="AVX2")
    by_target = run.with_settings(replace(run.settings, objectives=("accuracy", "macs")))
    with pytest.raises(InputError, match=r"other conditions \(target pi: ONEDNN_MAX_CPU_ISA AVX2, before not set\)"):
        resumed_under(by_target, monkeypatch)
