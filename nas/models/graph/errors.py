"""Where in the user's code something happened, for sentences that name it."""

from __future__ import annotations

import os
import re
import traceback
from pathlib import Path

import torch

import nas

_NOT_THEIRS = tuple(f"{Path(str(each.__file__)).parent}{os.sep}" for each in (torch, nas))
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')


def line_of_error(error: BaseException) -> str:
    """`net.py:31` with the text of the line, of the innermost frame that is neither torch's nor ours; empty where none is."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((*_NOT_THEIRS, "<"))
    ]
    theirs = [frame for frame in frames if "/lib/python" not in frame.filename or "site-packages" in frame.filename]
    if not theirs:
        return ""
    frame = theirs[-1]
    return f"{_short(frame.filename)}:{frame.lineno}: {frame.line or ''}".rstrip(": ")


def line_of_trace(stack_trace: str | None) -> str:
    """The same of a node's stack trace."""
    found = [each for each in _FRAME.finditer(stack_trace or "") if not each["file"].startswith((*_NOT_THEIRS, "<"))]
    return f"{_short(found[-1]['file'])}:{found[-1]['line']}" if found else "a place that is not known"


def _short(file: str) -> str:
    path = Path(file)
    if "site-packages" in path.parts:
        return "/".join(path.parts[path.parts.index("site-packages") + 1 :])
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file
