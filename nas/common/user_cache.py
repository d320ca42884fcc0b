"""The user's home, and the cache in it, which keeps decoded images and latencies from one command to the next."""

from __future__ import annotations

import logging
import os
import stat
from contextlib import suppress
from pathlib import Path

logger = logging.getLogger(__name__)

_warned: set[str] = set()


def cache_folder(name: str, variable: str) -> Path | None:
    """The folder that the environment's `variable` names, or nas/`name` in the user's cache, which is made.

    None, with one warning, where there is no home, or nothing can be written there: then nothing is kept.
    """
    given = os.environ.get(variable)
    if given:
        return Path(given).absolute()
    try:
        folder = user_cache() / name
        make_folder(folder)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        where = f"{getattr(error, 'filename', None) or 'no home'}: {reason}"
        if name not in _warned:
            logger.warning("no %s is kept for the next time (%s); %s names a folder for it", name, where, variable)
        _warned.add(name)
        return None
    return folder


def make_folder(folder: Path) -> None:
    """Make a folder of a cache and those above it, each as open to a group as what it lies in. Raises `OSError`."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        open_to_group(folder, folder.parent)


def open_to_group(path: Path, folder: Path) -> None:
    """Where users share a folder by its group, let the group do with a new file or folder of ours in it what it may do there."""
    with suppress(OSError):  # of a file system without groups, or of somebody who is not of the group
        shared = folder.stat()
        if not shared.st_mode & stat.S_IWGRP:
            return
        if path.stat().st_gid != shared.st_gid:
            os.chown(path, -1, shared.st_gid)
        mask = 0o2070 if path.is_dir() else 0o060
        path.chmod(stat.S_IMODE(path.stat().st_mode) | shared.st_mode & mask)


def assume_home() -> None:
    """Where there is no home, take `/` for it, as containers do: some libraries look for one as they are imported."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/"


def user_cache() -> Path:
    """Where nas keeps what it keeps for a user; raises `RuntimeError` where there is no home."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if os.path.isabs(given) else Path.home() / ".cache") / "nas"
