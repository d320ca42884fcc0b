"""What a soak saw, in tables, and whether memory and open files are flat."""

from __future__ import annotations

import json
import statistics
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

WARM_S, LEAST_S = 120.0, 600.0
"""A process's first two minutes are not judged, and none is where samples span less than ten minutes."""
MB_A_MINUTE, MB_A_RECORD, FILES_A_MINUTE = 0.5, 0.1, 0.3
"""What passes for flat: growth within processes, by least squares; of those that hold all records so much a record more."""
HOLDING = ("driver", "page")
KINDS = ("driver", "worker", "keeper", "page")

Row = dict[str, Any]


def read(out: Path, name: str) -> list[Row]:
    """The lines of a file; none where it is not there."""
    path = out / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def slope(samples: list[Row], key: str) -> float:
    """Growth a minute within processes: one line's slope for all, each process with a level of its own."""
    by_process = defaultdict(list)
    for row in samples:
        if row["age_s"] >= WARM_S:
            by_process[row["pid"]].append((row["age_s"] / 60, row[key]))
    above = below = 0.0
    for points in by_process.values():
        x0, y0 = (statistics.fmean(values) for values in zip(*points, strict=True))
        above += sum((x - x0) * (y - y0) for x, y in points)
        below += sum((x - x0) ** 2 for x, _ in points)
    return above / below if below else 0.0


def judged(out: Path) -> list[str]:
    """What is not flat."""
    samples, problems = read(out, "samples.jsonl"), []
    if not samples or samples[-1]["time"] - samples[0]["time"] < LEAST_S:
        return []
    for kind in KINDS:
        rows = [row for row in samples if row["kind"] == kind]
        limit = MB_A_MINUTE + (MB_A_RECORD * _records_a_minute(out) if kind in HOLDING else 0.0)
        for key, most in (("own_mb", limit), ("files", FILES_A_MINUTE)):
            if (found := slope(rows, key)) > most:
                problems.append(f"{key} of {kind} grows by {found:.2f} a minute, over {most:.2f}")
    return problems


def _records_a_minute(out: Path) -> float:
    """Candidates that were done, by the events: the records are copied at the very end."""
    events = read(out, "events.jsonl")
    return 60 * events[-1]["done"] / max(events[-1]["at_s"], 1.0) if events else 0.0


def print_tables(out: Path) -> None:
    """All tables, as Markdown."""
    events = read(out, "events.jsonl")
    _print(
        "What happened",
        ["event", "times"],
        [[what, count] for what, count in Counter(e["what"] for e in events).items()],
    )
    ends = Counter((e["code"], e.get("why", e.get("after"))) for e in events if e["what"] == "driver ended")
    _print("Ends of the driver", ["exit code", "why", "times"], [[*key, count] for key, count in ends.items()])
    trials = (
        [_parsed(line) for line in (out / "trials.jsonl").read_text().splitlines()]
        if (out / "trials.jsonl").exists()
        else []
    )
    outcomes = Counter(row["evaluation"]["outcome"] if row else "torn line" for row in trials)
    _print("Trials", ["outcome", "records"], [[*each] for each in outcomes.items()])
    _print_processes(read(out, "samples.jsonl"))
    _print_answers(out)
    broken = [e["problem"] for e in events if e["what"] == "BROKEN"]
    print(f"\nInvariants broken: {len(broken)}")
    for problem, count in Counter(broken).items():
        print(f"- {count} x {problem}")


def _print_processes(samples: list[Row]) -> None:
    if not samples:
        return
    first, last = samples[0]["time"], samples[-1]["time"]
    quarter = (last - first) / 4
    rows = []
    for kind in (*KINDS, "other"):
        of_kind = [row for row in samples if row["kind"] == kind]
        if not of_kind:
            continue
        early = [row for row in of_kind if row["time"] <= first + quarter]
        late = [row for row in of_kind if row["time"] >= last - quarter]
        rows.append(
            [
                kind,
                len({row["pid"] for row in of_kind}),
                *(_median(part, key) for key in ("own_mb", "files") for part in (early, late)),
                *(f"{slope(of_kind, key):+.2f}" for key in ("own_mb", "files")),
            ]
        )
    head = [
        "process",
        "processes",
        "own MiB, first quarter",
        "last",
        "open files, first quarter",
        "last",
        "MiB a minute",
        "files a minute",
    ]
    _print("Memory and open files (medians; growth within processes after their first two minutes)", head, rows)
    per_time = Counter(round(row["time"]) // 20 for row in samples if row["kind"] == "other")
    counts = [count for _, count in sorted(per_time.items())]
    print(
        f"\nOther processes of Ray and nas at a time: {counts[0]} at first, {max(counts)} at most, {counts[-1]} at last"
    )


def _print_answers(out: Path) -> None:
    rows = []
    by_what = defaultdict(list)
    for row in read(out, "answers.jsonl"):
        by_what["page: a look for what is new" if row["what"] == "look" else "page: what it shows"].append(row)
    for row in read(out, "status.jsonl"):
        by_what["nas status"].append(row | {"status": 200 if row["code"] == 0 else 0})
    for what, answers in by_what.items():
        seconds = sorted(row["seconds"] for row in answers)
        failed = sum(row["status"] not in (200, 204) for row in answers)
        at = [seconds[min(len(seconds) - 1, int(len(seconds) * share))] for share in (0.5, 0.99)]
        rows.append([what, len(answers), failed, *(f"{each:.3f}" for each in at), f"{seconds[-1]:.3f}"])
    _print("Answers", ["of", "answers", "failed", "p50 s", "p99 s", "most s"], rows)


def _median(rows: list[Row], key: str) -> str:
    return f"{statistics.median(row[key] for row in rows):.0f}" if rows else "-"


def _parsed(line: str) -> Row | None:
    try:
        return json.loads(line)  # type: ignore[no-any-return]
    except ValueError:
        return None


def _print(title: str, head: list[str], rows: list[list[Any]]) -> None:
    print(f"\n{title}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")
