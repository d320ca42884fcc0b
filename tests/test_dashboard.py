"""optuna-dashboard opens a run's study file: trials by readable names of parameters and objectives."""

from __future__ import annotations

import json

from answers import answer
from conftest import RunFactory
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna_dashboard import wsgi
from test_broker import settings as some_settings
from werkzeug.test import Client

from nas.runs.record import Outcome
from nas.search.broker import Broker


def test_the_dashboard_shows_trials_by_readable_names(make_run: RunFactory) -> None:
    run = make_run(some_settings(trials=4))
    broker = Broker(run)
    while (candidate := broker.ask()) is not None:
        failed = candidate.number == 1
        broker.finish(candidate, answer(candidate, Outcome.FAILED if failed else Outcome.DONE))
    running = Broker(run.with_settings(some_settings(trials=9)))  # a search that goes on, with its file open
    assert running.ask() is not None

    client = Client(wsgi(JournalStorage(JournalFileBackend(str(run.study_path)))))
    (study,) = json.loads(client.get("/api/studies").data)["study_summaries"]
    shown = json.loads(client.get(f"/api/studies/{study['study_id']}").data)
    assert (shown["name"], shown["directions"]) == ("nas", ["maximize", "minimize"])
    assert shown["objective_names"] == ["accuracy", "latency"]
    recorded = {record.number: record for record in run.records()}
    states = [trial["state"] for trial in shown["trials"] if trial["state"] != "Waiting"]
    assert states == ["Complete", "Fail", "Complete", "Complete", "Complete", "Running"]
    for trial in shown["trials"][:5]:
        record = recorded[trial["number"]]
        assert {each["name"]: each["param_external_value"] for each in trial["params"]} == {
            name: str(value) for name, value in record.parameters.items()
        }
        assert {"stem.out_channels", "s0.depth"} <= record.parameters.keys()
        attributes = {each["key"]: each["value"] for each in trial["user_attrs"]}
        assert attributes["architecture"].strip('"') == record.text
        assert attributes["outcome"].strip('"') == record.outcome
