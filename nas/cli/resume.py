"""`nas search --resume DIR`: the flags that a run may be given again, and the search that all others ask for in its place."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from nas.cli.options import absolute_init, latency_device, parse_amounts, parse_protocol, parse_target
from nas.common.errors import InputError
from nas.runs.replica import is_uri
from nas.runs.settings import LatencyTarget, SearchSettings
from nas.runs.store import RunDirectory
from nas.search.renewal import Renewal
from nas.spaces.files import load_space
from nas.spaces.known import tried_first
from nas.training.recipe import Recipe, read_recipe

_RENEWED = {
    "trials": "trials",
    "time_budget": "time_budget_s",
    "confirm": "confirm",
    "max_failures": "max_failures",
    "trial_timeout": "trial_timeout_s",
    "max_concurrent": "max_concurrent",
    "max_macs": "max_macs",
    "max_params": "max_params",
    "max_latency": "max_latency_ms",
}
"""Flags that a run may be given again, and what they are called in `Renewal`."""
_OF_THE_SESSION = ("resume", "address", "log", "replica", "storage")
"""Flags that are no settings of the search, or that `resume_search` takes by themselves."""


def renewal(context: typer.Context, run: RunDirectory) -> Renewal:
    """What the command line gives the run again.

    Raises `InputError`, with the search to start in its place, for what cannot change; what the run has already may be given.
    """
    given = _given(context)
    fixed = [name for name in given if name not in (*_RENEWED, *_OF_THE_SESSION, "target")]
    if "out" in fixed and is_uri(given["resume"]):
        fixed.remove("out")  # where the replica was copied to
    other = [name for name in fixed if not _is_as_before(name, given[name], run)]
    limits: dict[str, float] = {}
    for text in given.get("target", ()):
        target = _same_target(text, run.settings)
        if target is None:
            other.append("target")
        elif target.max_ms is not None:
            limits[target.name] = target.max_ms
    if other:
        flags = " and ".join(_flag(context, name) for name in dict.fromkeys(other))
        may = ", ".join(_flag(context, name) for name in _RENEWED)
        raise InputError(
            f"{flags} cannot change in a search that is resumed, which may be given {may} and limits of targets again; start "
            f"one that takes over the trials which can be compared: {warm_start_command(context, run)}"
        )
    return Renewal(targets=limits, **{_RENEWED[name]: value for name, value in given.items() if name in _RENEWED})


def warm_start_command(context: typer.Context, run: RunDirectory) -> str:
    """The search that the command line asks for in place of the run, with the run's trials: a line that can be pasted."""
    given = _given(context)
    values: dict[str, Any] = {**_recorded(context, run), **given}
    left_out = {"resume", "replica", "storage", "warm_start"} | ({"out"} - given.keys())
    words = ["nas", "search"]
    for parameter in context.command.params:
        name = parameter.name or ""
        if name not in values or name in left_out:
            continue
        for value in values[name] if isinstance(values[name], list | tuple) else [values[name]]:
            text = _text(value)
            if parameter.param_type_name == "argument":
                words.insert(2, text)
            elif isinstance(value, bool):
                words += [_flag(context, name)] if value else []
            else:
                words += [_flag(context, name), text]
    for earlier in (*given.get("warm_start", ()), run.path):
        words += ["--warm-start", str(earlier)]
    return shlex.join(words)


def _given(context: typer.Context) -> dict[str, Any]:
    """The parameters that the command line gives, by name."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {
        name: context.params[name]
        for name, source in sources.items()
        if source is not None and source.name == "COMMANDLINE"
    }


def _recorded(context: typer.Context, run: RunDirectory) -> dict[str, Any]:
    """The parameters that the run was started with, as texts by name; space and data where that was no command."""
    plain = {"space": run.settings.space.name, "data": run.settings.data}
    try:
        program, command, *arguments = shlex.split(run.provenance.command)
        if (Path(program).name, command) != ("nas", "search"):
            return plain
        parser = context.command.make_parser(context)
        found, _, _ = parser.parse_args(args=arguments)
    except Exception:  # of another version, or of the Python interface
        return plain
    texts = {name: value for name, value in found.items() if isinstance(value, str | bool | list | tuple)}
    return {"space": run.settings.space.name} | texts  # one that was chosen by the images may be another for other data


def _flag(context: typer.Context, name: str) -> str:
    parameter = next(each for each in context.command.params if each.name == name)
    if parameter.param_type_name == "argument":
        return name.upper()
    return next(option for option in parameter.opts if option.startswith("--"))


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _is_as_before(name: str, value: Any, run: RunDirectory) -> bool:
    """Whether a flag that cannot change asks for what the run has."""
    settings = run.settings
    evaluation, resources = settings.evaluation, settings.resources
    recipe = evaluation.recipe
    match name:
        case "space":
            return load_space(value) == settings.space
        case "data":
            return value == settings.data or os.path.realpath(value) == os.path.realpath(settings.data)
        case "objectives":
            return tuple(each.strip() for each in value.split(",")) == settings.objectives
        case "metric" | "task":
            return bool(value == getattr(evaluation, name))
        case "init":
            return absolute_init(value) == evaluation.init
        case "device":
            return value == "auto" or value.partition(":")[0] in settings.worker_devices
        case "train_device":
            return value == "auto" or bool(value == settings.device)
        case "latency":
            own = evaluation.protocol
            device = latency_device(value) or own.device
            return device in ("auto", own.device) and parse_protocol(value, own.device, own) == own
        case "epochs" | "batch_size" | "learning_rate":
            return bool(value == getattr(recipe, name))
        case "recipe_file":
            return _is_trained_alike(read_recipe(recipe, value), recipe)
        case "assignments":
            return _is_trained_alike(read_recipe(recipe, None, value), recipe)
        case "enqueue":
            return set(tried_first(settings.space, value)) <= set(settings.enqueue)
        case "warm_start":
            return {str(Path(each).resolve()) for each in value} <= set(settings.warm_start)
        case "out":
            return Path(value).resolve() == run.path.resolve()
        case "cpus_per_trial":
            return bool(value == resources.cpus_per_trial)
        case "gpus_per_trial":
            return value in (0, resources.gpus_per_trial)
        case "accelerator":
            return bool(value == resources.accelerator)
        case "resource":
            return parse_amounts("--resource", "", value, ":") == resources.custom
    return bool(value == getattr(settings, name))


def _is_trained_alike(asked: Recipe, recipe: Recipe) -> bool:
    """Whether two recipes are one: the search has settled a precision of `auto`."""
    return (replace(asked, precision=recipe.precision) if asked.precision == "auto" else asked) == recipe


def _same_target(text: str, settings: SearchSettings) -> LatencyTarget | None:
    """A target of the run with the limit that is given; None where the run has no such target."""
    known: Mapping[str, LatencyTarget] = {target.name: target for target in settings.evaluation.targets}
    before = known.get(text.partition("=")[0].strip())
    if before is None:
        return None
    target = parse_target(text, settings.evaluation.protocol.device, before)
    return target if replace(target, max_ms=before.max_ms) == before else None
