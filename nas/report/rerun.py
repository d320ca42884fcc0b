"""The report's sections on how to run the search again and how to go on: settings, versions, commands."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from nas.picks import GRAMMAR
from nas.report.findings import Findings
from nas.report.markup import Html, facts, join, tag
from nas.settings import SearchSettings
from nas.wording import NOTHING, capital, duration_text, time_text

_WORDS = {"macs": "MACs", "cpus": "CPUs", "gpus": "GPUs", "ms": "(ms)", "ema": "EMA"}


def settings_list(found: Findings) -> Html:
    """Everything needed to run the search again."""
    settings, provenance = found.settings, found.provenance
    search = [
        (
            "Space",
            _space_size(settings),
        ),
        ("Objectives", ", ".join(settings.objectives)),
        ("Metric", found.metric),
        ("Sampler", settings.sampler),
        ("Seed", settings.seed),
        ("Split seed", settings.split_seed),
        ("Trials", f"{settings.trials:,}"),
        ("Share for confirmation", f"{100 * settings.confirm:g} %"),
        ("Time budget", "none" if settings.time_budget_s is None else duration_text(settings.time_budget_s)),
        ("Failures allowed", settings.max_failures),
        ("Tried first", ", ".join(settings.enqueue) or "none"),
        ("Warm start from", ", ".join(settings.warm_start) or "none"),
        *_fields(asdict(settings.evaluation.budgets), none="none"),
        *_fields(asdict(settings.resources)),
    ]
    recipe = [("Initial weights", settings.evaluation.init), *_fields(asdict(settings.evaluation.recipe))]
    where = [
        ("Started", time_text(provenance.created)),
        ("Host", provenance.host),
        ("Hardware", provenance.hardware),
        ("CPU cores", provenance.cpu_cores),
        ("Data fingerprint", tag("span", provenance.data_fingerprint, class_="code")),
        ("Unreadable images", f"{len(provenance.corrupt_files):,}, left out" if provenance.corrupt_files else "none"),
        ("Git commit", tag("span", provenance.git_commit or "not a checkout", class_="code")),
        *sorted(provenance.versions.items()),
    ]
    return join(
        [
            *(tag("h3", "Search"), facts(search)),
            *(tag("h3", "Fine-tune"), facts(recipe)),
            *(tag("h3", "Machine and versions"), facts(where)),
        ]
    )


def commands(found: Findings) -> Html:
    """How to run it again, go on with it, and take a network out of it."""
    folder = shlex.quote(str(found.path))
    parts = [tag("h3", "Run it again"), tag("pre", found.provenance.command)]
    if sum(record.counts for record in found.records) < found.settings.candidates:
        parts += [tag("h3", "Go on with it"), tag("pre", f"nas search --resume {folder}")]
    if found.front:
        formats = "--format pt2, onnx or torchscript exports it for a runtime."
        parts += [
            tag("h3", "Export a network"),
            tag("pre", f"nas export {folder} --pick knee --to model"),
            tag("p", f"--pick also takes {GRAMMAR}. {formats}", class_="soft"),
            tag("h3", "Train a network in full"),
            tag("pre", f"nas train {folder} --pick knee"),
        ]
    return join(parts)


def _fields(values: Mapping[str, Any], none: str = NOTHING) -> list[tuple[str, object]]:
    """The fields of a settings value, so that a new one never goes missing here."""
    words = {name: " ".join(_WORDS.get(word, word) for word in name.split("_")) for name in values}
    return [(capital(words[name]), _shown(value, none)) for name, value in values.items()]


def _shown(value: object, none: str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return f"{value:,}"
    return none if value is None or value == {} else str(value)


def _space_size(settings: SearchSettings) -> Html:
    size, parameters = settings.space.size, len(settings.space.parameters)
    mantissa, exponent = f"{size:.1e}".split("e")
    count = f"{size:,}" if size < 1e6 else join([f"{mantissa} × 10", tag("sup", int(exponent))])
    return join([settings.space.name, ", ", count, f" networks, {parameters} parameters"])
