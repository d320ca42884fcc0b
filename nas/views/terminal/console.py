"""Where people read: what is printed is text, never markup, since some of it comes from records and files of others."""

from __future__ import annotations

from rich.console import Console


def plain_console(stderr: bool = False) -> Console:
    """A console on standard output or error that shows texts as they are: `[/b]` is no markup, `threads:x` no picture."""
    return Console(stderr=stderr, emoji=False, markup=False)
