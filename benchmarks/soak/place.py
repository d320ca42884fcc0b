"""Where a soak runs: a small disk, a clock and a disk's speed that can be set, folders of its own, processes that are known again."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from run_checks import tagged

TAG = "NAS_SOAK"
DISK_MB = 96
_HERE = Path(__file__).parent


class Place:
    """All that a soak makes on a machine; `close` takes it away again, but for the folder `out` of what was seen.

    `missing` says which faults cannot be had here, and why.
    """

    def __init__(self, out: Path) -> None:
        self.out = out.absolute()
        self.out.mkdir(parents=True)
        self._telling = threading.Lock()
        self._sessions: set[int] = set()
        self.missing: dict[str, str] = {}
        self.root = Path(tempfile.mkdtemp(prefix="soak", dir="/tmp"))
        """Short, since the paths of Ray's sockets in it may have 107 bytes."""
        self.temporary, self.leases, self.disk = self.root / "t", self.root / "leases", self.root / "disk"
        for folder in (self.temporary, self.leases, self.disk, self.root / "cache"):
            folder.mkdir()
        self.run = self.disk / "run"
        self._control = self.root / "control"
        self.clock_s, self.fsync_s = 0, 0.0
        self._tell()
        self._ballast = self.disk / "ballast"
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "none", str(self.disk)]
        if problem := _problem(mount):
            self.missing["disk full"] = problem
        self.is_mounted = not problem
        shim = self.root / "shim.so"
        if problem := _problem(["cc", "-shared", "-fPIC", "-O1", "-o", str(shim), str(_HERE / "shim.c"), "-ldl"]):
            self.missing |= {"slow fsync": problem, "clock set": problem}
        self.environment = os.environ | {
            TAG: str(self.root),
            "TMPDIR": str(self.temporary),
            "NAS_LEASE_DIR": str(self.leases),
            "NAS_LATENCY_CACHE": str(self.root / "latencies"),
            "XDG_CACHE_HOME": str(self.root / "cache"),
            "TORCHINDUCTOR_CACHE_DIR": str(self.root / "cache" / "torch"),
            "OMP_NUM_THREADS": "1",
            "NAS_SOAK_CONTROL": str(self._control),
            "PYTHONPATH": os.pathsep.join([str(_HERE.parent.parent), os.environ.get("PYTHONPATH", "")]),
            "PYTHONUNBUFFERED": "1",
        }
        if not problem:
            self.environment["LD_PRELOAD"] = str(shim)

    def _tell(self) -> None:
        content = struct.pack("qq", self.clock_s, int(self.fsync_s * 1e6))
        if not self._control.exists():
            self._control.write_bytes(content)
        with self._control.open("r+b") as file:
            file.write(content)

    def set_clock(self, ahead_s: int) -> None:
        """Have the time of day of all processes be so many seconds ahead of the machine's."""
        self.clock_s = ahead_s
        self._tell()

    def set_fsync(self, seconds: float) -> None:
        """Have each fsync take so much longer."""
        self.fsync_s = seconds
        self._tell()

    def fill_disk(self) -> None:
        """Leave no byte on the disk of the run."""
        with self._ballast.open("ab", buffering=0) as file, suppress(OSError):
            for size in (1 << 20, 4096, 1):
                with suppress(OSError):
                    while file.write(b"\0" * size) == size:
                        pass

    def free_disk(self) -> None:
        """Take away what fills it."""
        self._ballast.unlink(missing_ok=True)

    def start(self, *arguments: str, log: IO[bytes] | int) -> subprocess.Popen[bytes]:
        """A `nas` of its own session."""
        started = subprocess.Popen(
            [sys.executable, "-m", "nas", *arguments], cwd=self.root, env=self.environment,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        self._sessions.add(started.pid)
        return started

    def ask(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """What a `nas` says that ends by itself."""
        return subprocess.run(
            [sys.executable, "-m", "nas", *arguments], cwd=self.root, env=self.environment,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip

    def tell(self, name: str, **row: object) -> None:
        """Add a line to a file of what is seen, with the time."""
        line = json.dumps({"time": round(time.time(), 2)} | row) + "\n"
        with self._telling, (self.out / name).open("a") as file:
            file.write(line)

    def processes(self) -> dict[int, str]:
        """All processes that this soak started, and those that they did, with their command lines."""
        found = tagged(
            TAG, self.root
        )  # Ray's agents write their titles over their environment, but stay in the session
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError, ValueError):
                state, _, _, session = (folder / "stat").read_text().rsplit(")", 1)[1].split()[:4]
                if int(session) in self._sessions and state != "Z":
                    found[int(folder.name)] = (folder / "cmdline").read_text(errors="replace")
        return found

    def close(self) -> None:
        """Remove all but what was seen; of the run its records and settings are kept with that."""
        for name in ("run.yaml", "trials.jsonl", "latencies.jsonl", "confirmations.jsonl", "state.json"):
            with suppress(OSError):
                shutil.copy(self.run / name, self.out)
        if self.is_mounted:
            subprocess.run(["umount", "-l", str(self.disk)], timeout=30, check=False)
        shutil.rmtree(self.root, ignore_errors=True)


def _problem(command: list[str]) -> str:
    """Why a command does not work here; nothing where it did."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        return f"there is no {command[0]} here"
    return done.stderr.strip()[-200:] if done.returncode else ""
