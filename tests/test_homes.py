"""Machines without a home, with a temporary folder that is too long, full or closed: real searches, and one sentence."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import BRIEF

from nas.common.errors import InputError
from nas.common.user_cache import cache_folder
from nas.runs.store import open_run
from nas.search.ray import local as local_ray
from nas.search.ray.local import LONGEST, ray_parent

NAS = [sys.executable, str(Path(sys.executable).with_name("nas"))]
SEARCH = ("search", *BRIEF, "--trials", "2", "--confirm", "0", "--out", "run")
STRANGER = ("setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups")


def strangers_python() -> str | None:
    """An interpreter like this one that another user may run, children included; this one may lie in a closed home."""
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        return None
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    check = f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', '']) or {version!r} not in sys.version)"
    for python in (sys.executable, f"/usr/bin/python{version}"):
        if subprocess.run([*STRANGER, python, "-c", check], capture_output=True).returncode == 0:
            return python
    return None


PYTHON = strangers_python()
needs_stranger = pytest.mark.skipif(
    PYTHON is None, reason="takes root, setpriv, and an interpreter of this version that other users may run"
)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that everybody may use, in /tmp with a short path."""
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)


def nas(
    place: Path, *arguments: str, before: Sequence[str] = (), without: Sequence[str] = (), **variables: str
) -> subprocess.CompletedProcess[str]:
    # What a login shell or a batch system would set is not there for a user without a home.
    names = (
        *without,
        "NAS_DATA",
        "NAS_LATENCY_CACHE",
        "NAS_LEASE_DIR",
        "XDG_CACHE_HOME",
        "LOGNAME",
        "USER",
        "RAY_TMPDIR",
        "RAY_AUTH_MODE",  # those of conftest.py
        "RAY_AUTH_TOKEN",
    )
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment |= {"NAS_LEASE_DIR": str(place / "leases")} | variables
    command = [*before, *NAS]
    if tuple(before[-len(STRANGER) :]) == STRANGER:
        assert PYTHON is not None
        command[len(before)] = PYTHON
        environment["PYTHONPATH"] = os.pathsep.join(strangers_path())
    return subprocess.run(
        [*command, *arguments], cwd=place, env=environment, capture_output=True, text=True, timeout=280, check=False
    )


def strangers_path() -> list[str]:
    """Where another interpreter of this version finds what this one imports."""
    return [path for path in sys.path if path and "lib-dynload" not in path]


def check_searched(done: subprocess.CompletedProcess[str], place: Path) -> None:
    assert done.returncode == 0, done.stdout[-500:] + done.stderr
    assert len(open_run(place / "run").records()) == 2
    assert "Traceback" not in done.stderr


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_a_home_that_cannot_be_written_and_a_long_temporary_folder(place: Path) -> None:
    long = place / "slurm_jobdir_of_some_user" / "1355700" / "scratch_of_this_job_alone" / "tmp.t0016"
    long.mkdir(parents=True)
    check_searched(nas(place, *SEARCH, "--objectives", "accuracy,latency", HOME="/proc", TMPDIR=str(long)), place)
    assert not [path for path in long.iterdir() if path.name == "ray" or path.name.startswith("nas.")]


PLACES = """
from nas.common.user_cache import cache_folder
from nas.search.ray.local import ray_parent
print(ray_parent(), cache_folder("data", "NAS_DATA"))
"""


@pytest.mark.subprocess
@needs_stranger
def test_a_strangers_closed_temporary_folder_and_home_are_passed_over(place: Path) -> None:
    assert PYTHON is not None
    closed = place / "closed"
    closed.mkdir(mode=0o555)
    environment = {"TMPDIR": str(closed), "HOME": "/", "PYTHONPATH": os.pathsep.join(strangers_path())}
    command = [*STRANGER, PYTHON, "-c", PLACES]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["/tmp", "None"], done.stderr
    assert "NAS_DATA names a folder for it" in done.stderr


