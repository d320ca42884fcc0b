"""Classification: one class an image. Accuracy, macro F1, balanced accuracy, or a function of the user's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nas.common.errors import InputError
from nas.common.plugins import load_function
from nas.common.text import plural, quoted
from nas.tasks.base import About, Guess, Score, Task
from nas.tasks.classification_metrics import ACCURACY, METRICS, by_guessing
from nas.tasks.classification_predict import SOURCE
from nas.tasks.classification_report import SplitReport, split_report

if TYPE_CHECKING:
    import torch

    from nas.data.image_data import ImageData
    from nas.tasks.classification_loss import CrossEntropy
    from nas.tasks.classification_metrics import Labels

LIKELIEST = 5
"""Classes among which the right one has to be for the score `top5`."""


@dataclass(frozen=True)
class _OfTheUsers:
    """A metric `module:function`, which is loaded when it is first needed."""

    name: str

    def load(self) -> Callable[..., Any]:
        return load_function("metric", self.name)

    def __call__(self, labels: Labels, predictions: Labels) -> Any:
        return self.load()(labels, predictions)


class Classification(Task):
    """Targets are labels (N,) int64, indices of classes; networks give logits (N, classes)."""

    name = "classification"
    score = ACCURACY

    def metric(self, name: str) -> Score:
        """One of `METRICS`, or `module:function` taking (labels, predictions), both (N,) int64; higher is better."""
        if name in METRICS:
            return METRICS[name]
        if not name.partition(":")[2]:
            raise InputError(f"unknown metric {quoted(name)}: use one of {', '.join(METRICS)}, or module:function")
        return Score(name, _OfTheUsers(name))

    def guess(self, classes: Sequence[str], images: int) -> Guess:
        """By the balanced accuracy: to guess the most frequent class does not raise it."""
        best = by_guessing(len(classes), images)
        return Guess(METRICS["balanced_accuracy"], best, f"at most {100 * best:.1f} % with {len(classes)} classes")

    def title(self, name: str) -> str:
        return {"top5": "top-5", "macro_f1": "macro F1"}.get(name, super().title(name))

    def load_metric(self, name: str) -> Score:
        score = self.metric(name)
        if isinstance(score.compute, _OfTheUsers):
            score.compute.load()
        return score

    def read(self, data: str, *, channels: int, size: int, split_seed: int) -> ImageData:
        from nas.data.sets import load_data

        return load_data(data, channels=channels, size=size, split_seed=split_seed)

    def outputs(self, classes: Sequence[str]) -> int:
        return len(classes)

    def loss(self, targets: torch.Tensor, classes: Sequence[str], smoothing: float) -> CrossEntropy:
        from nas.tasks.classification_loss import CrossEntropy

        return CrossEntropy(targets, len(classes), smoothing)

    def decode(self, raw: torch.Tensor) -> Labels:
        """The likeliest class of each image (N,)."""
        return raw.argmax(1).cpu().numpy()

    def scores(self, raw: torch.Tensor, predictions: Labels, targets: Labels) -> dict[str, float]:
        likeliest = raw.topk(min(LIKELIEST, raw.shape[1]), dim=1).indices.cpu().numpy()
        top5 = float((likeliest == targets[:, None]).any(1).mean())
        figures = {name: score(targets, predictions) for name, score in METRICS.items()}
        return {ACCURACY.name: figures.pop(ACCURACY.name), "top5": top5, **figures}

    def caption(self, found: Any, classes: Sequence[str]) -> str:
        return classes[int(found)]

    def predict_source(self) -> str:
        return SOURCE

    def about(self, classes: Sequence[str]) -> About:
        many = plural(len(classes), "class", "classes")
        limit = f"Any image gets one of the {many} above, also one that shows none of them; probabilities are not calibrated."
        return About(f"An image classifier of {many}", "a logit for each class", (limit,))

    def report(  # type: ignore[override]  # one that files had before there were tasks
        self, raw: torch.Tensor, predictions: Labels, targets: Labels, classes: Sequence[str]
    ) -> SplitReport:
        return split_report(targets, predictions, classes)


CLASSIFICATION = Classification()
