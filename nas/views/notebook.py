"""Progress of a search in a notebook: what a terminal would show, in the output of the cell."""

from __future__ import annotations

import io
import time
from typing import Any

from rich.console import Console

from nas.runs.record import Confirmation, TrialRecord
from nas.search.broker import Broker
from nas.search.candidate import Candidate
from nas.training.history import EpochMetrics
from nas.views.terminal.progress import ProgressDisplay
from nas.workflows.search import Progress

_WIDTH = 110
_EVERY_S = 1.0
_PAGE = '<pre style="line-height: 1.2; white-space: pre; overflow-x: auto">{code}</pre>'


class NotebookProgress(ProgressDisplay):
    """One output that is replaced as the search goes on, at most once a second, and cleared at its end."""

    def __init__(self) -> None:
        super().__init__()
        self._output: Any = None
        self._drawn = 0.0

    def begin(self, broker: Broker) -> None:
        """The search starts (or goes on)."""
        from IPython.display import HTML, display

        super().begin(broker)
        self._output = display(HTML(self.page()), display_id=True)

    def epoch(self, candidate: Candidate, metrics: EpochMetrics) -> None:
        """An epoch of a candidate ended."""
        super().epoch(candidate, metrics)
        self._draw()

    def record(self, record: TrialRecord) -> None:
        """A trial ended and is on disk."""
        super().record(record)
        self._draw()

    def epoch_again(self, candidate: Candidate, metrics: EpochMetrics) -> None:
        """An epoch of a candidate that is trained again ended."""
        super().epoch_again(candidate, metrics)
        self._draw()

    def confirmation(self, confirmation: Confirmation) -> None:
        """A candidate was trained again, and what it gave is on disk."""
        super().confirmation(confirmation)
        self._draw()

    def in_turn(self, networks: int) -> None:
        """So many networks near the front are now measured in turn; 0: they were."""
        super().in_turn(networks)
        self._draw()

    def end(self) -> None:
        """The search is over: the cell shows what it returns."""
        from IPython.display import HTML

        if self._output is not None:
            self._output.update(HTML(""))

    def page(self) -> str:
        """What is drawn now, as HTML."""
        console = Console(record=True, file=io.StringIO(), width=_WIDTH, force_jupyter=False, emoji=False, markup=False)
        console.print(self.render())
        return console.export_html(inline_styles=True, code_format=_PAGE)

    def _draw(self) -> None:
        from IPython.display import HTML

        if self._output is not None and time.monotonic() - self._drawn >= _EVERY_S:
            self._drawn = time.monotonic()
            self._output.update(HTML(self.page()))


def progress_here() -> Progress:
    """Progress in the cell of a notebook; elsewhere none."""
    return NotebookProgress() if Console().is_jupyter else Progress()
