"""What is here of all that nas can use: devices, runtimes, extras, folders that it writes, shared memory, Ray, a browser."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
from packaging.requirements import Requirement

from nas.common.errors import InputError
from nas.common.provenance import package_versions
from nas.common.user_cache import cache_folder
from nas.latency.cache import cache_folder as latency_folder
from nas.latency.device import device_name
from nas.latency.lease import lease_directory
from nas.latency.protocol import LatencyProtocol
from nas.latency.runtimes import RUNTIMES, check_protocol

DISTRIBUTION = "pareto-nas"
_NAMED = ("python", "torch", "torchvision", "optuna")
_FOR_DEVELOPERS = ("test", "docs")
_SHARED_MEMORY = Path("/dev/shm")
_LEAST_SHARED_BYTES = 64 << 20
"""Below this Ray puts its object store on a disk, and workers that read images have no room for a batch."""
_LEAST_DISK_BYTES = 1 << 30

State = Literal["here", "missing", "trouble"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: whether it is here, what was found, in words, and how to get it or mend it.

    `needed` is true of what a plain search cannot do without.
    """

    topic: str
    name: str
    state: State
    found: str
    remedy: str = ""
    needed: bool = False

    @property
    def fails(self) -> bool:
        """Whether a plain search cannot run for want of it."""
        return self.needed and self.state != "here"


def examine(start_ray: bool = True) -> list[Check]:
    """All checks, in the order of their topics. Ray is started and ended, which takes seconds, only where asked for."""
    return [
        *_packages(),
        *_devices(),
        *_runtimes(),
        *_folders(),
        _shared_memory(),
        _ray(start_ray),
        _browser(),
    ]


def _packages() -> Iterator[Check]:
    """Versions that matter most, what else is required, and the extras, by the metadata of the installed distribution."""
    versions = package_versions()
    for name in _NAMED:
        found = versions.get(name)
        yield Check("packages", name, "here" if found else "missing", found or "not installed", needed=True)
    try:
        requirements = [Requirement(text) for text in metadata.requires(DISTRIBUTION) or ()]
        extras = metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or ()
    except metadata.PackageNotFoundError:
        yield Check(
            "packages", DISTRIBUTION, "trouble", "not installed: what it requires is not known", "pip install ."
        )
        return
    plain = _of_extra(requirements, "")
    lacking = [name for one in plain for name in _lacking(one)]
    found = f"lacking: {', '.join(lacking)}" if lacking else f"all {len(plain)} packages are installed"
    remedy = f"pip install {DISTRIBUTION}" if lacking else ""
    yield Check("packages", "required", "missing" if lacking else "here", found, remedy, needed=True)
    for extra in extras:
        if extra not in _FOR_DEVELOPERS:
            lacking = [name for one in _of_extra(requirements, extra) if one not in plain for name in _lacking(one)]
            found = f"lacking: {', '.join(lacking)}" if lacking else "installed"
            remedy = f"pip install '{DISTRIBUTION}[{extra}]'" if lacking else ""
            yield Check("extras", extra, "missing" if lacking else "here", found, remedy)


def _of_extra(requirements: Sequence[Requirement], extra: str) -> list[Requirement]:
    return [one for one in requirements if not one.marker or one.marker.evaluate({"extra": extra})]


def _lacking(requirement: Requirement) -> list[str]:
    """Which packages that a requirement asks for, those of its extras too, are not installed in a version that it takes."""
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return [str(requirement.name)]
    if not requirement.specifier.contains(version, prereleases=True):
        return [f"{requirement.name}{requirement.specifier} (here is {version})"]
    further = [Requirement(text) for text in metadata.requires(requirement.name) or ()]
    plain = _of_extra(further, "")
    asked = [one for extra in requirement.extras for one in _of_extra(further, extra) if one not in plain]
    return list(dict.fromkeys(name for one in asked for name in _lacking(one)))


def _devices() -> Iterator[Check]:
    cores = len(os.sched_getaffinity(0))
    yield Check(
        "devices", "cpu", "here", f"{device_name('cpu')}, {cores} of {os.cpu_count()} cores may be used", needed=True
    )
    for index in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(index).total_memory
        yield Check("devices", f"cuda:{index}", "here", f"{device_name(f'cuda:{index}')}, {_gigabytes(memory)}")
    if not torch.cuda.is_available():
        built = "torch is built without CUDA" if torch.version.cuda is None else "torch sees no CUDA GPU"
        yield Check("devices", "cuda", "missing", built)


