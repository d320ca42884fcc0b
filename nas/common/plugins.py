"""Functions of the user's, named `module:function`, and the folder that has their files: the working directory.

A file there may be called like a module of Python's or of a package (queue.py, optuna.py), and must not take its place.
So the folder is searched last, and only while the user's code loads or runs. Of two modules of one name, one of them
installed, a `module:function` means the one in the folder.
"""

from __future__ import annotations

import importlib
import os
import site
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import nas
from nas.common.errors import InputError, NotHereError
from nas.common.text import quoted
from nas.common.trust import check_module

FOLDER = "NAS_CODE"
"""Variable that names the folder; it is set for workers, which have another working directory than their driver."""
_ALIAS = "_nas_code_"
"""Before the name of a module in the folder whose own name is taken."""
_searched: list[str] = []
"""Folders at the end of the search path now."""


def load_object(what: str, name: str) -> Any:
    """What `name`, `module:name`, means; raises `InputError`, which says `what` it was to be."""
    module_name, _, own_name = name.partition(":")
    try:
        with searched_last(code_folder()):
            return getattr(_module(module_name), own_name)
    except (Exception, SystemExit) as error:  # importing runs the user's code, which may raise anything
        raise NotHereError(f"{what} {quoted(name)} could not be loaded: {type(error).__name__}: {error}") from error


def load_named(what: str, name: str) -> Any:
    """The same of a name that a user or a file of theirs gave: asked about where it may be somebody else's."""
    check_module(what, name)
    return load_object(what, name)


def load_function(what: str, name: str) -> Callable[..., Any]:
    """The function that `name` means; raises `InputError`, which says `what` it was to be."""
    function = load_named(what, name)
    if not callable(function):
        raise InputError(f"{what} {quoted(name)} is not a function")

    def called(*arguments: Any) -> Any:
        with searched_last(code_folder()):  # for what it imports only now
            return function(*arguments)

    return called


def code_folder() -> str:
    """The folder of the user's modules."""
    return os.path.abspath(os.environ.get(FOLDER) or ".")


def lies_in_folder(name: str) -> bool:
    """Whether what `module:name` means would be taken from there."""
    top = name.partition(":")[0].partition(".")[0]
    return os.path.isdir(os.path.join(code_folder(), top)) or any(Path(code_folder()).glob(f"{top}.*"))


@contextmanager
def searched_last(folder: str) -> Iterator[None]:
    """While the context lasts, modules that are found nowhere else are looked for in a folder, before those of outer contexts."""
    sys.path.insert(len(sys.path) - len(_searched), folder)
    _searched.append(folder)
    try:
        yield
    finally:
        _searched.remove(folder)
        if folder in sys.path:  # the user's code may have removed it
            del sys.path[len(sys.path) - 1 - sys.path[::-1].index(folder)]


def is_installed(spec: ModuleSpec) -> bool:
    """Whether a module is part of Python or was installed."""
    places = [Path(place) for place in (*(spec.submodule_search_locations or ()), spec.origin or "")]
    files = [place.resolve() for place in places if place != Path() and place.exists()]
    folders = [*sysconfig.get_paths().values(), site.getusersitepackages()]
    installed = [Path(folder).resolve() for folder in folders]
    return not files or any(file.is_relative_to(folder) for file in files for folder in installed)


def hidden(module: str) -> ModuleSpec | None:
    """The module of that name in the folder, where an import would give an installed one."""
    own = PathFinder.find_spec(module, [code_folder()])
    if own is None or own.origin is None:  # a folder without code is not what is meant
        return None
    found = find_spec(module)
    return own if found is not None and found.origin != own.origin and is_installed(found) else None


def children_path() -> str:
    """The `PYTHONPATH` with which Python processes that we start find what this one can import, in its order.

    The working directory, which Python puts first for `-m` and `-c`, comes last there, unless the user's own
    `PYTHONPATH` has it, or this package lies there.
    """
    given = [os.path.abspath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    here, own = os.getcwd(), str(Path(nas.__file__).resolve().parent.parent)
    entries = list(dict.fromkeys(os.path.abspath(entry) for entry in sys.path))
    if own not in entries:
        entries.insert(0, own)
    if here not in (*given, own):
        entries.sort(key=lambda entry: entry == here)
    return os.pathsep.join(entries)


def _module(name: str) -> ModuleType:
    top, dot, rest = name.partition(".")
    own = hidden(top)
    if own is None:
        return importlib.import_module(name)
    alias = _ALIAS + top
    if alias not in sys.modules:
        assert own.origin is not None
        spec = spec_from_file_location(alias, own.origin, submodule_search_locations=own.submodule_search_locations)
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        sys.modules[alias] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[alias]
            raise
    return importlib.import_module(alias + dot + rest)
