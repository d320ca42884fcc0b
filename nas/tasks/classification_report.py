"""How a network does on a split of the data, class by class: precision, recall, F1, and what is taken for what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.tasks.classification_metrics import METRICS
from nas.tasks.report import Cell, Change, Column, Matrix, Table

if TYPE_CHECKING:
    from nas.tasks.classification_metrics import Labels

MATRIX_CLASSES = 20
"""Classes up to which a confusion matrix is shown whole, and pairs shown of a larger one."""

_SCORES = (
    Column("class"), Column("precision", "share"), Column("recall", "share"), Column("F1", "share"), Column("images", "count"),
)  # fmt: skip
_PAIRS = (Column("true → predicted", "pair"), Column("images", "count"), Column("of the class", "share"))


@dataclass(frozen=True)
class ClassScore:
    """Scores of one class as shares, 0 where nothing was to be divided by; `support` is its number of images."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class SplitReport:
    """Scores of predictions on one part of a data set, as shares; the averages are those of `METRICS`.

    `confusion[i][j]` counts the images of class i (in the order of `classes`) that were taken for class j.
    """

    images: int
    accuracy: float
    macro_f1: float
    balanced_accuracy: float
    classes: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if [len(row) for row in self.confusion] != [len(self.classes)] * len(self.classes):
            raise ValueError(f"confusion is no table of {len(self.classes)} by {len(self.classes)} classes")

    @property
    def score(self) -> float:
        """The task's own score."""
        return self.accuracy

    @property
    def macro_precision(self) -> float:
        """Mean precision of the classes that have images or were predicted, as in `macro_f1`."""
        predicted = [sum(column) for column in zip(*self.confusion, strict=True)]
        scores = [
            score.precision for score, count in zip(self.classes, predicted, strict=True) if score.support or count
        ]
        return sum(scores) / len(scores)

    def tables(self, before: SplitReport | None) -> Sequence[Table | Matrix]:
        """Scores a row a class, then their averages; F1 also as it was `before`. Then what was taken for what."""
        earlier = [None] * len(self.classes) if before is None else [score.f1 for score in before.classes]
        rows: list[tuple[Cell, ...]] = [
            (score.name, score.precision, score.recall, Change(old, score.f1), score.support)
            for score, old in zip(self.classes, earlier, strict=True)
        ]
        f1 = Change(before.macro_f1 if before else None, self.macro_f1)
        rows.append(("macro average", self.macro_precision, self.balanced_accuracy, f1, self.images))
        accuracy = Change(before.accuracy if before else None, self.accuracy)
        rows.append(("accuracy", None, None, accuracy, self.images))
        return Table(_SCORES, tuple(rows), totals=2), self._confusion()

    def _confusion(self) -> Table | Matrix:
        """The confusion matrix; of more than `MATRIX_CLASSES` classes the pairs most confused."""
        if len(self.classes) <= MATRIX_CLASSES:
            return Matrix(tuple(score.name for score in self.classes), self.confusion)
        pairs = most_confused(self, MATRIX_CLASSES)
        return Table(_PAIRS, tuple(((pair.truth, pair.taken), pair.images, pair.share) for pair in pairs))


@dataclass(frozen=True)
class ConfusedPair:
    """How many images of the class `truth` were taken for `taken`, and their share of the images of that class."""

    truth: str
    taken: str
    images: int
    share: float


def most_confused(report: SplitReport, count: int) -> list[ConfusedPair]:
    """The pairs of classes that are confused most, by images, then by share; at most `count`."""
    pairs = [
        ConfusedPair(truth.name, taken.name, images, images / truth.support)
        for truth, row in zip(report.classes, report.confusion, strict=True)
        for taken, images in zip(report.classes, row, strict=True)
        if images and taken is not truth
    ]
    return sorted(pairs, key=lambda pair: (pair.images, pair.share), reverse=True)[:count]


def split_report(labels: Labels, predictions: Labels, classes: Sequence[str]) -> SplitReport:
    """Score predictions against labels, both (N,) with indices into `classes`, N at least 1."""
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    indices = range(len(classes))
    scores = precision_recall_fscore_support(labels, predictions, labels=indices, zero_division=0)
    return SplitReport(
        images=len(labels),
        accuracy=METRICS["accuracy"](labels, predictions),
        macro_f1=METRICS["macro_f1"](labels, predictions),
        balanced_accuracy=METRICS["balanced_accuracy"](labels, predictions),
        classes=tuple(
            ClassScore(name, float(precision), float(recall), float(f1), int(support))
            for name, precision, recall, f1, support in zip(classes, *scores, strict=True)
        ),
        confusion=tuple(tuple(row) for row in confusion_matrix(labels, predictions, labels=indices).tolist()),
    )
