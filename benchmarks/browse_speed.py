"""How long the page of `nas browse` takes with thousands of trials, in a real browser: `python benchmarks/browse_speed.py`.

Times, medians of several: from asking for the page until the scatter's points are drawn; a poll that finds nothing new; until
another axis is drawn; until a trial that was just recorded is drawn (of that up to 2 s are the wait for the next poll).
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from made_up import made_up, new_run, settings
from playwright.sync_api import Page, Request, sync_playwright

from nas.runs.objectives import objective_values
from nas.runs.record import TrialRecord
from nas.runs.store import RunDirectory
from nas.search.candidate import Candidate

EPOCHS = 10
DRAWN = "document.querySelectorAll('#scatter .gl-canvas, #scatter .scatterlayer .point').length > 0"


def fill(run: RunDirectory, trials: int) -> list[TrialRecord]:
    """Made-up records of random networks, with some noise, so that a front stands out."""
    rng, space, objectives = random.Random(0), run.settings.space, run.settings.objectives
    records = []
    for number in range(trials):
        values = space.sample(rng)
        architecture = space.architecture(values).canonical
        evaluation = made_up(Candidate(number, values, architecture, 0.0, run.settings.evaluation), EPOCHS)
        found = objective_values(evaluation, objectives)
        found["accuracy"] = max(0.0, found["accuracy"] - abs(rng.gauss(0, 0.05)))
        digest = f"{number:016x}"  # each a candidate of its own, as in a space that is large enough
        records.append(
            TrialRecord(
                number, digest, str(architecture), architecture, values, evaluation, found,
                started=1.79e9 + number, finished=1.79e9 + number + 1,
            )
        )  # fmt: skip
    return records


def first_plot(page: Page, url: str) -> float:
    """Seconds from asking for the page until its points are drawn."""
    start = time.perf_counter()
    page.goto(url)
    page.wait_for_function(DRAWN, timeout=120_000, polling=20)
    return time.perf_counter() - start


def axis_switch(page: Page, name: str) -> float:
    """Seconds from choosing what lies across until it is drawn."""
    before = page.locator("#scatter .xtitle").text_content()
    page.locator("#x").click()
    option = page.get_by_role("option", name=name, exact=True)
    option.wait_for()
    start = time.perf_counter()
    option.click()
    page.wait_for_function(
        "before => document.querySelector('#scatter .xtitle')?.textContent !== before", arg=before, polling=20
    )
    return time.perf_counter() - start


def idle_polls(page: Page, count: int) -> list[float]:
    """Seconds of polls that find nothing new, as the browser times them."""
    times: list[float] = []

    def finished(request: Request) -> None:
        response = request.response()
        if response is not None and response.status == 204:
            times.append(request.timing["responseEnd"] / 1e3)

    page.on("requestfinished", finished)
    page.wait_for_timeout(2_100 * count)
    page.remove_listener("requestfinished", finished)
    return times


def arrival(page: Page, run: RunDirectory, record: TrialRecord) -> float:
    """Seconds from recording a trial until the page has drawn it."""
    before = page.evaluate("document.querySelector('#scatter .js-plotly-plot').data[0].x.length")
    start = time.perf_counter()
    run.append(record)
    page.wait_for_function(
        "before => document.querySelector('#scatter .js-plotly-plot').data[0].x.length > before",
        arg=before,
        polling=20,
    )
    return time.perf_counter() - start


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=5_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = new_run(Path(folder) / "run", settings("cifar", given.trials, 1, "front", ("accuracy", "latency")))
        made = fill(run, given.trials + given.repeats)
        run = RunDirectory.create(Path(folder) / "filled", run.settings, run.provenance, records=made[: given.trials])
        start = time.perf_counter()
        server = subprocess.Popen(
            [sys.executable, "-m", "nas.cli", "browse", str(run.path), "--port", "0", "--no-open"],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        starting = time.perf_counter() - start
        try:
            with sync_playwright() as playwright:
                flags = ["--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader"]
                browser = playwright.chromium.launch(executable_path=given.chromium, args=flags)
                page = browser.new_page(viewport={"width": 1280, "height": 800})
                cold = first_plot(page, url)
                warm = [first_plot(page, url) for _ in range(given.repeats)]
                switches = [axis_switch(page, ("MACs", "Latency (ms)")[i % 2]) for i in range(2 * given.repeats)]
                polls = idle_polls(page, given.repeats)
                latest = [
                    replace(each, objectives={"accuracy": 0.01, "latency": 50.0}) for each in made[given.trials :]
                ]
                arrivals = [arrival(page, run, record) for record in latest]
                browser.close()
        finally:
            server.terminate()
            server.wait()
    print(f"{given.trials:,} trials; {os.cpu_count()} CPU cores, {platform.processor() or platform.machine()}, no GPU")
    print(f"until the server answers            {starting:.2f} s")
    print(f"first plot, nothing cached          {cold:.2f} s")
    for name, times in (
        ("first plot, scripts cached", warm),
        ("another axis", switches),
        ("a poll that finds nothing new", polls),
        ("a new trial, up to 2 s of it wait", arrivals),
    ):
        print(f"{name:<35} {statistics.median(times):.3f} s  ({min(times):.3f}-{max(times):.3f}, n={len(times)})")


if __name__ == "__main__":
    main()
