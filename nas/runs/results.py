"""What one set of a candidate's weights got. A score belongs to the weights that got it, and to the images that it is of.

A candidate has several sets: those of the search's proxy training, and those of each full training. Whatever prints a
score or a latency of a candidate takes it from here, so that no number stands beside weights that are not its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nas.common.text import plural, time_text
from nas.latency.result import Latency
from nas.runs.record import TrainingRecord, TrialRecord
from nas.runs.settings import EvaluationSettings
from nas.runs.words import STARTS, estimator_text, latency_text, protocol_text, score_title
from nas.tasks.base import DEFAULT, Score, task_of

NOT_TESTED = "not tested"


@dataclass(frozen=True)
class Result:
    """Whose weights, what they scored, and the latency that was measured with them; None is what was not looked at.

    `weights` says whose they are, within a sentence; `full` that they are of a full training. `tested` is the task's score,
    `by`, on the test split, `score` the run's `metric` on the validation split, each of so many images.
    """

    weights: str
    full: bool
    metric: Score
    score: float | None
    images: int
    tested: float | None
    test_images: int
    latency: Latency | None
    latencies: Mapping[str, Latency] = field(default_factory=dict)
    trained_on_validation: bool = False
    by: Score = field(default_factory=lambda: task_of(DEFAULT).score)

    @property
    def test_text(self) -> str:
        """The score on the test split and of how many images it is."""
        if self.tested is None:
            return NOT_TESTED
        return f"{self.by.text(self.tested, self.test_images)} of {plural(self.test_images, 'test image')}"

    @property
    def validation_text(self) -> str:
        """The score on the validation split and of how many images it is."""
        if self.trained_on_validation:
            return "none: trained on the validation images too"
        if self.score is None:
            return "none"
        return f"{self.metric.text(self.score, self.images)} of {plural(self.images, 'validation image')}"

    @property
    def score_line(self) -> str:
        """The score that counts most, in a sentence: tested where it was, or else validated."""
        if self.tested is not None:
            return f"test {self.by.title} {self.test_text}"
        return f"{score_title(self.metric)} {self.validation_text}, {NOT_TESTED}"

    @property
    def when(self) -> str:
        """At what occasion its latency was measured."""
        return "after that training" if self.full else "in the search"

    @property
    def latency_line(self) -> str:
        """Its latency, and which measurement that is."""
        return f"latency {measured_text(self.latency, self.when)}"


def measured_text(latency: Latency | None, when: str) -> str:
    """A latency, and which measurement it is of: at what occasion, on what day, where and how."""
    if latency is None:
        return f"not measured {when}"
    date = f", {time_text(latency.measured)}" if latency.measured else ""
    occasion = "looked up, measured before" if latency.cached else f"measured {when}"
    return f"{latency_text(latency)}, {occasion}{date}, {estimator_text(latency)}, {protocol_text(latency)}"


def of_search(trial: TrialRecord, settings: EvaluationSettings, images: int) -> Result:
    """What the weights of a search's trial got; `images` are those of the validation split."""
    evaluation, by = trial.evaluation, task_of(settings.task).score
    epochs = plural(evaluation.epochs, "epoch")
    return Result(
        weights=f"the search's proxy training, {epochs}" if evaluation.epochs else "the search, without fine-tuning",
        full=False,
        metric=settings.score,
        by=by,
        score=trial.objectives.get(by.name) if evaluation.history else None,
        images=images,
        tested=None,
        test_images=0,
        latency=evaluation.latency,
        latencies=evaluation.latencies,
    )


def of_training(training: TrainingRecord, settings: EvaluationSettings, images: int) -> Result:
    """What the weights of a full training got."""
    how = f"{plural(len(training.losses), 'epoch')} from {STARTS[training.start]}, seed {training.seed}"
    how += ", on the validation images too" if training.with_validation else ""
    return Result(
        weights=f"a full training, {how}",
        full=True,
        metric=settings.score,
        by=task_of(settings.task).score,
        score=training.score,
        images=images,
        tested=training.after.score if training.after else None,
        test_images=training.after.images if training.after else 0,
        latency=training.evaluation.latency,
        latencies=training.evaluation.latencies,
        trained_on_validation=training.with_validation,
    )