def _runtimes() -> Iterator[Check]:
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for mode in RUNTIMES.names:
        problems = {device: _problem(LatencyProtocol(device=device, mode=mode)) for device in devices}
        able = [device for device, problem in problems.items() if problem is None]
        if able:
            yield Check("runtimes", mode, "here", f"on {' and '.join(able)}", needed=mode == "eager")
        else:
            yield Check("runtimes", mode, "missing", next(filter(None, problems.values())), needed=mode == "eager")


def _folders() -> Iterator[Check]:
    def cache(name: str, find: Callable[[], Path | None], variable: str) -> Check:
        try:
            folder = find()
        except InputError as error:
            return Check("folders", name, "trouble", str(error))
        if folder is None:
            return Check(
                "folders",
                name,
                "missing",
                "nothing is kept from one command to the next",
                f"{variable}=FOLDER names one",
            )
        return _writable(name, folder, f"{variable}=FOLDER names another one")

    yield _writable(
        "working directory", Path.cwd(), "results/ is made there: nas search --out names another place", needed=True
    )
    yield _writable("temporary files", Path(tempfile.gettempdir()), "TMPDIR=FOLDER names another one", needed=True)
    yield cache("decoded images", lambda: cache_folder("data", "NAS_DATA"), "NAS_DATA")
    yield cache("latencies", latency_folder, "NAS_LATENCY_CACHE")
    try:
        yield _writable("device leases", lease_directory(), "NAS_LEASE_DIR=FOLDER names another one", needed=True)
    except InputError as error:
        yield Check("folders", "device leases", "trouble", str(error), needed=True)


def _writable(name: str, folder: Path, remedy: str, needed: bool = False) -> Check:
    """Whether a file can be written in the folder, or in the nearest one above it that is there, and what room is left."""
    there = next(place for place in (folder, *folder.parents) if place.is_dir())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
        room = shutil.disk_usage(there).free
    except OSError as error:
        return Check("folders", name, "trouble", f"{folder}: cannot be written: {error.strerror}", remedy, needed)
    found = f"{folder}, {_gigabytes(room)} free"
    if room < _LEAST_DISK_BYTES:
        return Check("folders", name, "trouble", found, f"make room; {remedy}")
    return Check("folders", name, "here", found, needed=needed)


def _shared_memory() -> Check:
    try:
        room = shutil.disk_usage(_SHARED_MEMORY).free
    except OSError as error:
        return Check(
            "ray", "shared memory", "trouble", f"{_SHARED_MEMORY}: {error.strerror}", "in a container: --shm-size=2g"
        )
    found = f"{_SHARED_MEMORY}, {_gigabytes(room)} free"
    if room < _LEAST_SHARED_BYTES:
        return Check("ray", "shared memory", "trouble", found, "in a container: --shm-size=2g")
    return Check("ray", "shared memory", "here", found)


def _ray(start: bool) -> Check:
    if find_spec("ray") is None:
        return Check("ray", "ray", "missing", "not installed", "pip install 'ray[tune]'", needed=True)
    version = f"ray {metadata.version('ray')}"
    if not start:
        return Check("ray", "ray", "here", f"{version}, not started", needed=True)
    try:
        with _started():
            return Check("ray", "ray", "here", f"{version} starts here", needed=True)
    except Exception as error:  # whatever Ray raises where it cannot start
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        return Check("ray", "ray", "trouble", f"{version} does not start: {reason}", needed=True)


@contextmanager
def _started() -> Iterator[None]:
    """A Ray of our own that ran a task; one that runs already is used and left running."""
    import ray

    from nas.search.ray.local import start_local_ray

    ours = not ray.is_initialized()
    if ours:
        start_local_ray(gpus=False)
    try:
        ray.get(ray.remote(lambda: True).remote(), timeout=60)
        yield
    finally:
        if ours:
            ray.shutdown()


def _browser() -> Check:
    remedy = "apt-get install chromium, or BROWSER_PATH=FILE names one; it is used by nas report --png alone"
    path = os.environ.get("BROWSER_PATH") or _installed_browser()
    if path is None:
        return Check("pictures", "chromium", "missing", "no Chromium or Chrome", remedy)
    if not os.access(path, os.X_OK):
        return Check("pictures", "chromium", "trouble", f"{path}: no program", remedy)
    return Check("pictures", "chromium", "here", path)


def _installed_browser() -> str | None:
    """What kaleido would draw with, or what has a usual name where kaleido is not here."""
    if find_spec("choreographer") is not None:
        from choreographer.browsers.chromium import Chromium

        return Chromium.find_browser(skip_local=False)
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


def _problem(protocol: LatencyProtocol) -> str | None:
    """Why a latency cannot be measured here in this way."""
    try:
        check_protocol(protocol)
    except InputError as error:
        return str(error)
    return None


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB"
