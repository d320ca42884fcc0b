"""Tabs of `nas browse` without a browser: they ask its server for what a page asks for, when it does."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

POLL_S = 2.0
_MOST_ROUNDS = 12
"""Of callbacks that follow from one another."""

Told = Callable[[str, int, float], None]
"""Of an answer: what was asked for, its status (0 where none came), the seconds it took."""


class Tab(threading.Thread):
    """A page that is open on one view, and asks until `over` is set; `told` hears of each answer."""

    def __init__(self, url: str, view: str, told: Told, over: threading.Event) -> None:
        super().__init__(name=f"tab-{view}", daemon=True)
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._view, self._told, self._over = view, told, over
        self._values: dict[str, Any] = {}
        self._callbacks: list[dict[str, Any]] = []

    def run(self) -> None:
        ticks = 0
        while not self._over.is_set():
            if not self._callbacks and not self._open():
                self._over.wait(POLL_S)
                continue
            ticks += 1
            self._values["tick.n_intervals"] = ticks
            self._fire({"tick.n_intervals"})
            self._over.wait(POLL_S)

    def _open(self) -> bool:
        layout, callbacks = self._ask("layout", "/_dash-layout"), self._ask("dependencies", "/_dash-dependencies")
        if layout is None or callbacks is None:
            return False
        self._note(layout)
        self._callbacks = [
            each for each in callbacks if not each.get("clientside_function") and not each.get("prevent_initial_call")
        ]
        self._values["url.search"] = f"?tab={self._view}"
        self._fire({"url.search"})
        self._fire({_name(each) for callback in self._callbacks for each in callback["inputs"]} - {"url.search"}, 1)
        return True

    def _note(self, part: Any) -> None:
        """What the components of a layout are set to."""
        if isinstance(part, list):
            for each in part:
                self._note(each)
        elif isinstance(part, dict):
            given = part.get("props", {})
            if isinstance(given.get("id"), str):
                self._values |= {f"{given['id']}.{key}": value for key, value in given.items() if key != "children"}
            self._note(given.get("children"))

    def _fire(self, changed: set[str], rounds: int = _MOST_ROUNDS) -> None:
        for _ in range(rounds):
            then: set[str] = set()
            for callback in self._callbacks:
                triggers = [name for each in callback["inputs"] if (name := _name(each)) in changed]
                if triggers and not self._over.is_set():
                    then |= self._call(callback, triggers)
            if not (changed := then):
                return

    def _call(self, callback: dict[str, Any], triggers: list[str]) -> set[str]:
        output = callback["output"]
        outputs = [
            dict(zip(("id", "property"), each.rsplit(".", 1), strict=True)) for each in output.strip(".").split("...")
        ]
        body = {
            "output": output,
            "outputs": outputs if output.startswith("..") else outputs[0],
            "inputs": [each | {"value": self._values.get(_name(each))} for each in callback["inputs"]],
            "state": [each | {"value": self._values.get(_name(each))} for each in callback["state"]],
            "changedPropIds": triggers,
        }
        answer = self._ask("look" if "version.data" in output else output[:60], "/_dash-update-component", body)
        found = {
            f"{id_}.{key}": value
            for id_, given in (answer or {}).get("response", {}).items()
            for key, value in given.items()
        }
        self._values |= found
        return set(found)

    def _ask(self, what: str, path: str, body: object = None) -> Any:
        start, status, content = time.perf_counter(), 0, b""
        try:
            link = http.client.HTTPConnection(self._host, self._port, timeout=60)
            try:
                headers = {"Content-Type": "application/json"} if body is not None else {}
                data = None if body is None else json.dumps(body)
                link.request("GET" if body is None else "POST", path, data, headers)
                answer = link.getresponse()
                status, content = answer.status, answer.read()
            finally:
                link.close()
        except (OSError, http.client.HTTPException):
            status = 0
        self._told(what, status, time.perf_counter() - start)
        return json.loads(content) if status == 200 else None


def _name(part: dict[str, str]) -> str:
    return f"{part['id']}.{part['property']}"
