"""Flags and verbs that once were called otherwise: still taken, and told nowhere."""

from __future__ import annotations

from collections.abc import Sequence

FLAGS = {"--mirror": "--replica"}


def as_now(arguments: Sequence[str]) -> list[str]:
    """Arguments with today's names of flags; what follows `--` is left as it is.

    >>> as_now(["search", "--mirror=s3://bucket/run"])
    ['search', '--replica=s3://bucket/run']
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return [*map(_flag, arguments[:end]), *arguments[end:]]


def _flag(argument: str) -> str:
    name, equals, value = argument.partition("=")
    return FLAGS.get(name, name) + equals + value
