"""Functions of the user's, named `module:function`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from nas.errors import InputError


def load_function(what: str, name: str) -> Callable[..., Any]:
    """The function that `name` means; raises `InputError`, which says `what` it was to be."""
    module_name, _, function_name = name.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (Exception, SystemExit) as error:  # importing runs the user's code, which may raise anything
        raise InputError(f"{what} {name!r} could not be loaded: {type(error).__name__}: {error}") from error
    if not callable(function):
        raise InputError(f"{what} {name!r} is not a function")
    loaded: Callable[..., Any] = function
    return loaded
