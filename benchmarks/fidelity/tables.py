"""Results as Markdown: agreement with full trainings, what each kind of change does, fronts of equal device time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from published import PUBLISHED

from nas.common.pareto import hypervolume
from nas.workflows.fidelity.agreement import Interval, interval, rank_correlation, resamples

Row = dict[str, Any]
Key = tuple[str, int]


def read(files: Sequence[Path]) -> list[Row]:
    """The rows of files."""
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def print_tables(rows: Sequence[Row]) -> None:
    """All tables that the rows allow."""
    scored = [row for row in rows if "candidate" in row]
    by_key: dict[Key, dict[str, Row]] = {}
    for row in scored:
        by_key.setdefault((row["start"], row["epochs"]), {})[row["candidate"]] = row
    longest = max(epochs for _, epochs in by_key)
    references = [key for key in by_key if 2 * key[1] >= longest > 0]
    print(f"{scored[0]['machine']}, {scored[0]['date']} to {scored[-1]['date']}")
    for row in rows:
        if "supernet" in row:
            print(f"supernet, {row['supernet']}: {row['epochs']} epochs, {row['seconds']:.0f} s")
    _print_sharing(by_key)
    for reference in references:
        _print_agreement(by_key, reference)
        if reference[0] == PUBLISHED:
            _print_agreement(by_key, reference, above=0.9)
    for reference in references:
        _print_changes(by_key, reference)
    if references:
        _print_searches(rows, by_key, references[0])


def _print_sharing(by_key: dict[Key, dict[str, Row]]) -> None:
    """Mean test accuracy straight from supernets, each less the first, paired by candidate."""
    supernets = [key for key in by_key if key[0].startswith("elastic") and not key[1]]
    if len(supernets) < 2:
        return
    names = [name for name in by_key[supernets[0]] if all(name in by_key[key] for key in supernets)]
    tests = {key: np.array([100 * by_key[key][name]["test"] for name in names]) for key in supernets}
    print(f"\n### Ways to share weights, {len(names)} candidates\n")
    print(f"| not trained, from | mean of test images, % | less {supernets[0][0]} |\n|---|---|---|")
    for key, test in tests.items():
        less = test - tests[supernets[0]]
        bound = 1.96 * less.std(ddof=1) / len(less) ** 0.5
        print(f"| {key[0]} | {test.mean():.2f} | {less.mean():+.2f} ± {bound:.2f} |")


def _name(key: Key) -> str:
    return f"{key[0]}, {key[1]} epochs" if key[1] else f"{key[0]}, not trained"


def _print_agreement(by_key: dict[Key, dict[str, Row]], reference: Key, above: float = 0.0) -> None:
    """Of the candidates whose reference is above some accuracy."""
    full = {name: row for name, row in by_key[reference].items() if name.startswith("random") and row["test"] > above}
    brief = {key: rows for key, rows in by_key.items() if 2 * key[1] < reference[1]}
    names = [name for name in full if all(name in rows for rows in brief.values())]
    if len(names) < 8:
        return
    weights = resamples(len(names))
    truth = [full[name]["test"] for name in names]
    only = f" above {100 * above:.0f} %" if above else ""
    print(f"\n### Against {_name(reference)}, {len(names)} random candidates{only}\n")
    print("| scored by | Kendall's τ | τ less that of sliced | mean score, % | s a candidate |")
    print("|---|---|---|---|---|")
    sliced = next((key for key in brief if key[0] == "sliced" and 0 < key[1] < reference[1]), None)
    known = {
        _name(key): _tau([rows[n]["score"] for n in names], truth, weights)
        for key, rows in brief.items()
        if all(n in rows for n in names)
    }
    known["MACs alone"] = _tau([full[n]["macs"] for n in names], truth, weights)
    known["parameters alone"] = _tau([full[n]["params"] for n in names], truth, weights)
    rows_of = {_name(key): rows for key, rows in brief.items()}
    for name, tau in known.items():
        less = "" if sliced is None or name == _name(sliced) else _text(interval(tau - known[_name(sliced)]))
        rows = rows_of.get(name)
        mean = "" if rows is None else f"{100 * np.mean([rows[n]['score'] for n in names]):.1f}"
        seconds = "" if rows is None else f"{np.mean([rows[n]['seconds'] for n in names]):.1f}"
        print(f"| {name} | {_text(interval(tau))} | {less} | {mean} | {seconds} |")
    if reference[0] == PUBLISHED:
        one, others = zip(*((full[n]["tests"][0], sum(full[n]["tests"][1:])) for n in names), strict=True)
        print(
            f"| one of the published trainings, against the others | {_text(interval(_tau(one, others, weights)))} | | | |"
        )
    print(
        f"\nThe reference: {100 * np.mean(truth):.1f} % of test images on average ({100 * np.std(truth):.1f} between candidates)"
    )
    if reference[0] != PUBLISHED:
        print(f"{np.mean([full[n]['seconds'] for n in names]):.1f} s a candidate")


def _tau(a: Sequence[float], b: Sequence[float], weights: np.ndarray) -> np.ndarray:
    return rank_correlation("kendall", a, b, weights)


def _text(found: Interval) -> str:
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"


def _print_changes(by_key: dict[Key, dict[str, Row]], reference: Key) -> None:
    changes = [name for name in by_key[reference] if not name.startswith(("random", "search", "backbone"))]
    if not changes or "backbone" not in by_key[reference]:
        return
    print(f"\n### What one kind of change does to the backbone, beside {_name(reference)}\n")
    print("Points of accuracy gained or lost by the change, in brackets less what the full training says: the bias.\n")
    print(f"| scored by | {' | '.join(changes)} | mean of the bias |")
    print("|---|" + "---|" * (len(changes) + 1))
    true = {name: 100 * (by_key[reference][name]["test"] - by_key[reference]["backbone"]["test"]) for name in changes}
    print(f"| {_name(reference)} | {' | '.join(f'{true[name]:+.1f}' for name in changes)} | |")
    for key, rows in by_key.items():
        if key == reference or not all(name in rows for name in (*changes, "backbone")):
            continue
        gained = {name: 100 * (rows[name]["score"] - rows["backbone"]["score"]) for name in changes}
        cells = [f"{gained[name]:+.1f} ({gained[name] - true[name]:+.1f})" for name in changes]
        bias = np.mean([gained[name] - true[name] for name in changes])
        print(f"| {_name(key)} | {' | '.join(cells)} | {bias:+.1f} |")


def _print_searches(rows: Sequence[Row], by_key: dict[Key, dict[str, Row]], reference: Key) -> None:
    searches = [row for row in rows if "search" in row]
    truth = by_key[reference]
    if not searches:
        return
    print(f"\n### Random searches of equal device time, their fronts trained in full ({_name(reference)})\n")
    known = [truth[name] for row in searches for name in row["front"] if name in truth]
    most, least = max(row["macs"] for row in known), min(row["test"] for row in known)
    print(
        f"Hypervolume in the box of {most / 1e6:.1f} M MACs and {100 * least:.1f} % accuracy, of those two scaled to 0 to 1.\n"
    )
    print("| search | device time, s | candidates seen | on its front | hypervolume of the front, in full |")
    print("|---|---|---|---|---|")
    best = max(row["test"] for row in known)
    for row in searches:
        members = [truth[name] for name in row["front"] if name in truth]
        losses = np.array([[one["macs"] / most, (best - one["test"]) / (best - least)] for one in members])
        volume = hypervolume(losses, np.ones(2))
        missing = len(row["front"]) - len(members)
        note = f", {missing} not trained yet" if missing else ""
        print(
            f"| {_name((row['search'], row['epochs']))} | {row['seconds']:.0f} | {row['seen']} | {len(members)}{note} | {volume:.4f} |"
        )
