"""The report: one file, complete, safe against what a run's files hold, and alive in a real browser."""

from __future__ import annotations

import csv
import os
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from plotly.offline import get_plotlyjs

from nas.cli.app import main
from nas.common.errors import InputError
from nas.latency.protocol import LatencyProtocol
from nas.latency.result import Latency
from nas.runs.front import knee, pareto_front
from nas.runs.record import BaselineRecord, Evaluation, Outcome, TrialRecord
from nas.runs.run_file import Provenance
from nas.runs.settings import Budgets, EvaluationSettings, SearchSettings
from nas.runs.store import RunDirectory, open_run
from nas.spaces.base import Cost
from nas.spaces.files import load_space
from nas.training.history import EpochMetrics
from nas.views.report import scatter, write_report

CHROMIUM = Path("/usr/bin/chromium")
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
SPACE = load_space("digits")
HOSTILE = "</script><script>window.pwned=1</script><img src=x onerror=\"window.pwned=1\"><b>bold</b> %{x} it's & 'q'"
SETTINGS = SearchSettings(SPACE, "digits")
PROVENANCE = Provenance(
    created=1.79e9,
    command="nas search digits --trials 30",
    versions={"python": "3.12.1", "torch": "2.14.1"},
    host="bench",
    hardware="16 cores",
    cpu_cores=16,
    git_commit="f5e6715c0ffee",
    data_fingerprint="7ef01bb22952715e",
    classes=tuple("0123456789"),
    train_images=1149,
    validation_images=400,
    mean=(0.3,),
    std=(0.4,),
)


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand of them, which a search spreads over hours, would take most of the time of these tests."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


