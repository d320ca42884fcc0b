"""Results as Markdown: means and deviations by method, and paired differences with their intervals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from methods import OURS
from scipy.stats import t

Key = tuple[str, bool]


def print_tables(lines: Sequence[dict[str, Any]]) -> None:
    """A table of scores, and one of the differences from the best peer, for each problem and number of workers.

    Behind a difference stand the peer and the number of seeds. A seed that was run twice, to different numbers of trials,
    counts once at each.
    """
    groups: dict[tuple[str, int], dict[Key, dict[int, dict[str, Any]]]] = defaultdict(lambda: defaultdict(dict))
    for line in lines:
        runs = groups[line["problem"], line["workers"]][line["method"], line["cache"]]
        known = runs.get(line["seed"], {"scores": {}})
        runs[line["seed"]] = known | line | {"scores": line["scores"] | known["scores"]}
    for (problem, workers), methods in groups.items():
        counts = sorted({int(n) for runs in methods.values() for line in runs.values() for n in line["scores"]})
        boxes = list(next(iter(next(iter(methods.values())).values()))["scores"][str(counts[0])])
        print(f"\n### {problem}, {workers} worker{'s' if workers > 1 else ''}\n")
        print(f"Mean ± standard deviation of {boxes[0]}, and mean of ({boxes[1]}), in percent.\n")
        print(f"| method | seeds | {' | '.join(f'N={n}' for n in counts)} | CPU ms | repeats |")
        print("|---|---|" + "---|" * (len(counts) + 2))
        for (method, cache), runs in methods.items():
            cells = []
            for n in counts:
                scores = [line["scores"][str(n)] for line in runs.values() if str(n) in line["scores"]]
                if not scores:
                    cells.append("")
                    continue
                wide, knee = (np.array([score[box] for score in scores]) for box in boxes[:2])
                cells.append(f"{wide.mean():.1f} ± {wide.std(ddof=min(1, len(wide) - 1)):.1f} ({knee.mean():.1f})")
            cpu = np.mean([line["cpu_ms"] for line in runs.values()])
            repeats = 100 * np.mean([line["repeats"] for line in runs.values()])
            name = method if cache else f"{method}, no cache"
            print(f"| {name} | {len(runs)} | {' | '.join(cells)} | {cpu:.1f} | {repeats:.0f} % |")
        _print_differences(methods, counts, boxes)


def _print_differences(
    methods: dict[Key, dict[int, dict[str, Any]]], counts: Sequence[int], boxes: Sequence[str]
) -> None:
    print("\n| paired difference from the best peer | " + " | ".join(f"N={n}" for n in counts) + " |")
    print("|---|" + "---|" * len(counts))
    for (own, cache), mine in methods.items():
        if own not in OURS:
            continue
        for box in boxes:
            cells = []
            for n in counts:
                peers = {
                    key: {s: line["scores"][str(n)][box] for s, line in runs.items() if str(n) in line["scores"]}
                    for key, runs in methods.items()
                    if key[0] not in OURS and key[1] == cache
                }
                peers = {key: scores for key, scores in peers.items() if len(scores) > 1}
                scores = {s: line["scores"][str(n)][box] for s, line in mine.items() if str(n) in line["scores"]}
                if not peers or len(scores) < 2:
                    cells.append("")
                    continue
                best = max(peers, key=lambda key: float(np.mean(list(peers[key].values()))))
                gaps = np.array([scores[s] - peers[best][s] for s in scores if s in peers[best]])
                if len(gaps) < 2:
                    cells.append("")
                    continue
                half = t.ppf(0.975, len(gaps) - 1) * gaps.std(ddof=1) / np.sqrt(len(gaps))
                cells.append(f"{gaps.mean():+.1f} ± {half:.1f} ({best[0]}, {len(gaps)})")
            print(f"| {own}{'' if cache else ', no cache'}, {box} | {' | '.join(cells)} |")
