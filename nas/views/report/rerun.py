"""The report's sections on how to run the search again and how to go on: settings, versions, commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from nas.common.text import capital, command_text, duration_text, plural, resume_line, time_text
from nas.models.licences import NOT_KNOWN
from nas.models.weights import licence_of
from nas.runs.picks import grammar
from nas.runs.run_file import Change, Provenance
from nas.runs.settings import SearchSettings
from nas.runs.words import term_words
from nas.views.report.findings import Findings
from nas.views.report.markup import Html, facts, join, tag
from nas.views.text import NOTHING

_WORDS = {"macs": "MACs", "cpus": "CPUs", "gpus": "GPUs", "ms": "(ms)", "ema": "EMA"}


def settings_list(found: Findings) -> Html:
    """Everything needed to run the search again."""
    groups = [*settings_groups(found.settings, found.provenance), *change_groups(found.changes)]
    return join(part for title, rows in groups for part in (tag("h3", title), facts(rows)))


def settings_groups(settings: SearchSettings, provenance: Provenance) -> list[tuple[str, list[tuple[str, str]]]]:
    """The same as text: names and values, under titles."""
    search = [
        ("Space", _space_size(settings)),
        ("Objectives", ", ".join(settings.objectives)),
        ("Task", settings.evaluation.task),
        ("Metric", settings.evaluation.metric),
        ("Sampler", settings.sampler),
        ("Seed", str(settings.seed)),
        ("Split seed", str(settings.split_seed)),
        ("Initial weights may have seen images that score", "yes" if settings.allow_seen_images else "no"),
        ("Trials", f"{settings.trials:,}"),
        ("Share for confirmation", f"{100 * settings.confirm:g} %"),
        ("Time budget", "none" if settings.time_budget_s is None else duration_text(settings.time_budget_s)),
        ("Failures allowed", str(settings.max_failures)),
        ("Tried first", ", ".join(settings.enqueue) or "none"),
        ("Warm start from", ", ".join(settings.warm_start) or "none"),
        *_fields(asdict(settings.evaluation.budgets), none="none"),
        *(
            (f"Most on target {t.name}", f"{t.max_ms:g} ms")
            for t in settings.evaluation.targets
            if t.max_ms is not None
        ),
        *_fields(asdict(settings.resources)),
    ]
    init = settings.evaluation.init
    recipe = [
        ("Initial weights", init),
        ("Licence of initial weights", provenance.init_licence or licence_of(init)),
        ("Device", settings.device),
        *_fields(asdict(settings.evaluation.recipe)),
    ]
    where = [
        ("Started", time_text(provenance.created)),
        ("Host", provenance.host),
        ("Hardware", " and ".join(dict.fromkeys((provenance.hardware, provenance.trained_on)))),
        ("CPU cores", str(provenance.cpu_cores)),
        ("Data fingerprint", provenance.data_fingerprint),
        ("Licence of the data", provenance.data_licence or NOT_KNOWN),
        ("Unreadable images", f"{len(provenance.corrupt_files):,}, left out" if provenance.corrupt_files else "none"),
        ("Remarks on the data", "; ".join(provenance.data_remarks) or "none"),
        ("Git commit", provenance.git_commit or "not a checkout"),
        *sorted(provenance.versions.items()),
    ]
    return [("Search", search), ("Fine-tune", recipe), ("Machine and versions", where)]


def change_groups(changes: Sequence[Change]) -> list[tuple[str, list[tuple[str, str]]]]:
    """What held before a search was resumed with other settings, and for how many of its trials, as text under a title."""
    rows = [
        (f"{capital(what)}, the first {plural(change.trials, 'trial')}", value)
        for change in changes
        for what, value in (term_words(term, before) for term, before in change.before.items())
    ]
    return [("Before it was resumed otherwise", rows)] if rows else []


def commands(found: Findings) -> Html:
    """How to run it again, go on with it, and take a network out of it."""
    parts = [tag("h3", "Run it again"), tag("pre", found.provenance.command)]
    if sum(record.counts for record in found.recorded) < found.settings.candidates:
        parts += [tag("h3", "Go on with it"), tag("pre", resume_line(found.path))]
    if found.front:
        formats = "--format pt2, onnx or torchscript exports it for a runtime."
        parts += [
            tag("h3", "Export a network"),
            tag("pre", command_text("export", found.path, "--pick", "knee", "--to", "model")),
            tag("p", f"--pick also takes {grammar(found.objective)}. {formats}", class_="soft"),
            tag("h3", "Train a network in full"),
            tag("pre", command_text("train", found.path, "--pick", "knee")),
        ]
    return join(parts)


def _fields(values: Mapping[str, Any], none: str = NOTHING) -> list[tuple[str, str]]:
    """The fields of a settings value, so that a new one never goes missing here."""
    words = {name: " ".join(_WORDS.get(word, word) for word in name.split("_")) for name in values}
    return [(capital(words[name]), _shown(value, none)) for name, value in values.items()]


def _shown(value: object, none: str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return f"{value:,}"
    return none if value is None or value == {} else str(value)


def _space_size(settings: SearchSettings) -> str:
    size, parameters = settings.space.size, len(settings.space.parameters)
    mantissa, exponent = f"{size:.1e}".split("e")
    raised = str(int(exponent)).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    count = f"{size:,}" if size < 1e6 else f"{mantissa} × 10{raised}"
    return f"{settings.space.name}, {count} networks, {parameters} parameters"