def make_record(
    number: int,
    accuracy: float = 0.9,
    latency_ms: float | None = 0.5,
    outcome: Outcome = Outcome.DONE,
    reason: str | None = None,
    macs: int = 400_000,
    epochs: int = 3,
) -> TrialRecord:
    """A record as a search would leave it, of a network drawn from the shipped space."""
    values = SPACE.sample(random.Random(number))
    architecture = SPACE.architecture(values).canonical
    protocol = LatencyProtocol()
    latency = latency_ms and Latency(
        latency_ms, 0.9 * latency_ms, 1.2 * latency_ms, 0.02, 40, 3, False, False, 0.0, True, "Bench CPU", (1, 1, 8, 8), protocol
    )  # fmt: skip
    trained = outcome in (Outcome.DONE, Outcome.STOPPED)
    scores = [accuracy * (epoch + 1) / epochs for epoch in range(epochs)] if trained else []
    history = tuple(
        EpochMetrics(e, 1.0, 1.0, score, {"accuracy": score}, 3000.0, 0.3) for e, score in enumerate(scores, 1)
    )
    evaluation = Evaluation(outcome, reason, Cost(macs, macs // 10), latency or None, history, seconds=4.0)
    objectives = {"accuracy": accuracy, "macs": float(macs), "params": macs / 10}
    objectives |= {"latency": latency_ms} if latency_ms else {}
    return TrialRecord(
        number, architecture.digest, str(architecture), architecture, values, evaluation, objectives,
        started=1.79e9 + 5 * number, finished=1.79e9 + 5 * number + 5,
    )  # fmt: skip


def make_baseline(name: str, accuracy: float | None, latency_ms: float, reason: str | None = None) -> BaselineRecord:
    """A reference network as `nas baseline` would leave it; measured and not trained without an accuracy."""
    evaluation = make_record(0, accuracy or 0.0, latency_ms).evaluation
    values = {"latency": latency_ms}
    if accuracy is None or reason:
        evaluation = replace(evaluation, history=(), outcome=Outcome.FAILED if reason else Outcome.DONE, reason=reason)
    else:
        values["accuracy"] = accuracy
    return BaselineRecord(name, evaluation, {} if reason else values, "scratch", started=1.79e9, finished=1.79e9 + 5)


def scattered(count: int) -> list[TrialRecord]:
    """Trained candidates that trade accuracy against latency, with luck."""
    rng = random.Random(0)
    costs = [rng.uniform(0.1, 2.0) for _ in range(count)]
    return [
        make_record(number, min(0.99, 0.7 + 0.13 * cost) - rng.uniform(0.0, 0.05), cost, macs=int(1e6 * cost))
        for number, cost in enumerate(costs)
    ]


def report(
    path: Path,
    records: list[TrialRecord],
    settings: SearchSettings = SETTINGS,
    baselines: Sequence[BaselineRecord] = (),
    **provenance: Any,
) -> Path:
    """The report of a run directory that holds these records."""
    run = RunDirectory.create(path, settings, replace(PROVENANCE, **provenance))
    for record in records:
        run.append(record)
    for baseline in baselines:
        run.append_baseline(baseline)
    return write_report(run)


def page_text(path: Path) -> str:
    """The document without the plotly bundle, which holds addresses that it does not fetch."""
    return path.read_text(encoding="utf-8").replace(get_plotlyjs(), "")


# ---------------------------------------------------------------- the file


@pytest.mark.slow
def test_a_thousand_trials_stay_small_in_one_file(tmp_path: Path) -> None:
    space, rng = load_space("lite0"), random.Random(5)  # the deepest networks, and a figure for each cost
    settings = replace(SETTINGS, space=space, objectives=("accuracy", "latency", "macs", "params"))
    records = []
    for record in scattered(1000):
        values = space.sample(rng)
        network = space.architecture(values).canonical
        of = {"architecture": network, "digest": network.digest, "text": str(network), "parameters": values}
        records.append(replace(record, **of))  # type: ignore[arg-type]
    path = report(tmp_path / "run", records, settings)
    assert path == tmp_path / "run" / "report.html"
    assert path.stat().st_size < 8_000_000
    text = page_text(path)
    for reference in ('src="http', 'href="http', "//cdn", "@import", "url("):
        assert reference not in text
    assert path.read_text(encoding="utf-8").count("plotly.js v") == get_plotlyjs().count("plotly.js v")
    assert all(record.digest in text for record in records)
    for place in ("hypervolume-time", "outcomes", "importance", "choices", "parallel"):
        assert f'id="{place}"' in text
    assert sorted(file.name for file in path.parent.iterdir()) == ["report.html", "run.yaml", "trials.jsonl", "weights"]


def test_a_report_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", SETTINGS, PROVENANCE)
    run.report_path.mkdir()
    with pytest.raises(InputError, match=r"report\.html: cannot be written"):
        write_report(run)
    assert not list(run.path.glob(".report*"))


def test_text_from_files_is_escaped(tmp_path: Path) -> None:
    records = [
        make_record(0, outcome=Outcome.FAILED, reason=HOSTILE),
        replace(make_record(1), text=HOSTILE),
    ]
    text = page_text(report(tmp_path / "run", records, command=HOSTILE, host=HOSTILE, git_commit=HOSTILE))
    assert "<script>window" not in text
    assert "<img" not in text
    assert text.count("&lt;script&gt;window.pwned=1") >= 5


@pytest.mark.parametrize(
    ("records", "objectives", "expected", "missing"),
    [
        ([], ("accuracy", "latency"), ["No candidate is trained yet", "No trial has ended yet"], ["js-plotly", "nas export"]),
        ([make_record(0)], ("accuracy", "latency"), ["One candidate is trained", "fastest", "knee"], ['id="hypervolume"']),
        (scattered(7), ("accuracy", "latency"), ["fixed once 8 candidates"], ['id="hypervolume"', "Reference point:"]),
        (scattered(8), ("accuracy", "latency"), ["its course begins with the next candidate"], ['id="hypervolume"']),
        (scattered(9), ("accuracy", "latency"), ['id="hypervolume"', "Reference point: accuracy"], []),
        (scattered(9), ("accuracy", "params"), ['id="pareto-params"', "fewest parameters"], ['id="pareto-latency"']),
        (scattered(9), ("accuracy", "latency", "macs"), ['id="pareto-latency"', 'id="pareto-macs"'], []),
        (
            [make_record(i, 0.8 + i / 100, None, macs=1000 * (i + 1)) for i in range(9)],
            ("accuracy", "macs"),
            ['id="pareto-macs"', "0 candidates"],
            ["ms ("],
        ),
        ([make_record(0), make_record(1, latency_ms=None)], ("accuracy", "latency"), ["One candidate is trained"], []),
        ([make_record(0, outcome=Outcome.LOST, reason="worker died")], ("accuracy", "latency"), ["worker died"], []),
    ],
    ids=["empty", "one", "seven", "eight", "nine", "params", "three objectives", "no latency", "one without latency", "lost"],
)  # fmt: skip
def test_every_state_of_a_run_has_a_report(
    tmp_path: Path, records: list[TrialRecord], objectives: tuple[str, ...], expected: list[str], missing: list[str]
) -> None:
    kept = [replace(r, objectives={k: v for k, v in r.objectives.items() if k in objectives}) for r in records]
    text = page_text(report(tmp_path / "run", kept, replace(SETTINGS, objectives=objectives)))
    for words in expected:
        assert words in text
    for words in missing:
        assert words not in text


def test_the_page_says_what_happened_and_how_to_go_on(tmp_path: Path) -> None:
    records = [
        *scattered(10),
        make_record(10, 0.0, outcome=Outcome.REJECTED, reason="0.912 ms, over the budget of 0.800 ms"),
        make_record(11, outcome=Outcome.REPEAT, reason="the same network as trial 3"),
        make_record(12, 0.4, outcome=Outcome.STOPPED, epochs=2),
        make_record(13, outcome=Outcome.FAILED, reason="the loss is not a finite number"),
    ]
    noisy = records[3].evaluation.latency
    assert noisy is not None
    records[3] = replace(
        records[3], evaluation=replace(records[3].evaluation, latency=replace(noisy, noisy=True, contended=True))
    )
    text = page_text(report(tmp_path / "a run", records))
    for name, value in [("Rejected", 1), ("Repeat", 1), ("Stopped early", 1), ("Failed", 1), ("Lost", 0)]:
        assert f"<dt>{name}</dt><dd>{value}</dd>" in text
    assert "<dt>Noisy</dt><dd>1</dd>" in text
    assert "<dt>Contended</dt><dd>1</dd>" in text
    assert "<dt>Wall time</dt><dd>1 min 10 s</dd>" in text
    assert "<dt>Device time</dt><dd>56.0 s</dd>" in text
    assert "the loss is not a finite number" in text
    assert "digits on Bench CPU" in text
    assert PROVENANCE.command in text
    for fact in ("Seed</dt><dd>0", "Hardware</dt><dd>16 cores", "Max MACs</dt><dd>none", "Warm-up</dt><dd>0.5 s"):
        assert f"<dt>{fact}" in text
    assert f"nas export &#x27;{tmp_path / 'a run'}&#x27; --pick knee --to model" in text
    assert f"nas search --resume &#x27;{tmp_path / 'a run'}&#x27;" in text


BASELINES = [
    make_baseline("mobilenet_v2_050", 0.88, 3.0),
    make_baseline("mobilenet_v2_100", 0.92, 4.0),
    make_baseline("resnet18", 0.999, 9.0),
    make_baseline("largest", None, 2.5),
    make_baseline("smallest", None, 0.1, reason=HOSTILE),
]


def test_baselines_are_beside_the_front_with_a_verdict_each(tmp_path: Path) -> None:
    baselines = [*BASELINES, replace(make_baseline("mobilenet_v2_075", 0.5, 3.5), init=HOSTILE, note=HOSTILE)]
    records = [make_record(0, 0.95, 2.0), make_record(1, 0.8, 1.0)]
    text = page_text(report(tmp_path / "run", records, baselines=baselines))
    assert "Against what people would otherwise pick" in text
    assert "The front beats 3 of 4 baselines" in text
    assert "1 baseline is measured and not trained" in text
    assert "1 baseline failed" in text
    assert f"beaten by {records[0].digest[:8]} (+3.00 points, 2× faster)" in text
    assert text.count("on or beyond the front") == 1
    assert "made for images of 224×224" in text
    assert "<img" not in text
    assert text.count("&lt;script&gt;window.pwned=1") == 4  # three cells, and what pointing at the mark shows


def test_without_baselines_a_report_says_how_to_have_them(tmp_path: Path) -> None:
    text = page_text(report(tmp_path / "run", scattered(9)))
    assert "Against what people" not in text
    assert text.count(f"nas baseline {tmp_path / 'run'} --train") == 1
    assert "nas baseline" not in page_text(report(tmp_path / "empty", []))


def test_baselines_that_inherit_nothing_beside_candidates_that_do(tmp_path: Path) -> None:
    settings = replace(SETTINGS, evaluation=EvaluationSettings(init="efficientnet_lite0"))
    text = page_text(report(tmp_path / "run", scattered(9), settings, BASELINES))
    assert "inherit weights from efficientnet_lite0 and baselines from scratch do not" in text


# ---------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed, so the report is not opened in a browser")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=CHROMIUM_FLAGS)
        yield chromium
        chromium.close()


def open_offline(browser: Browser, path: Path, width: int = 1280, scheme: Any = "light") -> tuple[Page, list[str]]:
    """The report in a page without network, and everything that goes wrong there."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    troubles: list[str] = []
    page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith("file:") else troubles.append(request.url))
    page.goto(path.as_uri())
    return page, troubles


@dataclass(frozen=True)
class Wide:
    """A report with everything in it in a page, and what goes wrong there."""

    page: Page
    troubles: list[str]
    run: Path
    records: list[TrialRecord]

    @property
    def front(self) -> list[TrialRecord]:
        return pareto_front(self.records, SETTINGS.objectives)

    @property
    def chosen(self) -> TrialRecord:
        """The knee, whose text is hostile."""
        return knee(self.front, SETTINGS.objectives)


@pytest.fixture(scope="module")
def wide_page(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wide]:
    records = scattered(30)
    chosen = knee(pareto_front(records, SETTINGS.objectives), SETTINGS.objectives)
    records[chosen.number] = replace(chosen, text=HOSTILE)
    records += [
        make_record(30, outcome=Outcome.FAILED, reason=HOSTILE),
        make_record(31, outcome=Outcome.FAILED, latency_ms=None, reason='=cmd "x", and a comma'),
        make_record(32, outcome=Outcome.LOST, latency_ms=12.5, reason="node went away"),
    ]
    settings = replace(SETTINGS, data=HOSTILE, evaluation=EvaluationSettings(budgets=Budgets(max_latency_ms=1.9)))
    run = tmp_path_factory.mktemp("wide") / "run"
    page, troubles = open_offline(browser, report(run, records, settings, BASELINES, command=HOSTILE))
    yield Wide(page, troubles, run, records)
    page.close()


@pytest.fixture
def wide(wide_page: Wide) -> Iterator[Wide]:
    """That page in a test, after which nothing has gone wrong there."""
    yield wide_page
    assert wide_page.page.evaluate("window.pwned") is None
    assert wide_page.troubles == []


@pytest.mark.browser
def test_the_report_works_offline_and_is_not_taken_over(wide: Wide) -> None:
    page, chosen = wide.page, wide.chosen
    places = page.locator(":is(.plot, .strip)")
    assert places.count() == page.locator(".js-plotly-plot").count() + page.locator("details .strip").count()
    buttons = page.locator("#pareto-latency .modebar-btn").evaluate_all("all => all.map(b => b.dataset.title)")
    assert buttons == ["Download plot", "Zoom", "Pan", "Reset axes"]  # none that sends the chart anywhere

    points = page.locator("#pareto-latency .scatterlayer .trace").nth(2).locator(".point")
    assert points.count() == len(wide.front)
    position = [record.digest for record in wide.front].index(chosen.digest)
    box = points.nth(position).bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    hover = page.locator("#pareto-latency .hovertext")
    hover.wait_for()
    shown = "".join(hover.all_text_contents())
    assert chosen.digest in shown
    assert "<b>bold</b> %{x} it's & 'q'" in shown
    assert HOSTILE in page.locator("pre").all_text_contents()
    baselines_are_shown(page, 1280)


def baselines_are_shown(page: Page, width: int) -> None:
    """Each with its label inside the window, and its verdict."""
    labels = page.locator("#pareto-latency .textpoint")
    assert {text for text in labels.all_text_contents() if text} == {
        *("mobilenet_v2", "resnet18"), *("fastest", "knee", "most accurate")
    }  # fmt: skip
    assert all((box := label.bounding_box()) and 0 <= box["x"] <= width - box["width"] for label in labels.all())
    row = page.get_by_role("row").filter(has_text="resnet18")
    assert "on or beyond the front" in row.inner_text()
    assert "99.90 ± 0.16 %" in row.inner_text()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.browser
def test_the_other_networks_of_the_front_are_drawn_when_they_are_unfolded(wide: Wide) -> None:
    page = wide.page
    others = page.locator("details", has_text="of the front")
    drawn = others.locator(".js-plotly-plot")
    assert drawn.count() == 0
    others.locator("summary").focus()
    page.keyboard.press("Enter")
    drawn.first.locator(".bars").first.wait_for()
    assert page.locator(".network .js-plotly-plot").count() == len(wide.front)
    for network in page.locator(".network").all():
        digest = network.locator(".digest").inner_text()
        assert f"nas train {wide.run} --pick {digest}" in network.locator("pre").inner_text()


@pytest.mark.browser
def test_the_trials_are_sorted_filtered_and_saved(wide: Wide) -> None:
    page, records = wide.page, wide.records
    page.locator("#trials summary").click()
    assert page.get_by_role("cell", name=HOSTILE).first.is_visible()
    rows = page.locator("#trials tbody tr:visible")

    def column(number: int) -> list[str]:
        return [text.split("\t")[number].strip() for text in rows.all_inner_texts()]

    head = page.locator("#trials").get_by_role("columnheader", name="Latency")
    head.get_by_role("button").focus()
    page.keyboard.press("Enter")
    measured = [record for record in records if "latency" in record.objectives]
    by_latency = [str(record.number) for record in sorted(measured, key=lambda record: record.objectives["latency"])]
    assert column(0) == [*by_latency, "31"]  # what has none comes last
    assert head.get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Enter")
    assert column(0) == [*reversed(by_latency), "31"]

    page.get_by_label("Filter").fill("LOST away")
    assert column(0) == ["32"]
    assert page.locator("#shown").inner_text() == "1 of 33"
    page.get_by_label("Filter").fill("")
    assert rows.count() == 33
    page.get_by_label("Filter").fill("failed comma")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV").click()
    saved = list(csv.DictReader(Path(download.value.path()).read_text(encoding="utf-8").splitlines()))
    assert [row["Trial"] for row in saved] == ["31"]
    assert saved[0]["MACs"] == "400000"
    assert saved[0]["Note"] == '\'=cmd "x", and a comma'  # no spreadsheet runs it


@pytest.mark.browser
@pytest.mark.parametrize("count", [0, 30])
def test_a_narrow_dark_window_shows_all_of_it(browser: Browser, tmp_path: Path, count: int) -> None:
    path = report(tmp_path / "run", scattered(count), baselines=BASELINES if count else ())
    page, troubles = open_offline(browser, path, width=480, scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    plots = page.locator(".js-plotly-plot:not(.wide) svg.main-svg")
    assert all((box := plot.bounding_box()) and box["x"] + box["width"] <= 480 for plot in plots.all())
    cut_off = (
        "strips => strips.filter(strip => strip.checkVisibility()).flatMap(strip => [...strip.querySelectorAll('text')]"
        ".filter(word => word.getBoundingClientRect().right > strip.getBoundingClientRect().right + 1)"
        ".map(word => word.textContent))"
    )
    assert page.locator(".strip").evaluate_all(cut_off) == []
    if count:
        baselines_are_shown(page, 480)
    assert troubles == []
    page.close()


@pytest.mark.browser
def test_many_points_are_drawn_with_webgl(browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scatter, "SVG_POINTS", 5)
    page, troubles = open_offline(browser, report(tmp_path / "run", scattered(30)))
    assert page.locator("#pareto-latency .gl-canvas").count() > 0
    assert troubles == []
    page.close()


# ---------------------------------------------------------------- the front for slides


@pytest.fixture
def finished(tmp_path: Path) -> RunDirectory:
    """A run of eight trials."""
    path = tmp_path / "run"
    report(path, scattered(8))
    return open_run(path)


def cli(*arguments: str) -> int:
    """The exit code of the command line."""
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    return int(end.value.code or 0)


@pytest.mark.browser
def test_the_front_is_a_picture_for_slides(
    finished: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed, so no picture is drawn")
    assert cli("report", str(finished.path), "--png") == 0
    assert capsys.readouterr().out.split() == [str(finished.report_path), str(finished.path / "front.png")]
    with Image.open(finished.path / "front.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (1600, 900))
        colours = picture.convert("RGB").getcolors(1 << 20)
        assert colours is not None
        assert max(colours)[1] == (255, 255, 255)
        assert (0, 114, 178) in {colour for _, colour in colours}  # the front's blue


@pytest.mark.parametrize(
    ("change", "arguments", "sentence"),
    [
        ("no browser", ["--png"], "--png needs Chromium or Chrome"),
        ("no kaleido", ["--png"], "--png needs kaleido: pip install 'pareto-nas[png]'"),
        ("no browser", ["--to", "front.png"], "--to front.png: says where --png goes"),
    ],
)
def test_a_picture_that_cannot_be_drawn_is_one_sentence(
    finished: RunDirectory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: str,
    arguments: list[str],
    sentence: str,
) -> None:
    if change == "no kaleido":
        monkeypatch.setitem(sys.modules, "kaleido", None)
    else:
        monkeypatch.setenv("BROWSER_PATH", "/nowhere/chromium")
    assert cli("report", str(finished.path), *arguments) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert sentence in error
    assert "Traceback" not in error
    assert not (finished.path / "front.png").exists()


def test_a_run_without_a_front_has_no_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(tmp_path / "run", [])
    assert cli("report", str(tmp_path / "run"), "--png") == 2
    assert "no candidate is trained yet" in capsys.readouterr().err
