"""Ray: starting it here or reaching a cluster, and what there is."""

from __future__ import annotations

import logging
import os
import socket
import sys

import ray
from ray._private.utils import read_ray_address

from nas.errors import InputError


def start_ray(address: str | None, gpus: bool) -> None:
    """Connect to a cluster, or start Ray on this machine, quietly; does nothing when Ray runs already.

    Started here, it has this machine's GPUs only where `gpus` says so.
    """
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what it would print is in the records
    if ray.is_initialized():
        return
    if address:
        _check_reachable(address)
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"--address {address}: no Ray cluster answers there ({reason})") from error
        return
    # Workers inherit the environment, so that they find what the driver can import (a metric of the user's own).
    os.environ["PYTHONPATH"] = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    ray.init(
        address="local",  # also where RAY_ADDRESS names a cluster: --address says when to use one
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        num_gpus=None if gpus else 0,
    )


def _check_reachable(address: str) -> None:
    """Raise `InputError` when nothing listens at the address; Ray itself would try for two minutes."""
    found = os.environ.get("RAY_ADDRESS") or read_ray_address() if address == "auto" else address
    if not found:
        raise InputError("--address auto: no Ray cluster runs on this machine; start one with `ray start --head`")
    host, _, port = found.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise InputError(f"--address {address}: no Ray cluster answers at {found} ({error})") from error


def cluster_capacity() -> tuple[float, float]:
    """CPU cores and GPUs that Ray has."""
    resources = ray.cluster_resources()
    return float(resources.get("CPU", 0.0)), float(resources.get("GPU", 0.0))
