"""The user's home, and the cache in it, which keeps decoded images and latencies from one command to the next."""

from __future__ import annotations

import logging
import os
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
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        where = f"{getattr(error, 'filename', None) or 'no home'}: {reason}"
        if name not in _warned:
            logger.warning("no %s is kept for the next time (%s); %s names a folder for it", name, where, variable)
        _warned.add(name)
        return None
    return folder


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