@pytest.mark.parametrize("home", ["/proc", "/dev/null", "/nowhere/at/all"])
def test_without_a_home_nothing_is_kept_and_that_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, home: str
) -> None:
    if home.startswith("/nowhere") and os.getuid() == 0:
        monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    monkeypatch.setattr("nas.common.user_cache._warned", set())
    monkeypatch.setenv("HOME", home)
    monkeypatch.delenv("NAS_DATA")
    assert cache_folder("data", "NAS_DATA") is None
    assert cache_folder("data", "NAS_DATA") is None
    (told,) = caplog.messages
    assert "NAS_DATA names a folder for it" in told
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("data", "NAS_DATA") == tmp_path / "nas" / "data"
    monkeypatch.setenv("NAS_DATA", str(tmp_path / "mine"))
    assert cache_folder("data", "NAS_DATA") == tmp_path / "mine"


@pytest.mark.subprocess
@pytest.mark.slow
def test_images_are_decoded_without_a_home_and_nothing_stays(place: Path) -> None:
    from PIL import Image

    for label, colour in (("red", "#a02020"), ("blue", "#2020a0")):
        (place / "data" / label).mkdir(parents=True)
        for number in range(20):
            image = Image.effect_noise((16, 16), 20 + number).convert("RGB")
            Image.blend(image, Image.new("RGB", (16, 16), colour), 0.5).save(place / "data" / label / f"{number}.png")
    (place / "tmp").mkdir()
    done = nas(
        place, "evaluate", "smallest", "--space", "cifar", "--data", "data", "--epochs", "1", HOME="/proc",
        TMPDIR=str(place / "tmp"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "NAS_DATA names a folder" in done.stderr
    assert not [path for path in (place / "tmp").iterdir() if path.name.startswith("nas.")]


# ---------------------------------------------------------------- where Ray's folder lies


def test_rays_folder_is_where_it_fits(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(place))
    assert ray_parent() == str(place)
    for unfit in (str(place / ("x" * LONGEST)), "/proc", "/dev/null", "relative", str(place / "absent")):
        monkeypatch.setenv("TMPDIR", unfit)
        assert ray_parent() == "/tmp"
    monkeypatch.setenv("RAY_TMPDIR", str(place))
    assert ray_parent() == str(place)


def test_where_it_fits_nowhere_the_sentence_names_each_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_ray, "_USUAL", ("/proc",))
    monkeypatch.setenv("RAY_TMPDIR", "/" + "x" * LONGEST)
    monkeypatch.setenv("TMPDIR", "/dev/null")
    with pytest.raises(
        InputError,
        match=r"RAY_TMPDIR /x+ is too long for .* sockets .*; TMPDIR /dev/null cannot be written to .*; /proc cannot be "
        r"written to .*; let RAY_TMPDIR name another one",
    ):
        ray_parent()


COVERED = ("/var/tmp", "/dev/shm", "/tmp", "/mnt")


def lies_below(folders: Sequence[str]) -> bool:
    """Whether the interpreter or the package that a command runs lies below one of the folders."""
    needed = (os.path.realpath(sys.executable), sys.prefix, local_ray.__file__)
    return any(Path(path).is_relative_to(folder) for path in needed for folder in folders)


def mounts() -> bool:
    """Whether this process may mount a file system of its own."""
    command = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


MOUNTS = mounts()
needs_mounts = pytest.mark.skipif(not MOUNTS, reason="mounting a small file system is not allowed here")
FULL = "mount -t tmpfs -o size=64k none {0} && (head -c 64k /dev/zero > {0}/filled || true)"


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
@pytest.mark.skipif(not MOUNTS and PYTHON is None, reason="takes a small file system, or another user")
def test_a_user_that_no_machine_knows_searches_without_a_home_and_a_full_temporary_folder_is_passed_over(
    place: Path,
) -> None:
    small = place / "small"
    small.mkdir()
    mounted = ("unshare", "-m", "sh", "-c", f'{FULL.format(small)}; exec "$@"', "sh") if MOUNTS else ()
    before, without = (*mounted, *(STRANGER if PYTHON else ())), ("HOME",) if PYTHON else ()
    environment = {"TMPDIR": str(small)} if MOUNTS else {}
    check_searched(nas(place, *SEARCH, before=before, without=without, **environment), place)


@pytest.mark.subprocess
@pytest.mark.slow
@needs_mounts
@pytest.mark.skipif(
    lies_below(COVERED), reason="this Python or this checkout lies where the test mounts something else"
)
def test_all_temporary_folders_full_are_one_sentence(place: Path) -> None:
    (place / "small").mkdir()
    everywhere = "; ".join(FULL.format(folder) for folder in (place / "small", *COVERED[:2]))
    # /tmp last: the folder itself lies there, and is looked at through another name.
    script = f'{everywhere}; mount --bind {place} /mnt && cd /mnt && {FULL.format("/tmp")}; exec "$@"'
    done = nas(
        place, *SEARCH[:-1], "/mnt/other", before=("unshare", "-m", "sh", "-c", script, "sh"), TMPDIR="/var/tmp",
        NAS_LEASE_DIR="/mnt/leases", HOME="/mnt",
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    told = done.stderr.strip().splitlines()[-1]  # joblib warns of a full /dev/shm before
    assert told.startswith(
        "nas: no folder for Ray's session: TMPDIR /var/tmp has only 0 MiB left; /tmp has only 0 MiB left"
    )
    assert told.endswith("let RAY_TMPDIR name another one")


# ---------------------------------------------------------------- a token in the home

CONNECT = """
import sys
from nas.workflows.plan import _before_ray
_before_ray(sys.argv[1])
from nas.search.ray.cluster import start_ray
import ray
for address in (sys.argv[1], None, sys.argv[1]):  # Ray reads a token once in a process
    start_ray(address, gpus=False)
    print(ray.get(ray.remote(lambda: 7).options(num_cpus=0).remote(), timeout=60))
    ray.shutdown()
"""


@pytest.mark.subprocess
@pytest.mark.slow
@pytest.mark.parametrize("has_token", [False, True], ids=["open", "token"])
def test_a_token_in_the_home_breaks_no_cluster_by_its_address(place: Path, has_token: bool) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"HOME": str(place), "RAY_TMPDIR": str(place)}
    (place / ".ray").mkdir()
    token = place / ".ray" / "auth_token"
    if has_token:
        token.write_text("0123456789" * 4)
    options = ["--port", str(port), "--num-cpus", "1", "--node-ip-address", "127.0.0.1", "--include-dashboard", "false"]
    head = subprocess.Popen(
        [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats", *options],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 90
        while not list(place.glob("ray/session_2*/sockets/raylet")):
            assert head.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        token.write_text("0123456789" * 4)  # what a search of an earlier version leaves
        command = [sys.executable, "-c", CONNECT, f"127.0.0.1:{port}"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.stdout.split() == ["7"] * 3, done.stderr[-1000:]
    finally:
        os.killpg(head.pid, signal.SIGKILL)
        head.wait()
        for process in Path("/proc").glob("[0-9]*"):  # its servers have groups of their own
            with suppress(OSError):
                if str(place / "ray").encode() in (process / "cmdline").read_bytes():
                    os.kill(int(process.name), signal.SIGKILL)


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
@needs_mounts
def test_a_disk_that_is_full_ends_a_search_before_the_next_training(place: Path) -> None:
    """Up to twelve trainings in a row were lost, times as many as ran at once."""
    (place / "disk").mkdir()
    # Room for the files that begin a run, and for the weights of no more than a few candidates.
    mount = f'mount -t tmpfs -o size=600k none {place / "disk"} && "$@"; code=$?; cp -r {place / "disk"}/run {place}/left; exit $code'
    search = (*SEARCH[:-1], str(place / "disk/run"))
    done = nas(place, *search, "--trials", "20", before=("unshare", "-m", "sh", "-c", mount, "sh"))
    assert done.returncode != 0, done.stdout
    assert "Traceback" not in done.stderr
    told = done.stdout + done.stderr
    assert "is full" in told or "No space left on device" in told
    records = [
        json.loads(line) for line in (place / "left/trials.jsonl").read_text().splitlines() if line.endswith("}")
    ]
    assert len([record for record in records if record["evaluation"]["outcome"] == "lost"]) <= 1
    assert len(records) < 10
