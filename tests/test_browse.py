"""The live page in a real browser, served by a real `nas browse`, while records are written by another process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from test_report import BASELINES, CHROMIUM, CHROMIUM_FLAGS, HOSTILE, PROVENANCE, SETTINGS, make_record, scattered

from nas.common.files import weights_content
from nas.data.sets import load_data
from nas.latency.protocol import LatencyProtocol
from nas.models.networks import build
from nas.runs.front import knee, pareto_front
from nas.runs.record import Outcome, TrialRecord
from nas.runs.settings import Budgets, EvaluationSettings, Resources
from nas.runs.state import DriverState
from nas.runs.store import RunDirectory
from nas.training.recipe import Recipe
from nas.workflows.measurable import named

HOSTILE_NAME = "<img src=x onerror=window.pwned=1>"
TABS = ("Front", "Progress", "Choices", "Trials", "Failures", "Compare", "Settings")
QUICK = LatencyProtocol(warmup_s=0.01, min_blocks=5, max_s=0.05)
LOOK_MS = 15_000
expect.set_options(timeout=LOOK_MS)


@dataclass(frozen=True)
class Site:
    """A `nas browse` that runs, its runs by what is in them, and what the first one's front is."""

    url: str
    runs: dict[str, RunDirectory]
    front: list[TrialRecord]

    @property
    def run(self) -> RunDirectory:
        return self.runs["full"]

    @property
    def address(self) -> str:
        """Without its token."""
        return self.url.split("?")[0]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Runs that are full, with one trial, without any, and without a feasible one, one with a hostile name, on one page."""
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed, so the page is not opened in a browser")
    folder = tmp_path_factory.mktemp("runs")
    records = scattered(30)
    front = pareto_front(records, SETTINGS.objectives)
    limited = replace(SETTINGS, evaluation=EvaluationSettings(protocol=QUICK, budgets=Budgets(max_latency_ms=1.9)))
    failed = make_record(30, outcome=Outcome.FAILED, reason=HOSTILE)
    rejected = [make_record(number, outcome=Outcome.REJECTED, reason="too slow") for number in range(3)]
    contents: dict[str, list[TrialRecord]] = {
        "full": [*records, failed],
        "one": records[:1],
        "empty": [],
        "infeasible": rejected,
        "live": records,
        HOSTILE_NAME: [replace(record, text=HOSTILE) for record in scattered(40)[30:]],
    }
    runs = {
        name: RunDirectory.create(folder / name, limited, PROVENANCE, records=those) for name, those in contents.items()
    }
    of_digits = replace(PROVENANCE, data_fingerprint=load_data("digits", channels=1).fingerprint())
    brief = replace(SETTINGS, evaluation=EvaluationSettings(Recipe(epochs=1, precision="float32"), QUICK))
    runs["brief"] = RunDirectory.create(folder / "brief", brief, of_digits, records=front[:1])
    for baseline in BASELINES:
        runs["full"].append_baseline(baseline)
    for record in front:
        for name in ("full", "brief"):
            runs[name].save_weights(record.digest, weights_content(build(record.architecture, 10).state_dict()))
    log = (folder / "log").open("w+")
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "nas.cli",
            "browse",
            *(str(run.path) for run in runs.values()),
            "--port",
            "0",
            "--no-open",
        ],
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    assert url.startswith("http://127.0.0.1:"), url
    yield Site(url, runs, front)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    log.seek(0)
    assert log.read() == ""  # neither a traceback nor a line a request
    log.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        flags = [*CHROMIUM_FLAGS, "--enable-unsafe-swiftshader"]  # WebGL without a GPU
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=flags)
        yield chromium
        chromium.close()


@dataclass
class Opened:
    """A page, and everything that goes wrong there; a request to another host does."""

    page: Page
    troubles: list[str] = field(default_factory=list)

    def untroubled(self) -> None:
        assert self.troubles == []
        assert self.page.evaluate("window.pwned") is None

    def tab(self, name: str) -> None:
        self.page.get_by_role("navigation").get_by_role("button", name=name).click()

    def points(self, name: str) -> list[list[float]]:
        """Where the points of a trace are."""
        return self.page.evaluate(
            "name => { const t = document.querySelector('#scatter .js-plotly-plot').data.find(t => t.name === name);"
            " return t.x.map((x, i) => [x, t.y[i]]); }",
            name,
        )

    def click_on(self, record: TrialRecord, shift: bool = False) -> None:
        """Click on the point of a candidate, wherever its axes put it."""
        place = self.page.evaluate(
            "digest => { const g = document.querySelector('#scatter .js-plotly-plot'), l = g._fullLayout;"
            " for (const t of g.data) { const i = (t.customdata ?? []).findIndex(c => c[0] === digest);"
            " if (i >= 0) { const box = g.getBoundingClientRect(); return ["
            " box.x + l._size.l + l.xaxis.d2p(t.x[i]), box.y + l._size.t + l.yaxis.d2p(t.y[i])]; } } }",
            record.digest,
        )
        self.page.mouse.move(*place)
        self.page.locator("#scatter .hovertext").filter(has_text=record.digest).wait_for()
        if shift:
            self.page.keyboard.down("Shift")
        self.page.mouse.click(*place)
        if shift:
            self.page.keyboard.up("Shift")


@pytest.fixture(scope="module")
def context(browser: Browser) -> Iterator[BrowserContext]:
    """One whose pages share what they have loaded, and the token once a page was opened with it."""
    context = browser.new_context(accept_downloads=True)
    yield context
    context.close()


@pytest.fixture(scope="module")
def first(site: Site, context: BrowserContext) -> Iterator[Opened]:
    """The page as its printed address opens it, for several tests: each loading of it takes seconds."""
    for opened in open_page(site, context, site.url.partition("?")[2]):
        assert "token" not in opened.page.url
        yield opened


@pytest.fixture
def opened(first: Opened) -> Iterator[Opened]:
    """That page, at its first view with no candidate open."""
    first.page.keyboard.press("Escape")
    first.tab("Front")
    yield first
    first.untroubled()


def open_page(
    site: Site, context: BrowserContext, query: str = "", width: int = 1280, scheme: Any = "light"
) -> Iterator[Opened]:
    page = context.new_page()
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    found = Opened(page)

    def requested(address: str) -> None:
        if not address.startswith((site.address, "data:", "blob:")):
            found.troubles.append(address)

    page.on("console", lambda message: found.troubles.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: found.troubles.append(str(error)))
    page.on("request", lambda request: requested(request.url))
    page.goto(f"{site.address}?{query}")
    expect(page.locator("#status")).not_to_be_empty()
    yield found
    found.untroubled()
    page.close()


def drawn(page: Page) -> None:
    expect(page.locator("#scatter .scatterlayer .point").first).to_be_visible()


@pytest.mark.browser
@pytest.mark.subprocess
def test_a_click_opens_the_candidate_and_keys_step_along_the_front(site: Site, opened: Opened) -> None:
    page = opened.page
    drawn(page)
    best = knee(site.front, SETTINGS.objectives)
    opened.click_on(best)
    drawer = page.locator("#drawer")
    expect(drawer.get_by_role("heading", name=best.digest)).to_be_visible()
    expect(drawer).to_contain_text(best.text)
    expect(drawer).to_contain_text("Bench CPU · batch 1 · eager · float32")
    expect(drawer.locator("#strip .barlayer .point").first).to_be_visible()
    expect(drawer.locator("#curve .scatterlayer .point")).to_have_count(3)
    expect(page.locator("#export-command")).to_have_text(
        f"nas export {site.run.path} --pick {best.digest} --to {site.run.path / 'exports' / best.digest}"
    )
    expect(page.locator("#train-command")).to_have_text(f"nas train {site.run.path} --pick {best.digest}")
    drawer.get_by_text("Record", exact=True).click()
    assert json.loads(page.locator("#record").inner_text())["digest"] == best.digest

    place = [record.digest for record in site.front].index(best.digest)
    page.keyboard.press("ArrowRight")
    expect(page.locator("#drawer-title")).to_have_text(site.front[place + 1].digest)
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#drawer-title")).to_have_text(best.digest)
    page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()


@pytest.mark.browser
@pytest.mark.subprocess
def test_a_shift_click_chooses_for_comparison_and_opens_nothing(site: Site, opened: Opened) -> None:
    page = opened.page
    drawn(page)
    drawer, first, second = page.locator("#drawer"), site.front[0], site.front[-1]
    opened.click_on(first, shift=True)
    expect(page.get_by_role("button", name="Compare 1")).to_be_visible()
    page.wait_for_function("document.querySelector('#scatter .js-plotly-plot').data.at(-2).x[0] !== null")
    expect(drawer).to_be_hidden()
    opened.click_on(second, shift=True)
    expect(page.get_by_role("button", name="Compare 2")).to_be_visible()
    expect(drawer).to_be_hidden()
    opened.click_on(second, shift=True)
    expect(page.get_by_role("button", name="Compare 1")).to_be_visible()
    opened.click_on(second)
    expect(page.locator("#drawer-title")).to_have_text(second.digest)
    expect(page.get_by_role("button", name="Compare 1")).to_be_visible()
    page.keyboard.press("Escape")
    opened.click_on(second, shift=True)
    opened.tab("Compare 2")
    expect(page.get_by_role("table").get_by_role("columnheader")).to_have_count(3)
    for record in (first, second):
        expect(page.get_by_role("table")).to_contain_text(record.digest[:8])
    page.get_by_role("button", name="Clear").click()


@pytest.mark.browser
@pytest.mark.subprocess
def test_the_controls_of_the_front_say_what_they_are(site: Site, opened: Opened) -> None:
    labels = opened.page.locator("#panel-front .control > span").all_inner_texts()
    assert labels[:4] == ["x axis", "x scale (log, linear)", "y axis", "y scale (log, linear)"]


OVERLAPS = """() => { const boxes = [...document.querySelectorAll(
  "#scatter .textpoint text, #scatter .legend, #scatter .xtick text, #scatter .ytick text, #scatter .xtitle")]
  .filter(e => e.textContent.trim() && e.checkVisibility({visibilityProperty: true}))
  .map(e => [e.textContent, e.getBoundingClientRect()]);
 return boxes.flatMap(([a, p], i) => boxes.slice(i + 1).filter(([, q]) => p.left < q.right - 1 && q.left < p.right - 1
   && p.top < q.bottom - 1 && q.top < p.bottom - 1).map(([b]) => `${a} on ${b}`)); }"""


@pytest.mark.browser
@pytest.mark.subprocess
@pytest.mark.slow
@pytest.mark.parametrize("width", [480, 1280])
def test_labels_of_the_front_do_not_overlap(site: Site, context: BrowserContext, width: int) -> None:
    """Picks beside each other, baselines and the named members of the front, on two pairs of axes."""
    picks = ",".join(f"latency<={ms}ms" for ms in (0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2))
    for axes in ("", "&x=macs&scale-x=linear", "&x=latency&y=params"):
        for opened in open_page(site, context, f"pick={picks}{axes}", width):
            drawn(opened.page)
            opened.page.wait_for_timeout(1000)  # for the labels to find their places
            labels = opened.page.locator("#scatter .textpoint text")
            assert labels.count() > 3
            assert opened.page.evaluate(OVERLAPS) == []


@pytest.mark.browser
@pytest.mark.subprocess
def test_trials_are_filtered_saved_opened_and_compared(site: Site, opened: Opened) -> None:
    page = opened.page
    opened.tab("Trials")
    rows = page.locator("#grid .ag-center-cols-container .ag-row")
    expect(rows.first).to_be_visible()
    members = len(site.front)
    page.locator("#grid").get_by_role("textbox", name="Outcome Filter Input").fill("front")
    expect(rows).to_have_count(members)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV").click()
    lines = Path(download.value.path()).read_text(encoding="utf-8-sig").splitlines()
    assert lines[0].startswith('"Trial","Outcome","Candidate","Validation accuracy (%)","Latency (ms)","MACs"')
    assert {line.split(",")[2].strip('"') for line in lines[1:]} == {record.digest for record in site.front}

    page.locator("#grid").get_by_role("checkbox", name="row").nth(0).check()
    page.locator("#grid").get_by_role("checkbox", name="row").nth(1).check()
    opened.tab("Compare 2")
    table = page.get_by_role("table")
    expect(table.get_by_role("columnheader")).to_have_count(3)
    expect(table).to_contain_text("Bench CPU")
    expect(page.locator("#compare-strips .barlayer .point").first).to_be_visible()
    expect(page.locator("#compare-curves .scatterlayer .trace")).to_have_count(2)

    opened.tab("Trials")
    rows.first.locator("[col-id=digest]").click()
    digest = rows.first.locator("[col-id=digest]").inner_text()
    expect(page.locator("#drawer-title")).to_have_text(digest)


@pytest.mark.browser
@pytest.mark.subprocess
def test_the_axes_can_be_anything_and_the_address_keeps_the_view(site: Site, opened: Opened) -> None:
    page = opened.page
    drawn(page)
    page.locator("#x").click()
    page.get_by_role("option", name="MACs", exact=True).click()
    expect(page.locator("#scatter .xtitle")).to_have_text("MACs")
    page.locator("#scale-x").click()
    page.get_by_role("option", name="linear").click()
    page.locator("#colour").click()
    page.get_by_role("option", name="head_channels").click()
    page.locator("#pick").fill("latency<=1ms")
    page.keyboard.press("Enter")
    expect(page.locator("#scatter .textpoint").filter(has_text="latency<=1ms").first).to_be_visible()
    expect(page.locator("#scatter .legendtext").filter(has_text="head_channels").first).to_be_visible()
    opened.click_on(site.front[0])
    expect(page.locator("#drawer-title")).to_have_text(site.front[0].digest)
    for part in ("x=macs", "scale-x=linear", "colour=head_channels", f"candidate=0:{site.front[0].digest}"):
        assert part in page.url
    page.reload()
    expect(page.locator("#scatter .xtitle")).to_have_text("MACs")
    expect(page.locator("#drawer-title")).to_have_text(site.front[0].digest)
    expect(page.locator("#pick")).to_have_value("latency<=1ms")

    page.locator("#pick").fill("latency<=1ns")
    page.keyboard.press("Enter")
    expect(page.locator("#pick-note")).to_contain_text("'1ns' is not a number with a unit of us, ms, s")


@pytest.mark.browser
@pytest.mark.subprocess
def test_a_new_trial_appears_by_itself(site: Site, context: BrowserContext) -> None:
    for opened in open_page(site, context, "run=4"):
        page = opened.page
        drawn(page)
        assert len(opened.points("Pareto front")) == len(site.front)
        line = json.dumps(asdict(make_record(31, 0.999, 0.05)))
        code = "import sys; open(sys.argv[1], 'a').write(sys.argv[2])"
        file = str(site.runs["live"].path / "trials.jsonl")
        subprocess.run([sys.executable, "-c", code, file, line[:99]], check=True)
        subprocess.run([sys.executable, "-c", code, file, line[99:] + "\n"], check=True)
        expect(page.locator("#status")).to_contain_text("31 done")
        expect(page.locator("#status")).to_contain_text("front of 1 network")
        page.wait_for_function("document.querySelector('#scatter .js-plotly-plot').data[2].x.length === 1")
        expect(page.locator("#problems")).to_be_empty()


@pytest.mark.browser
@pytest.mark.subprocess
@pytest.mark.slow
def test_an_export_by_the_button_can_be_loaded(site: Site, opened: Opened) -> None:
    page, record = opened.page, site.front[0]
    page.goto(f"{site.address}?candidate=0:{record.digest}")
    page.get_by_role("button", name="Export").click()
    expect(page.locator("#jobs")).to_contain_text("Export: done", timeout=60_000)
    folder = site.run.path / "exports" / record.digest
    with named(str(folder), None) as exported:
        assert exported.module(torch.zeros(1, 1, 8, 8)).shape == (1, 10)


@pytest.mark.browser
@pytest.mark.subprocess
@pytest.mark.slow
def test_a_training_by_the_button_is_shown_when_it_has_ended(site: Site, opened: Opened) -> None:
    page, run = opened.page, site.runs["brief"]
    page.goto(f"{site.address}?run=6&candidate=6:{site.front[0].digest}")
    page.get_by_role("button", name="Train", exact=True).click()
    expect(page.locator("#jobs")).to_contain_text("Train: running")
    expect(page.locator("#jobs")).to_contain_text("Train: done", timeout=90_000)
    (record,) = run.training_records()
    assert record.digest == site.front[0].digest
    epochs = len(record.losses)
    expect(page.locator("#drawer-figures")).to_contain_text(f"(1 seed × {epochs} epochs from search)")


@pytest.mark.browser
@pytest.mark.subprocess
def test_a_search_that_runs_is_stopped_by_the_button(site: Site, opened: Opened) -> None:
    page, run = opened.page, site.runs["one"]
    page.goto(f"{site.address}?run=1")
    stop = page.get_by_role("button", name="Stop")
    expect(page.locator("#status")).to_contain_text("Nothing runs here")
    expect(stop).to_be_hidden()
    now, here = time.time(), socket.gethostname()
    with run.locked():
        run.write_state(DriverState(now, now - 100, here, os.getpid(), None, Resources(1.0, 0.0, 2)))
        expect(page.locator("#status")).to_contain_text(f"Running on {here}")
        stop.click()
        expect(page.locator("#status")).to_contain_text(f"Stopping on {here}")
        expect(stop).to_be_hidden()
        assert run.stop_requested


@pytest.mark.browser
@pytest.mark.subprocess
def test_without_the_token_the_page_can_only_be_read(site: Site, browser: Browser) -> None:
    stranger = browser.new_context()
    for opened in open_page(site, stranger, f"candidate=0:{site.front[0].digest}"):
        page = opened.page
        expect(page.get_by_text("Read only: this page was opened without the token")).to_be_visible()
        expect(page.locator("#drawer-title")).to_have_text(site.front[0].digest)
        for name in ("Export", "Train"):
            expect(page.get_by_role("button", name=name, exact=True)).to_be_disabled()
    stranger.close()


@pytest.mark.browser
@pytest.mark.subprocess
def test_the_token_stays_with_the_browser_and_goes_to_no_other_port(site: Site, browser: Browser) -> None:
    """A cookie would go to whoever listens on any port of the host."""
    mine = browser.new_context()
    for opened in open_page(site, mine, site.url.partition("?")[2]):
        assert "token" not in opened.page.url
        opened.page.reload()
        expect(opened.page.locator("#status")).not_to_be_empty()
        assert "token" not in opened.page.url
    for opened in open_page(site, mine, f"candidate=0:{site.front[0].digest}"):  # another tab
        expect(opened.page.get_by_role("button", name="Export", exact=True)).to_be_enabled()
        expect(opened.page.get_by_text("Read only")).to_be_hidden()
    assert mine.cookies() == []
    mine.close()


@pytest.mark.browser
@pytest.mark.subprocess
def test_other_runs_can_be_switched_to_and_laid_over(site: Site, context: BrowserContext) -> None:
    for opened in open_page(site, context, "over=5"):
        page = opened.page
        expect(page.locator("#scatter .legendtext").filter(has_text="front of <img")).to_be_visible()
        over = site.runs[HOSTILE_NAME].records()
        opened.click_on(pareto_front(over, SETTINGS.objectives)[0])
        expect(page.locator("#drawer")).to_contain_text("</script>")
        page.keyboard.press("Escape")
        page.locator("#run").click()
        page.get_by_role("option", name=HOSTILE_NAME).click()
        expect(page.get_by_role("heading", level=1)).to_have_text(HOSTILE_NAME)
        expect(page.locator("#status")).to_contain_text("10 done")


@pytest.mark.browser
@pytest.mark.subprocess
@pytest.mark.slow
def test_every_view_of_every_run_fits_a_narrow_dark_window(site: Site, context: BrowserContext) -> None:
    """One with everything in it, with one trial, with none, and with none that is feasible."""
    words = {"one": "1 done", "infeasible": "3 rejected", "empty": "no trials yet", "full": "30 done, 1 failed"}
    views = {"full": TABS, "empty": TABS[:5]}
    for opened in open_page(site, context, width=480, scheme="dark"):
        page = opened.page
        drawn(page)
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
        for name, word in words.items():
            page.locator("#run").click()
            page.get_by_role("option", name=name, exact=True).click()
            expect(page.locator("#status")).to_contain_text(word)
            walk(opened, views.get(name, TABS[:2]))
        opened.tab("Failures")
        expect(page.get_by_role("cell", name=HOSTILE).first).to_be_visible()
        opened.tab("Settings")
        expect(page.get_by_text("Data fingerprint")).to_be_visible()


def walk(opened: Opened, names: Sequence[str]) -> None:
    """Open some views; each shows something, and nothing sticks out of the window."""
    page = opened.page
    for name in names:
        opened.tab(name)
        panel = page.locator(f"#panel-{name.lower()}")
        expect(panel).to_be_visible()
        expect(panel).not_to_be_empty()
        page.wait_for_function(  # a figure that was hidden finds its size a moment later; the wide one scrolls
            "name => { const drawn = [...document.querySelectorAll(`#panel-${name} .js-plotly-plot`)]"
            ".filter(plot => plot.checkVisibility()).map(plot => [plot, plot.querySelector('.main-svg')]);"
            " return document.documentElement.scrollWidth <= innerWidth && drawn.every(([plot, svg]) => svg &&"
            " (plot.closest('.wide') || svg.getBoundingClientRect().right <= innerWidth + 1)); }",
            arg=name.lower(),
        )


@pytest.mark.subprocess
def test_listening_on_other_addresses_warns(site: Site) -> None:
    command = [sys.executable, "-m", "nas.cli", "browse", str(site.run.path), "--host", "0.0.0.0", "--port", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=_without_display()
    )
    assert process.stdout is not None
    url = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert url.startswith("http://127.0.0.1:")
    assert "warning: --host 0.0.0.0 lets everybody who reaches this machine read these runs" in said
    assert process.returncode == 0


def _without_display() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
