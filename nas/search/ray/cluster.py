"""Ray: starting it here or reaching a cluster, and what there is."""

from __future__ import annotations

import json
import logging
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RuntimeEnvSetupError

import nas
from nas.common.errors import InputError, arg
from nas.common.plugins import FOLDER, code_folder, hidden, is_installed, searched_last
from nas.search.ray.local import start_local_ray

HEAD_POLL_S = 2.0
"""Seconds between two questions to the cluster's head whether it is there."""
HEAD_MARGIN_S = 15.0
"""By so much the driver is ahead of Ray in taking the head for gone."""


def start_ray(address: str | None, gpus: bool, functions: Sequence[str] = ()) -> None:
    """Connect to a cluster, or start Ray on this machine, quietly; does nothing when Ray runs already.

    Started here, it has this machine's GPUs only where `gpus` says so. To a cluster goes the code of this package and of
    the `functions`, each `module:function`, once for all that this process runs there. Raises `InputError` when it
    cannot be reached.
    """
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what it would print is in the records
    if address and address.startswith("ray://"):
        raise InputError(
            f"{arg('address')} {address}: under a ray:// client Tune moves the driver and its files to the head node; "
            "run `nas search --address auto` on a node of the cluster, or submit it with `ray job submit`"
        )
    if ray.is_initialized():
        return
    if address:
        _check_reachable(address)
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        environment = _runtime_env(functions)
        try:
            with (
                tempfile.TemporaryDirectory() as empty,
                chdir(empty),
            ):  # workers would search the working directory first
                ray.init(address=address, runtime_env=environment, **quiet)
        except RuntimeEnvSetupError as error:
            reason = " ".join(str(error).split())[:300]
            raise InputError(
                f"{arg('address')} {address}: the code of workers cannot be sent there ({reason})"
            ) from error
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            token = "" if os.environ.get("RAY_AUTH_MODE") == "token" else "; one with a token wants RAY_AUTH_MODE=token"
            raise InputError(f"{arg('address')} {address}: no Ray cluster answers there ({reason}{token})") from error
        return
    start_local_ray(gpus)


def _check_reachable(address: str) -> None:
    """Raise `InputError` when nothing listens at the address; Ray itself would try for two minutes."""
    found = os.environ.get("RAY_ADDRESS") or _address_here() if address == "auto" else address
    if not found:
        raise InputError(
            f"{arg('address')} auto: no Ray cluster runs on this machine; start one with `ray start --head`"
        )
    host, _, port = found.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(f"{arg('address')} {address}: no Ray cluster answers at {found} ({error})") from error


def _address_here() -> str | None:
    """The address that `ray start` leaves in a file for those on its machine who say `auto`; None where there is none."""
    place = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    try:
        return Path(place, "ray", "ray_current_cluster").read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


@contextmanager
def head_watched(last_words: Callable[[str], None]) -> Iterator[None]:
    """While the context lasts, end this process, after `last_words`, when the cluster's head has long not answered.

    Ray itself would end it `HEAD_MARGIN_S` later, without a word of what is left; until then most of its calls hang, so
    that nothing else can end the search.
    """
    address = ray.get_runtime_context().gcs_address
    patience = float(os.environ.get("RAY_gcs_rpc_server_reconnect_timeout_s", "60")) - HEAD_MARGIN_S  # noqa: SIM112
    over = threading.Event()

    def watch() -> None:
        heard = time.monotonic()
        while not over.wait(HEAD_POLL_S):
            if _answers(address):
                heard = time.monotonic()
            elif time.monotonic() - heard > patience:
                last_words(f"the head of the Ray cluster, {address}, has not answered for {patience:.0f} s")
                os._exit(1)

    thread = threading.Thread(target=watch, name="head", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=HEAD_POLL_S).close()
    except (OSError, ValueError):
        return False
    return True


def deleted_with_job(out: Path) -> bool:
    """Whether a folder lies in the copy of the working directory that a Ray job runs in."""
    return "working_dir" in _job_environment() and out.resolve().is_relative_to(Path.cwd())


def _job_environment() -> dict[str, Any]:
    """What a Ray job was given as its runtime environment; empty where this is none."""
    return json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")).get("runtime_env") or {}


def _runtime_env(functions: Sequence[str]) -> dict[str, Any]:
    """What Ray is to give all workers of this process: the code that they may lack, and where else to look for it.

    In a job it is joined to the job's own environment, which Ray refuses where both have modules, unless told otherwise.
    """
    job = _job_environment()
    shipped = [Path.cwd()] if "working_dir" in job else []
    modules = [str(path) for path in _code(functions) if not any(path.is_relative_to(folder) for folder in shipped)]
    ours: dict[str, Any] = {}
    if modules:
        if "py_modules" in job:
            os.environ["RAY_OVERRIDE_JOB_RUNTIME_ENV"] = "1"
        ours["py_modules"] = [*modules, *job.get("py_modules", [])]
    if not shipped and any(":" in name for name in functions):
        ours["env_vars"] = {
            FOLDER: code_folder()
        }  # on nodes that see it, what these import from beside them is found too
    return ours


def _code(functions: Sequence[str]) -> list[Path]:
    """This package, and the packages or files of functions named `module:function` that are not installed.

    Raises `InputError` for a module that would take an installed one's place in workers.
    """
    found = {Path(nas.__file__).resolve().parent: None}
    for name in functions:
        module, colon, _ = name.partition(":")
        top = module.partition(".")[0]
        if not colon or not top.isidentifier():
            continue
        with searched_last(code_folder()):
            spec, mine = find_spec(top), hidden(top)
        if mine is not None:
            raise InputError(
                f"{name}: {mine.origin} is called like a module of Python's or of a package, which it would replace on the "
                "nodes of a cluster; rename it"
            )
        if spec is None or is_installed(spec):
            continue
        for place in spec.submodule_search_locations or [spec.origin or ""]:
            found[Path(place).resolve()] = None
    return list(found)
