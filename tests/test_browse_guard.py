"""The page's server without a browser: hostile requests, hostile and broken files, and what an action needs."""

from __future__ import annotations

import json
import time
import webbrowser
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from dash import Dash
from mobile import mobile_space
from test_report import HOSTILE, PROVENANCE, SETTINGS, make_record, scattered
from werkzeug.serving import BaseWSGIServer
from werkzeug.test import TestResponse

from nas.cli.app import main
from nas.common.errors import InputError
from nas.common.jsonl import LONGEST_LINE
from nas.runs.record import Outcome, TrialRecord
from nas.runs.store import RunDirectory
from nas.views.page import views
from nas.views.page.actions import Jobs
from nas.views.page.app import make_app
from nas.views.page.guard import Guard
from nas.views.page.runs import LiveRun
from nas.views.page.serve import open_server
from nas.views.page.state import Runs

HOST = {"Host": "127.0.0.1:8050"}


class Page:
    """What a browser would ask of the server; `call` is a callback, by a part of the output that it fills."""

    def __init__(self, *runs: RunDirectory) -> None:
        self.jobs = Jobs()
        self.guard = Guard("127.0.0.1", 8050)
        self.app: Dash = make_app(Runs([LiveRun(run) for run in runs]), self.guard, self.jobs)
        self.client = self.app.server.test_client(use_cookies=False)

    def get(self, path: str, **headers: str) -> TestResponse:
        return self.client.get(path, headers=HOST | headers)

    def call(self, part: str, changed: str, headers: dict[str, str] | None = None, **values: Any) -> Any:
        """`changed` is ID.PROPERTY of what triggers it; `values` are by id, `-` written as `_`."""
        output = next(name for name in self.app.callback_map if part in name and _has(self.app, name, changed))
        entry = self.app.callback_map[output]

        def filled(asked: list[dict[str, str]]) -> list[dict[str, Any]]:
            return [each | {"value": values.get(each["id"].replace("-", "_"))} for each in asked]

        names = output.strip(".").split("...")
        outputs = [dict(zip(("id", "property"), name.rsplit(".", 1), strict=True)) for name in names]
        body = {
            "output": output,
            "outputs": outputs if output.startswith("..") else outputs[0],
            "inputs": filled(entry["inputs"]),
            "state": filled(entry["state"]),
            "changedPropIds": [changed],
        }
        return self.client.post("/_dash-update-component", json=body, headers=HOST | (headers or {}))


def _has(app: Dash, output: str, changed: str) -> bool:
    return changed in {f"{each['id']}.{each['property']}" for each in app.callback_map[output]["inputs"]}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """One that a test may change."""
    return filled(tmp_path / "run")


def filled(path: Path) -> RunDirectory:
    return RunDirectory.create(path, SETTINGS, PROVENANCE, records=scattered(12))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """The run of `page`, which no test changes."""
    return filled(tmp_path_factory.mktemp("served") / "run")


@pytest.fixture(scope="module")
def page(served: RunDirectory) -> Iterator[Page]:
    page = Page(served)
    yield page
    page.jobs.close()


# ---------------------------------------------------------------- who may ask


