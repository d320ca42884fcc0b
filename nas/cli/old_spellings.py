"""Flags and verbs that once were called otherwise: still taken, and told nowhere."""

from __future__ import annotations

from collections.abc import Sequence

VERBS = {"audit": "fidelity"}
FLAGS = {
    "--mirror": "--replica",
    "--skip-hopeless": "--skip-dominated",
    "--no-skip-hopeless": "--no-skip-dominated",
}


def as_now(arguments: Sequence[str]) -> list[str]:
    """Arguments with today's names of the verb, which comes first, and of flags; what follows `--` is left as it is.

    >>> as_now(["audit", "run"]), as_now(["search", "--mirror=s3://bucket/run"])
    (['fidelity', 'run'], ['search', '--replica=s3://bucket/run'])
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    words = [*map(_flag, arguments[:end]), *arguments[end:]]
    return [VERBS.get(words[0], words[0]), *words[1:]] if words else words


def _flag(argument: str) -> str:
    name, equals, value = argument.partition("=")
    return FLAGS.get(name, name) + equals + value
