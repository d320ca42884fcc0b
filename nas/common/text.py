"""Values in the words and units that figures and tables share. Plain text: nothing here is escaped."""

from __future__ import annotations

import math
import re
import reprlib
import shlex
import statistics
import time
from collections.abc import Sequence

CUT_OFF = "cut off by the time budget"
"""Begins the reason of a training that was."""


def scale_of(unit: str) -> float:
    """What a value is multiplied by where its unit stands beside it: 100 for a share of 1 in percent."""
    return 100.0 if unit == "%" else 1.0


def amount_text(value: float, error: float | None = None, unit: str = "%") -> str:
    """A value with its unit, with its standard error where there is one; one of the unit % is a share of 1."""
    scale, places, of_error = scale_of(unit), *(("{:.2f}", " ± {:.2f}") if unit == "%" else ("{:.4g}", " ± {:.2g}"))
    shown = places.format(scale * value) + ("" if error is None else of_error.format(scale * error))
    return f"{shown} {unit}".rstrip()


def brief_text(value: float, unit: str = "%") -> str:
    """A value in a few characters, with its unit."""
    return f"{100 * value:.1f} %" if unit == "%" else amount_text(value, unit=unit)


def spread_text(values: Sequence[float], unit: str = "%") -> str:
    """The mean of values with their unit, with their standard deviation where there are several."""
    return amount_text(statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None, unit)


def gain_text(gain: float, unit: str = "%") -> str:
    """By how much a value grew: a share of 1 in points, all else in its unit."""
    return f"{100 * gain:+.2f} points" if unit == "%" else f"{gain:+.3g} {unit}".rstrip()


LONGEST_S = 36_500 * 86_400
"""Seconds of the longest duration that is taken: a century."""


def duration_text(seconds: float) -> str:
    """Seconds as the two largest of days, hours, minutes and seconds."""
    if not math.isfinite(seconds):
        return "not known"
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    rest, parts = round(seconds), []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        parts.append((count, unit))
    first = next(index for index, (count, _) in enumerate(parts) if count)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2] if count)


def time_text(utc: float) -> str:
    """A moment, given in UTC seconds since the epoch; one that no calendar has is not known."""
    try:
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(utc))
    except (OverflowError, ValueError, OSError):
        return "not known"


def plural(count: int, singular: str, several: str | None = None) -> str:
    """The count with its noun."""
    return f"{count:,} {singular if count == 1 else several or singular + 's'}"


def count_text(count: int) -> str:
    """A number of things: with thousands separators below a million, beyond that to two digits, as 9.5e+07."""
    return f"{count:,}" if count < 1_000_000 else f"{count:.1e}"


def command_text(*arguments: object) -> str:
    """A command of nas as a line that can be pasted into a shell."""
    return shlex.join(["nas", *map(str, arguments)])


def resume_line(path: object, address: str | None = None) -> str:
    """The command that goes on with the search of a run directory, on the Ray cluster of an address if one is given."""
    return command_text("search", "--resume", path, *(["--address", address] if address else []))


def ms_text(ms: float) -> str:
    """Milliseconds without their unit: three decimals, fewer from 10 ms on, where they would say nothing."""
    return f"{ms:.{3 if ms < 10 else 2 if ms < 100 else 1 if ms < 1000 else 0}f}"


def done_word(epochs: int) -> str:
    """What a candidate is called that came to the end of a proxy training of so many epochs, or was scored without one."""
    return "trained" if epochs else "scored"


def capital(text: str) -> str:
    """The text with a large first letter."""
    return text[:1].upper() + text[1:]


def listed(texts: Sequence[str], most: int) -> str:
    """The first few of some texts, with commas between, and a sign where there are more."""
    return ", ".join(texts[:most]) + (", …" if len(texts) > most else "")


_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Signs that a terminal obeys, that end a line, or that turn the direction of writing."""


def without_controls(text: str) -> str:
    """A text of somebody else's, in which signs that a terminal obeys are written out: `\\x1b`."""
    return _OBEYED.sub(lambda sign: ascii(sign[0])[1:-1], text)


QUOTED = 80
"""Characters of a text of somebody else's that a message quotes at most."""


def cut(text: str, most: int = QUOTED) -> str:
    """The text, its end left out where it is longer than a message can hold."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


_QUOTE = reprlib.Repr()
_QUOTE.maxlevel, _QUOTE.maxstring, _QUOTE.maxother = 2, QUOTED, QUOTED
"""Of values that hold thousands of others, as YAML may say in a few lines, the first few."""


def quoted(value: object) -> str:
    """A value of somebody else's as Python writes it, the middle left out where it is long.

    >>> quoted("lite0"), len(quoted("x" * 5000)), quoted([[[1, 2], 3]] * 5000)
    ("'lite0'", 80, '[[[...], 3], [[...], 3], [[...], 3], [[...], 3], [[...], 3], [[...], 3], ...]')
    """
    return cut(_QUOTE.repr(value))


def spreadsheet_cell(text: str) -> str:
    """A text for a table that is saved as CSV: a spreadsheet takes what begins with = and the like for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def printable(text: str) -> str:
    """The name of a file, folder or class in one line, without anything that a terminal obeys."""
    return text if text.isprintable() else ascii(text)


def classes_text(classes: Sequence[str], most: int = 4) -> str:
    """How many classes, and the names of the first few."""
    return f"{plural(len(classes), 'class', 'classes')} ({listed([*map(printable, classes)], most)})"
