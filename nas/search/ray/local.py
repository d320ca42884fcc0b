"""Ray on this machine alone, started for one process: its token, its folder, its environment, its end.

Left to itself, Ray writes a token into the home, which may not be there, and which later passes for a cluster's; its sockets
lie below TMPDIR, whose path may be too long for them; the working directory comes first where workers look for modules; and
its sessions stay below /tmp/ray for ever.
"""

from __future__ import annotations

import atexit
import logging
import os
import secrets
import shutil
import signal
import tempfile
from contextlib import ExitStack, chdir
from pathlib import Path

import ray

from nas.common.errors import InputError
from nas.common.plugins import FOLDER, children_path, code_folder
from nas.common.scratch import scratch_folder
from nas.common.signals import apart
from nas.search.ray.environment import OF_RAY, environment

LONGEST = 30
"""Bytes of the path of a folder that has Ray's below it: those of its sockets, 107 at most, are 77 longer."""
LEAST_BYTES = 32 << 20
"""Room on a disk below which Ray is not started there."""
_USUAL = ("/tmp", "/var/tmp", "/dev/shm")

logger = logging.getLogger(__name__)


def start_local_ray(gpus: bool) -> None:
    """Start Ray, quietly, with this machine's GPUs only where `gpus` says so; raises `InputError` where it has no folder.

    It ends with `ray.shutdown()` or this process, and its folder with the process.
    """
    held = ExitStack()
    scratch = held.enter_context(scratch_folder(ray_parent()))
    atexit.register(held.close)
    atexit.register(ray.shutdown)
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)  # first of these, since it is the last: no traceback
    os.environ.setdefault("RAY_AUTH_TOKEN", _token())  # for as long as this process lives, which keeps it too
    # Ray's processes inherit the environment, and have workers search this process's working directory first.
    variables = {"PYTHONPATH": children_path(), FOLDER: code_folder()}
    with environment(variables, OF_RAY), chdir(scratch), apart():
        ray.init(
            address="local",  # also where RAY_ADDRESS names a cluster: `address` says when to use one
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            num_gpus=None if gpus else 0,
            _temp_dir=str(scratch),
        )
    scratch.chmod(0o700)  # Ray lets everybody in


def _token() -> str:
    """What Ray's processes know each other by: the user's token of a cluster where there is one, or else a new one.

    Ray reads one once in a process, which may reach that cluster too, before or later.
    """
    file = os.environ.get("RAY_AUTH_TOKEN_PATH") or os.path.expanduser("~/.ray/auth_token")
    try:
        return Path(file).read_text(encoding="utf-8").strip() or secrets.token_hex(32)
    except (OSError, UnicodeDecodeError):
        return secrets.token_hex(32)


def ray_parent() -> str:
    """Where Ray's folder can lie: where RAY_TMPDIR says, or else TMPDIR, or else in a usual place.

    Raises `InputError` where it can lie in none of them.
    """
    named = {os.environ[name]: name for name in ("TMPDIR", "RAY_TMPDIR") if os.environ.get(name)}
    places = list(dict.fromkeys([*reversed(named), *_USUAL]))
    problems: list[str] = []
    for place in places:
        problem = _problem(place)
        if problem is None:
            if problems and "RAY_TMPDIR" in named.values():
                logger.warning("%s; Ray's session is in %s", problems[0], place)
            return place
        problems.append(f"{named.get(place, '')} {place} {problem}".strip())
    raise InputError(f"no folder for Ray's session: {'; '.join(problems)}; let RAY_TMPDIR name another one")


def _problem(place: str) -> str | None:
    """Why Ray's folder cannot lie there; None where it can."""
    if not os.path.isabs(place):
        return "is not an absolute path"
    if len(os.fsencode(place)) > LONGEST:
        return f"is too long for the paths of Ray's sockets (it may have {LONGEST} bytes)"
    try:
        os.rmdir(tempfile.mkdtemp(dir=place))
        room = shutil.disk_usage(place).free
    except OSError as error:
        return f"cannot be written to ({error.strerror or error})"
    return None if room >= LEAST_BYTES else f"has only {room >> 20} MiB left"
