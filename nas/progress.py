"""Progress of a search: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nas.front import hypervolume, pareto_front, reference_point
from nas.objectives import objective
from nas.pace import seconds_left, spent_on
from nas.record import Confirmation, EpochMetrics, Outcome, TrialRecord
from nas.search.broker import Broker
from nas.search.candidate import Candidate
from nas.search.launch import Progress
from nas.show import front_table
from nas.wording import done_word, duration_text, plural, score_text


class _Tracker(Progress):
    """What both displays know of the search."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.broker: Broker | None = None
        self.epochs: dict[int, EpochMetrics] = {}
        self.confirmations: list[Confirmation] = []
        self.networks_in_turn = 0
        self._start, self._before = time.time(), 0.0

    def begin(self, broker: Broker) -> None:
        """The search starts (or goes on)."""
        self.broker = broker
        self.confirmations = broker.run.confirmations()
        self._start, self._before = time.time(), self._spent()

    def epoch(self, candidate: Candidate, metrics: EpochMetrics) -> None:
        """An epoch of a candidate ended."""
        self.epochs[candidate.number] = metrics

    def record(self, record: TrialRecord) -> None:
        """A trial ended and is on disk."""
        self.epochs.pop(record.number, None)

    def confirmation(self, confirmation: Confirmation) -> None:
        """A candidate was trained again, and what it gave is on disk."""
        self.confirmations.append(confirmation)

    def in_turn(self, networks: int) -> None:
        """So many networks near the front are now measured in turn; 0: they were."""
        self.networks_in_turn = networks

    def _left(self) -> str:
        """Time left, from the pace so far."""
        assert self.broker is not None
        left = seconds_left(self.broker.settings, self._spent(), self._before, time.time() - self._start)
        return "time left not known yet" if left is None else f"about {duration_text(left)} left"

    def _spent(self) -> float:
        assert self.broker is not None
        return spent_on(self.broker.trained, len(self.confirmations))

    def _volume(self) -> str:
        assert self.broker is not None
        objectives = self.broker.settings.objectives
        volume = hypervolume(self.broker.front, objectives, reference_point(self.broker.records, objectives))
        return "hypervolume not fixed yet" if volume is None else f"hypervolume {volume:.3f}"


class LineProgress(_Tracker):
    """A line for every trial that ended; for logs and pipes."""

    def record(self, record: TrialRecord) -> None:
        """Print one line."""
        super().record(record)
        assert self.broker is not None
        values = ", ".join(f"{name} {objective(name).show(value)}" for name, value in record.objectives.items())
        what = record.evaluation.reason if record.outcome is not Outcome.DONE else values
        self.console.out(
            f"[{self.broker.trained}/{self.broker.settings.candidates}] trial {record.number} {record.outcome}: {what} "
            f"({record.text}); {self._volume()}, {self._left()}",
            highlight=False,
        )  # fmt: skip

    def confirmation(self, confirmation: Confirmation) -> None:
        """Print one line."""
        super().confirmation(confirmation)
        assert self.broker is not None
        metric, images = self.broker.settings.evaluation.metric, self.broker.run.provenance.validation_images
        brief = next(record for record in self.broker.records if record.number == confirmation.trial)
        score, before = confirmation.score, score_text(brief.objectives["accuracy"], metric, images)
        told = confirmation.evaluation.reason if score is None else score_text(score, metric, images)
        self.console.print(
            f"confirming trial {confirmation.trial}: {told} after {plural(confirmation.epochs, 'epoch')}, {before} before; "
            f"{self._left()}",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip

    def in_turn(self, networks: int) -> None:
        """Print one line at the start."""
        super().in_turn(networks)
        if networks:
            self.console.print(
                f"measuring {plural(networks, 'network')} near the front again, in turn", highlight=False
            )


class LiveProgress(_Tracker):
    """A display that is redrawn in place: counts, hypervolume, time left, what runs, the current front."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.again: dict[int, tuple[Candidate, EpochMetrics]] = {}  # by seed
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=1, transient=True)

    def begin(self, broker: Broker) -> None:
        """Start drawing."""
        super().begin(broker)
        self._live.start()

    def epoch_again(self, candidate: Candidate, metrics: EpochMetrics) -> None:
        """An epoch of a candidate that is trained again ended."""
        self.again[candidate.settings.seed] = candidate, metrics

    def confirmation(self, confirmation: Confirmation) -> None:
        """A candidate was trained again, and what it gave is on disk."""
        super().confirmation(confirmation)
        self.again.pop(confirmation.seed, None)

    def end(self) -> None:
        """Stop drawing and leave the terminal clean."""
        self._live.stop()

    def _render(self) -> Group:
        # Called from the display's own thread: it reads copies, and the lists it reads only grow.
        broker = self.broker
        if broker is None:
            return Group()
        records, running = list(broker.records), list(broker.running.values())
        trained, total = broker.trained, broker.settings.candidates
        failed = sum(record.outcome is Outcome.FAILED for record in records)
        epochs = broker.settings.evaluation.recipe.epochs
        head = Table.grid(padding=(0, 2))
        head.add_row(
            ProgressBar(total=total, completed=trained, width=16),
            f"{trained}/{total} {done_word(epochs)}, {len(running)} running, {failed} failed",
            self._volume(),
            self._left(),
        )
        now = Table.grid(padding=(0, 2))
        for candidate in running:
            metrics = self.epochs.get(candidate.number)
            state = "measuring" if metrics is None else f"{100 * metrics.score:.1f} %"
            if metrics is not None and epochs:
                state = f"epoch {metrics.epoch}/{epochs}, {state}"
            now.add_row(f"trial {candidate.number}", state, Text(str(candidate.architecture.canonical), style="dim"))
        for candidate, metrics in list(self.again.values()):
            state = f"again, epoch {metrics.epoch}/{candidate.settings.recipe.epochs}, {100 * metrics.score:.1f} %"
            now.add_row(f"trial {candidate.number}", state, Text(str(candidate.architecture.canonical), style="dim"))
        if self.networks_in_turn:
            now.add_row("in turn", "measuring", f"{plural(self.networks_in_turn, 'network')} near the front, once more")
        parts: list[Table | Text | Group] = [head, now]
        if pareto_front(records, broker.settings.objectives):
            parts += [Text("\nPareto front so far", style="bold"), front_table(broker.run, records)]
        return Group(*parts)
