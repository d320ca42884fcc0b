"""Progress of full trainings: a bar on a terminal, a line for every epoch elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from rich.progress import BarColumn, Progress, TextColumn

from nas.common.text import duration_text
from nas.runs.pace import left_text
from nas.runs.record import Outcome, TrainingRecord
from nas.runs.settings import EvaluationSettings
from nas.tasks.base import task_of
from nas.training.history import EpochMetrics
from nas.views.terminal.pulse import Pulse
from nas.workflows.train import FullTraining, TrainingProgress


class FailureProgress(TrainingProgress):
    """Says what failed, and nothing else."""

    def __init__(self, pulse: Pulse) -> None:
        self._pulse = pulse

    def record(self, record: TrainingRecord) -> None:
        """Say why a training failed."""
        if record.evaluation.outcome is not Outcome.DONE:
            self._say(f"trial {record.number}, seed {record.seed}, failed: {record.evaluation.reason}")

    def _say(self, text: str) -> None:
        self._pulse.say(text)


class LineProgress(FailureProgress):
    """A line for every epoch, with the time left at the pace so far, and while one is long; for logs and pipes."""

    def __init__(self, pulse: Pulse, missing: Sequence[FullTraining], settings: EvaluationSettings) -> None:
        super().__init__(pulse)
        self._metric, self._by = settings.score, task_of(settings.task).score
        self._epochs = sum(training.recipe.epochs for training in missing)  # left in all
        self._of_this = 0  # left of the training that runs
        self._seen, self._start = 0, time.monotonic()

    def begin(self, training: FullTraining, epoch: int) -> None:
        """Say so where a training goes on."""
        self._start = self._start if self._seen else time.monotonic()
        self._pulse.doing = f"{_name(training)}: epoch {epoch + 1} of {training.recipe.epochs}"
        self._of_this = training.recipe.epochs - epoch
        self._epochs -= epoch
        if epoch:
            self._say(f"{_name(training)}: goes on after epoch {epoch} of {training.recipe.epochs}")

    def epoch(self, training: FullTraining, metrics: EpochMetrics) -> None:
        """Print one line."""
        self._count(metrics)
        self._say(f"{_name(training)}: {self._told(training, metrics)}")
        epoch, epochs = metrics.epoch + 1, training.recipe.epochs
        after = f"epoch {epoch} of {epochs}" if epoch <= epochs else "scoring and measuring"
        self._pulse.doing = f"{_name(training)}: {after}"

    def record(self, record: TrainingRecord) -> None:
        """Print one line."""
        super().record(record)
        self._epochs -= self._of_this  # of a training that its budget of steps or seconds, or patience, ended
        self._of_this = 0
        if record.evaluation.outcome is Outcome.DONE:
            scores = (("test", self._by, record.tested[1]), ("validation", self._metric, record.score))
            shown = [f"{part} {by.name} {by.show(value)}" for part, by, value in scores if value is not None]
            took = f"trained in {duration_text(record.evaluation.seconds)}"
            self._say(f"{record.digest[:8]} seed {record.seed}: {', '.join([took, *shown])}")

    def _count(self, metrics: EpochMetrics) -> None:
        self._epochs, self._of_this = self._epochs - 1, self._of_this - 1
        self._seen += 1

    def _told(self, training: FullTraining, metrics: EpochMetrics) -> str:
        parts = [f"epoch {metrics.epoch}/{training.recipe.epochs}"]
        if metrics.train_loss is not None:
            parts.append(f"training loss {metrics.train_loss:.4f}")
        if not math.isnan(metrics.score):
            parts.append(f"validation {self._metric.name} {self._metric.show(metrics.score)}")
        parts.append(f"{metrics.images_per_s:,.0f} images/s")
        return f"{', '.join(parts)}; {left_text((time.monotonic() - self._start) / self._seen * self._epochs)}"


class BarProgress(LineProgress):
    """A bar that is redrawn in place after each epoch: no thread draws, since a measurement would hear it."""

    def __init__(self, pulse: Pulse, missing: Sequence[FullTraining], settings: EvaluationSettings) -> None:
        super().__init__(pulse, missing, settings)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(16),
            TextColumn("{task.fields[told]}", markup=False),
        )
        self._bar = Progress(*columns, console=pulse.console, auto_refresh=False, transient=True)

    def begin(self, training: FullTraining, epoch: int) -> None:
        """Draw the bar of another training."""
        super().begin(training, epoch)
        self._bar.start()
        for task in self._bar.task_ids:
            self._bar.remove_task(task)
        total = training.recipe.epochs
        self._task = self._bar.add_task(_name(training), total=total, completed=epoch, told="begins")
        self._bar.refresh()

    def epoch(self, training: FullTraining, metrics: EpochMetrics) -> None:
        """Draw it again."""
        self._count(metrics)
        self._bar.update(self._task, completed=metrics.epoch, told=self._told(training, metrics), refresh=True)

    def end(self) -> None:
        """Leave the terminal clean."""
        self._bar.stop()


def _name(training: FullTraining) -> str:
    return f"{training.trial.digest[:8]} seed {training.seed}"
