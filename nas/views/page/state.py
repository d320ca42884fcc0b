"""What a page shows, as its address keeps it: everything that comes back from a browser is checked here."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import parse_qs

from nas.runs.record import TrialRecord
from nas.views.page.runs import LiveRun, Seen

TABS = ("front", "progress", "choices", "trials", "compare", "failures", "settings")
SCALES = ("auto", "log", "linear")
_MOST_MADE = 48
"""Figures and tables that are kept for other pages."""
MOST_COMPARED = 6
"""Candidates that fit beside each other."""


T = TypeVar("T")


@dataclass(frozen=True)
class Chosen:
    """A candidate of one of the runs that are served: the run's key, and its record there."""

    key: str
    record: TrialRecord

    @property
    def text(self) -> str:
        """As the page and its address name it."""
        return f"{self.key}:{self.record.digest}"


class Runs:
    """The runs that are served, by keys of the server's own: a page never names a path."""

    def __init__(self, runs: Sequence[LiveRun]) -> None:
        self._runs = {str(number): run for number, run in enumerate(runs)}
        self._made: OrderedDict[Hashable, tuple[int, Any]] = OrderedDict()
        self._making: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def items(self) -> list[tuple[str, LiveRun]]:
        """Keys and runs, in the order given."""
        return list(self._runs.items())

    def key(self, given: object) -> str:
        """The key that a browser sent, or the first run's where it sent none of them."""
        return given if isinstance(given, str) and given in self._runs else next(iter(self._runs))

    def keys(self, given: object) -> list[str]:
        """Those keys of a list that are some."""
        return (
            [each for each in given if isinstance(each, str) and each in self._runs] if isinstance(given, list) else []
        )

    def look(self, given: object) -> Seen:
        """What the run of a key holds."""
        return self._runs[self.key(given)].look()

    def once(self, what: Hashable, seen: Seen, make: Callable[[], T]) -> T:
        """What `make` gives of a run, worked out once for all pages that look at it while the run stays as it is."""
        name = (seen.run.path, what)
        with self._lock:
            own = self._making.setdefault(name, threading.Lock())
        with own:
            version, made = self._made.get(name, (-1, None))
            if version != seen.version:
                made = make()
            with self._lock:
                self._made[name] = seen.version, made
                self._made.move_to_end(name)
                while len(self._made) > _MOST_MADE:
                    self._making.pop(self._made.popitem(last=False)[0], None)
        return made

    def chosen(self, given: object) -> Chosen | None:
        """The candidate that a text `KEY:DIGEST` names, None where there is no such one."""
        key, _, digest = given.partition(":") if isinstance(given, str) else ("", "", "")
        record = self._runs[key].look().by_digest.get(digest) if key in self._runs else None
        return Chosen(key, record) if record else None

    def all_chosen(self, given: object) -> list[Chosen]:
        """The candidates that a list of texts names, each once, as many as fit beside each other."""
        texts = [each for each in given if isinstance(each, str)] if isinstance(given, list) else []
        found = [chosen for chosen in map(self.chosen, dict.fromkeys(texts[:1000])) if chosen]
        return found[:MOST_COMPARED]

    def title(self, chosen: Chosen) -> str:
        """What a candidate is called beside others: its digest in short, and its run where there are several."""
        short = chosen.record.digest[:8]
        return short if len(self._runs) == 1 else f"{short} of {self._runs[chosen.key].name}"


def one_of(given: object, allowed: Sequence[str], default: str) -> str:
    """That of some texts, which may mean more than they say, that a browser sent; else the default."""
    return next((each for each in allowed if each == given), default)


def query_values(search: object) -> Mapping[str, str]:
    """The values of a page's address, `?key=value&...`; the last of each key."""
    text = search[:10_000].removeprefix("?") if isinstance(search, str) else ""
    try:
        return {key: values[-1] for key, values in parse_qs(text, max_num_fields=50).items()}
    except ValueError:
        return {}
