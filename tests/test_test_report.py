"""The report of a split of the data, against figures worked out by hand, and the tables it is shown as."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from nas.tasks.classification_metrics import METRICS
from nas.tasks.classification_report import ClassScore, SplitReport, split_report
from nas.views.terminal.split_report import split_tables

CLASSES = ("cat", "dog", "[red]fox")


def indices(text: str) -> NDArray[np.int64]:
    return np.array([int(digit) for digit in text])


@pytest.fixture
def report() -> SplitReport:
    """Four cats (one taken for a dog), three dogs (two taken for cats), one fox (taken for a cat); no fox predicted."""
    return split_report(indices("00001112"), indices("00010010"), CLASSES)


def shown(table: Table, width: int = 120) -> list[list[str]]:
    """The words of each line that is printed."""
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return [line.split() for line in console.file.getvalue().splitlines() if line.strip()]


@pytest.mark.filterwarnings("error")
def test_scores_are_those_worked_out_by_hand(report: SplitReport) -> None:
    assert report.images == 8
    assert report.accuracy == 4 / 8
    assert report.confusion == ((3, 1, 0), (2, 1, 0), (1, 0, 0))
    cat, dog, fox = report.classes
    assert cat == ClassScore("cat", 3 / 6, 3 / 4, 2 * 3 / (6 + 4), 4)
    assert dog == ClassScore("dog", 1 / 2, 1 / 3, 2 * 1 / (2 + 3), 3)
    assert fox == ClassScore("[red]fox", 0.0, 0.0, 0.0, 1)  # never predicted: 0, and no warning
    assert report.macro_precision == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)
    assert report.balanced_accuracy == pytest.approx((3 / 4 + 1 / 3 + 0) / 3)
    assert report.macro_f1 == pytest.approx((0.6 + 0.4 + 0) / 3)


@pytest.mark.filterwarnings("error")
def test_a_class_without_images_and_predictions_is_listed_and_not_averaged() -> None:
    report = split_report(indices("0011"), indices("0111"), ("a", "b", "absent"))
    assert report.classes[2] == ClassScore("absent", 0.0, 0.0, 0.0, 0)
    assert report.confusion == ((1, 1, 0), (0, 2, 0), (0, 0, 0))
    assert report.macro_precision == pytest.approx((1 + 2 / 3) / 2)
    assert report.balanced_accuracy == (1 / 2 + 1) / 2
    assert report.macro_f1 == pytest.approx((2 / 3 + 4 / 5) / 2)


@pytest.mark.filterwarnings("error")
def test_a_part_of_one_class() -> None:
    report = split_report(indices("11"), indices("11"), ("a", "b"))
    assert (report.accuracy, report.macro_f1, report.balanced_accuracy, report.macro_precision) == (1, 1, 1, 1)
    assert report.confusion == ((0, 0), (0, 2))


@pytest.mark.filterwarnings("error")
def test_averages_are_the_metrics_that_a_search_scores_by() -> None:
    random = np.random.default_rng(0)
    labels, predictions = random.integers(0, 7, 200), random.integers(0, 9, 200)
    report = split_report(labels, predictions, [f"class {i}" for i in range(10)])
    assert report.accuracy == METRICS["accuracy"](labels, predictions)
    assert report.macro_f1 == METRICS["macro_f1"](labels, predictions)
    assert report.balanced_accuracy == METRICS["balanced_accuracy"](labels, predictions)
    assert sum(map(sum, report.confusion)) == sum(score.support for score in report.classes) == report.images == 200


def test_table_of_a_report(report: SplitReport) -> None:
    head, cat, dog, fox, macro, accuracy = shown(split_tables(None, report)[0])
    assert " ".join(head) == "class precision % recall % F1 % images"
    assert cat == ["cat", "50.00", "75.00", "60.00", "4"]
    assert dog == ["dog", "50.00", "33.33", "40.00", "3"]
    assert fox == ["[red]fox", "0.00", "0.00", "0.00", "1"]  # a folder's name is no markup
    assert macro == ["macro", "average", "33.33", "36.11", "33.33", "8"]
    assert accuracy == ["accuracy", "50.00", "8"]


def test_table_of_two_reports_shows_the_change(report: SplitReport) -> None:
    better = split_report(indices("00001112"), indices("00001110"), CLASSES)
    _, cat, *_, macro, accuracy = shown(split_tables(report, better)[0])
    assert cat == ["cat", "80.00", "100.00", "60.00", "→", "88.89", "4"]
    assert macro[-4:] == ["33.33", "→", "62.96", "8"]
    assert accuracy == ["accuracy", "50.00", "→", "87.50", "8"]


def test_a_score_of_zero_before_is_shown(report: SplitReport) -> None:
    worst = split_report(indices("00001112"), indices("11110000"), CLASSES)
    *_, macro, accuracy = shown(split_tables(worst, report)[0])
    assert macro[-4:] == ["0.00", "→", "33.33", "8"]
    assert accuracy == ["accuracy", "0.00", "→", "50.00", "8"]


def test_confusion_matrix(report: SplitReport) -> None:
    *_, head, cat, dog, fox = shown(split_tables(None, report)[1])
    assert head == ["0", "1", "2"]
    assert cat == ["0", "cat", "3", "1", "·"]
    assert dog == ["1", "dog", "2", "1", "·"]
    assert fox == ["2", "[red]fox", "1", "·", "·"]


def test_confusion_of_many_classes_is_the_pairs_most_confused() -> None:
    """Class i of 25 has 30 images, i of them taken for class 0."""
    labels = np.repeat(np.arange(25), 30)
    predictions = labels.copy()
    for i in range(25):
        predictions[30 * i : 30 * i + i] = 0
    head, *pairs = shown(split_tables(None, split_report(labels, predictions, [f"c{i}" for i in range(25)]))[1])
    assert " ".join(head) == "true → predicted images of the class %"
    assert len(pairs) == 20
    assert pairs[0] == ["c24", "→", "c0", "24", "80.00"]
    assert pairs[-1] == ["c5", "→", "c0", "5", "16.67"]


def test_ten_classes_fit_a_narrow_terminal() -> None:
    labels = np.repeat(np.arange(10), 1000)
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    lines = shown(split_tables(None, split_report(labels, labels, names))[1], width=80)
    assert lines[2] == ["0", "airplane", "1000", *"·" * 9]
