"""The head of the report: what was searched on what, what came out of it, and what it took."""

from __future__ import annotations

from collections import Counter

from nas.common.errors import named
from nas.common.text import capital, done_word, duration_text, plural, time_text
from nas.runs.front import primary_cost
from nas.runs.objectives import objective
from nas.runs.picks import score_loss
from nas.runs.record import Outcome, TrialRecord
from nas.runs.results import of_training
from nas.runs.trained import best_of
from nas.runs.words import closest_text
from nas.views.chance import chance_note
from nas.views.front_latency import crowded_text
from nas.views.report.cells import unbroken
from nas.views.report.findings import Findings
from nas.views.report.markup import Html, facts, join, tag
from nas.views.text import label


def headline(found: Findings) -> Html:
    """What was searched on what, what came out of it, and what it took."""
    settings, provenance = found.settings, found.provenance
    records = [record for record in found.recorded if record.imported_from is None]
    counts = Counter(record.outcome for record in records)
    trained = tag("small", f" of {settings.candidates:,}") if not counts[Outcome.STOPPED] else ""
    epochs = settings.evaluation.recipe.epochs
    tiles: list[tuple[str, object]] = [(capital(done_word(epochs)), join([f"{counts[Outcome.DONE]:,}", trained]))]
    for name, outcome in (("Stopped early", Outcome.STOPPED), ("Skipped", Outcome.SKIPPED)):
        if counts[outcome]:
            tiles.append((name, f"{counts[outcome]:,}"))
    if found.again:
        tiles.append(("Trained again", f"{len(found.again):,}"))
    for outcome in (Outcome.REJECTED, Outcome.REPEAT, Outcome.FAILED, Outcome.LOST):
        tiles.append((outcome.value.capitalize(), f"{counts[outcome]:,}"))
    if imported := len(found.recorded) - len(records):
        tiles.append(("From earlier runs", f"{imported:,}"))
    if records:
        tiles.append(("Wall time", duration_text(found.seconds or 0.0)))
        tiles.append(("Device time", duration_text(sum(record.evaluation.seconds for record in records))))
    classes = f", {plural(len(provenance.classes), 'class', 'classes')}" if provenance.classes else ""
    data = (
        f"Data {settings.data}: {provenance.train_images:,} training and {provenance.validation_images:,} validation "
        f"images{classes}"
    )
    if not epochs:
        data += f". Candidates scored without fine-tuning, with the weights of {settings.evaluation.init}"
    crowded = crowded_text(found.recorded, found.in_turn)
    chance = named(chance_note(settings, provenance, records) or "")
    seen = provenance.seen_images
    return tag(
        "header",
        tag("p", f"Architecture search · {time_text(provenance.created)}", class_="over"),
        tag("h1", f"{settings.space.name} on {found.device}"),
        tag("p", data, class_="soft"),
        *(tag("p", sentence, class_="lead") for sentence in _answers(found)),
        tag("p", crowded, class_="note") if crowded else "",
        tag("p", f"Warning: {chance}.", class_="note") if chance else "",
        tag("p", f"Warning: {seen}: scores are too good.", class_="note") if seen else "",
        facts(tiles, class_="tiles"),
    )


def _answers(found: Findings) -> list[str]:
    """What came out of it, the latest first, each with whose weights and of which images its scores are."""
    if not found.trainings:
        return [_answer(found)]
    epochs = found.settings.evaluation.recipe.epochs
    weights = "the weights of its proxy training" if epochs else "weights that it did not train"
    return [_in_full(found), f"The search, with {weights}, on the validation images: {_answer(found)}"]


def _in_full(found: Findings) -> str:
    """What the candidate got that was trained in full last."""
    own = [record for record in found.trainings if record.digest == found.trainings[-1].digest]
    best = best_of(own)
    assert best is not None  # those that are found came to their end
    result = of_training(best, found.settings.evaluation, found.provenance.validation_images)
    others = len({record.digest for record in found.trainings}) - 1
    more = f" {plural(others, 'other candidate')} below." if others else ""
    return f"Trained in full: {best.digest}, {result.score_line}, {result.latency_line} ({result.weights}).{more}"


def _answer(found: Findings) -> str:
    """The result of the search in one sentence."""
    if not found.front:
        closest = closest_text(found.records)
        return (
            f"No candidate is trained yet: {closest}."
            if closest
            else "No candidate is trained yet. Write the report again when one is."
        )
    cost, done = primary_cost(found.settings.objectives), done_word(found.settings.evaluation.recipe.epochs)

    def at(record: TrialRecord) -> str:
        value = objective(cost).show(record.objectives[cost])
        value += "" if cost == "latency" else f" {label(cost)}"
        return f"{unbroken(found.score(record))} at {unbroken(value)}"

    if len(found.front) == 1:
        best = found.front[0]
        lead = (
            f"One candidate is {done}"
            if len(found.scored) == 1
            else f"One candidate of {len(found.scored):,} beats all"
        )
        return f"{lead}: {best.digest}, {at(best)}."
    best = min(found.front, key=lambda record: score_loss(record, found.settings.objectives))
    middle = next(record for record in found.front if "knee" in found.names.get(record.digest, ()))
    return (
        f"{len(found.front):,} of {len(found.scored):,} {done} candidates are on the Pareto front, from "
        f"{at(found.front[0])} to {at(best)}. The knee, {middle.digest}, has {at(middle)}."
    )
