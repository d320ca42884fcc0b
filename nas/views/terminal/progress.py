"""Progress of a search: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nas.common.text import brief_text, done_word, plural
from nas.runs.front import hypervolume, pareto_front, reference_point
from nas.runs.objectives import objective, score_of
from nas.runs.pace import left_text, seconds_left
from nas.runs.record import Confirmation, Outcome, TrialRecord
from nas.search.broker import Broker
from nas.search.candidate import Candidate
from nas.training.history import EpochMetrics
from nas.views.terminal.front import front_table
from nas.views.terminal.pulse import Pulse
from nas.views.text import over_limits
from nas.workflows.search import Progress


class NotesFirst(Progress):
    """Says some sentences when the search begins, since one that is refused before shows the refusal alone."""

    def __init__(self, console: Console, notes: Sequence[str]) -> None:
        self._console, self._notes = console, notes

    def begin(self, broker: Broker) -> None:
        """The search starts (or goes on)."""
        for note in self._notes:
            self._console.print(note, highlight=False, soft_wrap=True)


class _Tracker(Progress):
    """What both displays know of the search."""

    def __init__(self) -> None:
        self.broker: Broker | None = None
        self.epochs: dict[int, EpochMetrics] = {}
        self.again: dict[int, tuple[Candidate, EpochMetrics]] = {}  # by seed
        self.confirmations: list[Confirmation] = []
        self.networks_in_turn = 0

    def begin(self, broker: Broker) -> None:
        """The search starts (or goes on)."""
        self.broker = broker
        self.confirmations = broker.run.confirmations()

    def epoch(self, candidate: Candidate, metrics: EpochMetrics) -> None:
        """An epoch of a candidate ended."""
        self.epochs[candidate.number] = metrics

    def record(self, record: TrialRecord) -> None:
        """A trial ended and is on disk."""
        self.epochs.pop(record.number, None)

    def epoch_again(self, candidate: Candidate, metrics: EpochMetrics) -> None:
        """An epoch of a candidate that is trained again ended."""
        self.again[candidate.settings.seed] = candidate, metrics

    def confirmation(self, confirmation: Confirmation) -> None:
        """A candidate was trained again, and what it gave is on disk."""
        self.again.pop(confirmation.seed, None)
        self.confirmations.append(confirmation)

    def in_turn(self, networks: int) -> None:
        """So many networks near the front are now measured in turn; 0: they were."""
        self.networks_in_turn = networks

    def _brief(self, metrics: EpochMetrics) -> str:
        assert self.broker is not None
        return brief_text(metrics.score, self.broker.settings.evaluation.score.unit)

    def _left(self) -> str:
        """Time left, from the pace so far."""
        assert self.broker is not None
        broker, confirmations = self.broker, list(self.confirmations)
        now_running = [*list(broker.running.values()), *(one for one, _ in list(self.again.values()))]
        running = [one.started for one in now_running]
        now = time.time()
        since = now - broker.budget.spent_s
        return left_text(seconds_left(broker.settings, list(broker.records), confirmations, since, now, running))

    def _volume(self) -> str:
        assert self.broker is not None
        objectives = self.broker.settings.objectives
        volume = hypervolume(self.broker.front, objectives, reference_point(self.broker.records, objectives))
        return "hypervolume not fixed yet" if volume is None else f"hypervolume {volume:.3f}"


class LineProgress(_Tracker):
    """A line for every trial that ended, and for what goes on where none ends for a while; for logs and pipes.

    Candidates over a hard budget, which may be many in a row, are one line together.
    """

    def __init__(self, pulse: Pulse) -> None:
        super().__init__()
        self._pulse = pulse
        self._rejected: list[TrialRecord] = []

    def begin(self, broker: Broker) -> None:
        """The search starts (or goes on)."""
        super().begin(broker)
        self._pulse.doing = self._going_on

    def record(self, record: TrialRecord) -> None:
        """Print one line, or count a candidate over a hard budget."""
        super().record(record)
        if record.outcome is Outcome.REJECTED:
            self._rejected.append(record)
            return
        self._tell_rejected()
        self._tell(record)

    def confirmation(self, confirmation: Confirmation) -> None:
        """Print one line."""
        super().confirmation(confirmation)
        assert self.broker is not None
        self._tell_rejected()
        metric, images = self.broker.settings.evaluation.score, self.broker.run.provenance.validation_images
        name = score_of(self.broker.settings.objectives)
        brief = next(record for record in self.broker.records if record.number == confirmation.trial)
        score, before = confirmation.score, metric.text(brief.objectives[name], images)
        told = confirmation.evaluation.reason if score is None else metric.text(score, images)
        self._pulse.say(
            f"confirming trial {confirmation.trial}: {told} after {plural(confirmation.epochs, 'epoch')}, {before} before; "
            f"{self._left()}"
        )

    def end(self) -> None:
        """Tell what is not told yet; the report comes next."""
        self._tell_rejected()
        self._pulse.doing = "writing the report"

    def _tell(self, record: TrialRecord) -> None:
        assert self.broker is not None
        names = [name for name in self.broker.settings.objectives if name in record.objectives]
        values = ", ".join(f"{name} {objective(name).show(record.objectives[name])}" for name in names)
        what = record.evaluation.reason if record.outcome is not Outcome.DONE else values
        self._pulse.say(
            f"[{self.broker.trained}/{self.broker.settings.candidates}] trial {record.number} {record.outcome}: {what} "
            f"({record.text}); {self._volume()}, {self._left()}"
        )

    def _tell_rejected(self) -> None:
        rejected, self._rejected = self._rejected, []
        if len(rejected) == 1:
            self._tell(rejected[0])
        elif rejected and self.broker is not None:
            over = over_limits(rejected, self.broker.settings.evaluation)
            self._pulse.say(f"{plural(len(rejected), 'candidate')} over {over} not trained; {self._left()}")

    def _going_on(self) -> str:
        """What runs. Called from a thread of its own: it reads copies."""
        assert self.broker is not None
        now, parts = time.time(), []
        if self._rejected:
            over = over_limits(list(self._rejected), self.broker.settings.evaluation)
            parts.append(f"{plural(len(self._rejected), 'candidate')} over {over} not trained so far")
        for candidate in list(self.broker.running.values()):
            parts.append(f"trial {candidate.number} {self._stage(candidate)} after {now - candidate.started:.0f} s")
        for candidate, metrics in list(self.again.values()):
            epochs = candidate.settings.recipe.epochs
            parts.append(f"confirming trial {candidate.number}, epoch {metrics.epoch}/{epochs}")
        if self.networks_in_turn:
            parts.append(f"measuring {plural(self.networks_in_turn, 'network')} in turn")
        if not parts:
            parts.append("confirming the front" if self.broker.finished else "workers start")
        return f"{'; '.join(parts)}; {self._left()}"

    def _stage(self, candidate: Candidate) -> str:
        metrics = self.epochs.get(candidate.number)
        if metrics is None:
            return f"in epoch 1/{candidate.settings.recipe.epochs}, or being measured"
        return f"at epoch {metrics.epoch}/{candidate.settings.recipe.epochs}, {self._brief(metrics)}"

    def in_turn(self, networks: int) -> None:
        """Print one line at the start."""
        super().in_turn(networks)
        if networks:
            self._tell_rejected()
            self._pulse.say(f"measuring {plural(networks, 'network')} near the front again, in turn")


class ProgressDisplay(_Tracker):
    """What a display that is redrawn in place shows: counts, hypervolume, time left, what runs, the current front."""

    def render(self) -> Group:
        """The display as it is now. It may be called from a thread of its own: it reads copies, and lists that only grow."""
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
            state = "measuring" if metrics is None else self._brief(metrics)
            if metrics is not None and epochs:
                state = f"epoch {metrics.epoch}/{epochs}, {state}"
            now.add_row(f"trial {candidate.number}", state, Text(str(candidate.architecture.canonical), style="dim"))
        for candidate, metrics in list(self.again.values()):
            state = f"again, epoch {metrics.epoch}/{candidate.settings.recipe.epochs}, {self._brief(metrics)}"
            now.add_row(f"trial {candidate.number}", state, Text(str(candidate.architecture.canonical), style="dim"))
        if self.networks_in_turn:
            now.add_row("in turn", "measuring", f"{plural(self.networks_in_turn, 'network')} near the front, once more")
        parts: list[Table | Text | Group] = [head, now]
        if pareto_front(records, broker.settings.objectives):
            parts += [Text("\nPareto front so far", style="bold"), front_table(broker.run, records)]
        return Group(*parts)


class LiveProgress(ProgressDisplay):
    """The display on a terminal."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._live = Live(console=console, get_renderable=self.render, refresh_per_second=1, transient=True)

    def begin(self, broker: Broker) -> None:
        """Start drawing."""
        super().begin(broker)
        self._live.start()

    def end(self) -> None:
        """Stop drawing and leave the terminal clean."""
        self._live.stop()