@pytest.mark.parametrize(
    "host", ["evil.example:8050", "evil.example", "127.0.0.1.evil.example", "192.0.2.7:8050", "[::2]"]
)
def test_a_name_that_was_rebound_to_this_machine_is_not_served(page: Page, host: str) -> None:
    for path in ("/", "/_dash-layout", "/assets/browse.js"):
        assert page.client.get(path, headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("host", ["127.0.0.1:8050", "localhost:8050", "[::1]:8050", "localhost:9000"])
def test_its_own_names_are_served_also_through_a_tunnel(page: Page, host: str) -> None:
    assert page.client.get("/_dash-layout", headers={"Host": host}).status_code == 200


def test_any_address_but_no_other_name_where_it_listens_on_all() -> None:
    guard = Guard("0.0.0.0", 8050)
    assert guard._is_own_name("192.0.2.7:8050")
    assert not guard._is_own_name("evil.example:8050")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "https://127.0.0.1:8050"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_another_page_may_not_ask_even_with_the_token(page: Page, headers: dict[str, str]) -> None:
    candidate, token = f"0:{scattered(1)[0].digest}", page.guard.token
    assert page.call("acted", "export.n_clicks", headers, export=1, candidate=candidate, token=token).status_code == 403
    assert page.call("scatter.figure", "tab.data", headers, tab="front", version="0:1").status_code == 403
    assert not list((page.get("/_dash-layout")).headers.getlist("Access-Control-Allow-Origin"))


def test_actions_need_the_token(page: Page, served: RunDirectory) -> None:
    candidate = f"0:{scattered(1)[0].digest}"
    right = page.guard.token
    for token in (None, "", "wrong", right[:-1], [right], {"token": right}, 7):
        for headers in ({}, {"X-CSRFToken": right, "Cookie": f"nas_browse_8050={right}; token={right}"}):
            for action in ("export", "train", "stop"):
                answer = page.call("acted", f"{action}.n_clicks", headers, candidate=candidate, run="0", token=token)
                assert answer.status_code == 403
                assert "without the token" in answer.text
    assert not page.jobs.of(served.path, candidate[2:])
    assert not (served.path / "exports").exists()
    assert not served.stop_requested


def test_the_printed_address_gives_the_token_to_its_browser_alone(page: Page) -> None:
    token = page.guard.token
    answer = page.get(f"/?token={token}&tab=trials")
    assert (answer.status_code, answer.headers["Location"]) == (303, f"/?tab=trials#token={token}")
    assert "Set-Cookie" not in answer.headers  # which every other port of the host would get
    assert page.get("/?token=wrong").headers["Location"] == "/"
    assert token not in page.get("/_dash-layout").text

    for given, may_act in ((None, False), ("wrong", False), (token, True)):
        told = page.call("read-only", "token.data", token=given).json["response"]
        assert told["read-only"]["hidden"] is may_act
        assert {told[name]["disabled"] for name in ("stop", "export", "train")} == {not may_act}


def test_a_code_gives_the_token_once(page: Page) -> None:
    """The command line of a browser that nas opens can be read by every user of the machine."""
    code = page.guard.code()
    assert page.guard.token not in code
    assert page.get(f"/?code={code}").headers["Location"] == f"/#token={page.guard.token}"
    for again in (code, "", "wrong"):
        assert page.get(f"/?code={again}").headers["Location"] == "/"


def test_a_browser_is_opened_without_the_token(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setattr(BaseWSGIServer, "serve_forever", lambda _: None)
    with pytest.raises(SystemExit):
        main(["browse", str(run.path), "--port", "0"])
    (address,) = opened
    assert "?code=" in address
    assert "token" not in address


def test_every_answer_keeps_the_browser_from_going_elsewhere(page: Page) -> None:
    for path in ("/", "/assets/browse.css", "/nowhere", "/_dash-layout"):
        headers = page.get(path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "connect-src 'self'" in policy
        assert "http" not in policy
        assert "'unsafe-inline'" not in policy.split("script-src")[1].split(";")[0]
        assert (headers["X-Frame-Options"], headers["Referrer-Policy"]) == ("DENY", "no-referrer")
        assert headers["X-Content-Type-Options"] == "nosniff"
    assert "http:" not in page.get("/").text.replace("http://127.0.0.1", "")


# ---------------------------------------------------------------- what may be read


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/..%2f..%2fetc%2fpasswd",
        "//etc/passwd",
        "/run.yaml",
        "/assets/../run.yaml",
        "/assets/..%2f..%2frun.py",
        "/assets/%2e%2e/app.py",
        "/assets//etc/passwd",
        "/_dash-component-suites/nas/runs/store.py",
        "/_dash-component-suites/dash/../../etc/passwd",
        "/_dash-component-suites/dash/..%2f..%2fdash.py",
        "/_dash-component-suites/os/os.py",
    ],
)
def test_no_path_is_read_that_the_page_does_not_need(page: Page, path: str) -> None:
    answer = page.get(path)
    assert answer.status_code >= 400
    for word in ("root:", "import ", "provenance"):
        assert word not in answer.text


@pytest.mark.parametrize("key", ["1", "../..", "/etc", 7, None, ["0"], {"a": "b"}, "0/../.."])
def test_a_run_that_is_not_served_cannot_be_named(page: Page, served: RunDirectory, key: object) -> None:
    answer = page.call(
        "scatter.figure", "tab.data", tab="front", version="0:1", run=key, over=[key], x=key, y=key, dominated=[key]
    )
    assert answer.status_code == 200
    digests = {
        point[0]
        for trace in answer.json["response"]["scatter"]["figure"]["data"]
        for point in trace.get("customdata", [])
    }
    assert digests == {record.digest for record in served.records()}


@pytest.mark.parametrize(
    "candidate", ["0:../../../etc/passwd", "9:abcd", "0:", ":", ["0:abcd"], {"a": 1}, 3, "0:" + "a" * 99]
)
def test_a_candidate_that_is_not_there_opens_nothing(page: Page, candidate: object) -> None:
    answer = page.call("drawer.hidden", "candidate.data", candidate=candidate)
    assert answer.json["response"] == {"drawer": {"hidden": True}}
    assert page.call("acted", "export.n_clicks", candidate=candidate, token=page.guard.token).status_code == 204


def test_nonsense_is_refused_and_told_nothing(page: Page) -> None:
    for body in (b"", b"{", b"[]", b"7", b'{"output": "no.such"}', b'{"output": ["a"]}', b'{"output": {}}'):
        answer = page.client.post(
            "/_dash-update-component", data=body, headers=HOST | {"Content-Type": "application/json"}
        )
        assert answer.status_code == 400
        assert "Traceback" not in answer.text
    huge = b'"' + b"x" * (5 << 20) + b'"'
    assert page.client.post("/_dash-update-component", data=huge, headers=HOST).status_code in (400, 413)


# ---------------------------------------------------------------- files of all kinds


def append(run: RunDirectory, content: bytes) -> None:
    with (run.path / "trials.jsonl").open("ab") as file:
        file.write(content)


def line(record: TrialRecord, **changes: object) -> bytes:
    return json.dumps(asdict(record) | changes).encode() + b"\n"


def test_a_run_is_read_on_from_where_it_was_read_last(run: RunDirectory) -> None:
    live = LiveRun(run)
    first = live.look()
    assert len(first.records) == 12
    assert live.look().version == first.version

    whole = line(make_record(12, 0.99, 0.05))
    append(run, whole[:50])
    assert len(live.look().records) == 12
    assert not live.look().problems  # it is being written
    append(run, whole[50:])
    seen = live.look()
    assert seen.version > first.version
    assert seen.records[-1].number == 12
    assert seen.front[0].number == 12

    run.append(make_record(13))  # after a line that a crash tore
    (run.path / "trials.jsonl").write_bytes(whole)  # a copy from elsewhere took its place
    assert [record.number for record in live.look().records] == [12]


def test_what_is_no_record_is_counted_and_told(run: RunDirectory) -> None:
    record = make_record(12)
    append(run, b"{torn\n" + b"\xff\xfe\n" + b"[" * 200_000 + b"\n" + b"7\n\n")
    append(run, line(record, schema=99) + line(record, architecture={"layers": 3}))
    append(run, line(record, objectives={"accuracy": float("nan"), "latency": 1.0}) + line(record, finished=1e300))
    append(run, b'"' + b"x" * (LONGEST_LINE + 10) + b'"\n')
    append(run, line(record))
    page = Page(run)
    found = page.call("status.children", "tick.n_intervals", run="0").json["response"]
    assert found["problems"]["children"].splitlines() == [
        "8 lines of trials.jsonl could not be read as records, and are left out",
        "1 record written by a newer version of nas are left out",
    ]
    assert "13 done" in found["status"]["children"]


def test_a_directory_that_goes_away_leaves_the_page_what_it_had(run: RunDirectory) -> None:
    live = LiveRun(run)
    live.look()
    run.path.rename(run.path.with_name("elsewhere"))
    seen = live.look()
    assert len(seen.records) == 12
    assert any("not a run directory" in problem for problem in seen.problems)


def test_a_poll_with_nothing_new_brings_nothing(page: Page) -> None:
    first = page.call("status.children", "tick.n_intervals", run="0").json["response"]
    known = {
        "version": first["version"]["data"],
        "title": first["title"]["children"],
        "status": first["status"]["children"],
        "stop": True,
        "jobs_seen": first["jobs-seen"]["data"],
    }
    assert page.call("status.children", "tick.n_intervals", run="0", **known).status_code == 204


def test_ten_tabs_have_each_figure_worked_out_once(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []

    def counted(figure: Any, *given: Any) -> Any:
        drawn.append(figure.__name__)
        return figure(*given)

    monkeypatch.setattr(views, "drawn", counted)
    page = Page(run)

    def ten_tabs(**values: Any) -> set[str]:
        asked = {"front": "scatter.figure", "progress": "hypervolume.figure", "choices": "choices-figure.children"}
        answers = [
            page.call(part, "tab.data", tab=tab, version="0:1", run="0", **values).text
            for tab, part in asked.items()
            for _ in range(10)
        ]
        assert len(set(answers)) == 3
        return set(answers)

    first = ten_tabs()
    assert len(drawn) == len(set(drawn)) == 4  # the view of choices has two
    assert ten_tabs() == first
    assert len(drawn) == 4
    run.append(make_record(12, 0.99, 0.05))
    assert not ten_tabs() & first
    assert len(drawn) == 8
    assert len(ten_tabs(x="macs") - first) == 3
    assert len(drawn) == 9  # another axis is another figure


def test_records_of_every_outcome_and_hostile_text_fill_every_view(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "<img src=x onerror=alert(1)>", SETTINGS, PROVENANCE)
    run.append(replace(make_record(0), text=HOSTILE, digest="../../" + HOSTILE))
    run.append(replace(make_record(1), text='=HYPERLINK("x")', parameters={HOSTILE: 3}))
    run.append(replace(make_record(2), objectives={"accuracy": 0.5}))
    run.append(replace(make_record(3), architecture=replace(mobile_space("digits").smallest, input_size=0)))
    for number, outcome in enumerate(Outcome, 4):
        run.append(make_record(number, outcome=outcome, reason=HOSTILE))
    page = Page(run, run)
    version = "0:1"
    views = ["front", "progress", "choices", "trials", "compare", "failures", "settings"]
    parts = [
        "scatter.figure",
        "hypervolume.figure",
        "outcomes.figure",
        "choices-figure.children",
        "importance.children",
    ]
    parts += ["grid.rowData", "compare-table.children", "failures-list.children", "panel-settings.children"]
    compared = [f"0:{record.digest}" for record in run.records()]
    for part in parts:
        answers = [
            page.call(part, "tab.data", tab=tab, version=version, run="0", over=["1"], compare=compared, colour=HOSTILE)
            for tab in views
        ]
        assert {answer.status_code for answer in answers} == {200, 204}, part
    drawn = page.call("scatter.figure", "tab.data", tab="front", version=version, run="0", over=["1"], colour=HOSTILE)
    for trace in drawn.json["response"]["scatter"]["figure"]["data"]:
        assert "<img" not in json.dumps([trace.get(part) for part in ("name", "text", "hovertext")])
    grid = page.call("grid.rowData", "tab.data", tab="trials", version=version, run="0").json["response"]["grid"][
        "rowData"
    ]
    assert '\'=HYPERLINK("x")' in {row["architecture"] for row in grid}
    for candidate in compared:
        assert page.call("drawer.hidden", "candidate.data", candidate=candidate, version=version).status_code == 200
    hostile = "../../" + HOSTILE
    assert not any(hostile in candidate for candidate in compared)  # no record has such a digest
    assert page.call("acted", "export.n_clicks", candidate=f"0:{hostile}", token=page.guard.token).status_code == 204
    with pytest.raises(InputError, match="is no digest"):
        Jobs().start("export", run.path, hostile)
    assert not (run.path / "exports").exists()


@pytest.mark.subprocess
def test_an_export_without_weights_says_why_it_failed(page: Page, served: RunDirectory) -> None:
    digest = served.records()[0].digest
    opened = page.call("drawer.hidden", "candidate.data", candidate=f"0:{digest}", version="0:1").text
    assert "not kept" in opened
    page.call("acted", "export.n_clicks", candidate=f"0:{digest}", token=page.guard.token)
    deadline = time.monotonic() + 60
    while page.jobs.of(served.path, digest)[0].code is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    told = page.call("status.children", "tick.n_intervals", run="0", candidate=f"0:{digest}").json["response"]
    shown = json.dumps(told["jobs"]["children"])
    assert "failed (exit code 2)" in shown
    assert "were not kept" in shown


# ---------------------------------------------------------------- the command


def test_what_is_no_run_is_named(run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["browse", str(run.path), str(tmp_path / "nowhere"), "--port", "0", "--no-open"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "nowhere: not a run directory" in said
    assert len(said.strip().splitlines()) == 1


def test_a_port_that_is_taken_is_named(run: RunDirectory) -> None:
    first = open_server([run.path])
    try:
        port = int(first.url.split(":")[2].split("/")[0])
        with pytest.raises(InputError, match=rf"port {port} on 127\.0\.0\.1: another program has it"):
            open_server([run.path], port=port)
        with pytest.raises(InputError, match=r"host no\.such\.host\.invalid: no address"):
            open_server([run.path], "no.such.host.invalid")
    finally:
        first.wsgi.server_close()
