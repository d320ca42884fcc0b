"""Shared by several test files: a run directory made without a search, and a quiet, private environment."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Before any test imports torch or Ray: one thread a process, leases of this test run alone.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from nas.run import Provenance, RunDirectory
from nas.settings import SearchSettings
from nas.space_file import load_space

RunFactory = Callable[..., RunDirectory]


@pytest.fixture(autouse=True, scope="session")
def _private_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Leases, decoded images and measured latencies of this test run alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAS_LEASE_DIR", str(tmp_path_factory.mktemp("leases")))
        patch.setenv("NAS_DATA", str(tmp_path_factory.mktemp("data")))
        patch.setenv("NAS_LATENCY_CACHE", str(tmp_path_factory.mktemp("latencies")))
        yield


@pytest.fixture
def make_run(tmp_path: Path) -> RunFactory:
    """Makes run directories with the given settings, as a search would before its first trial."""

    def make(settings: SearchSettings | None = None, name: str = "run") -> RunDirectory:
        settings = settings or SearchSettings(space=load_space("digits"), data="digits")
        provenance = Provenance(
            created=time.time(),
            command="nas search",
            versions={"python": "3"},
            host="here",
            hardware="test",
            cpu_cores=2,
            git_commit=None,
            data_fingerprint="0" * 16,
            classes=tuple("0123456789"),
            train_images=100,
            validation_images=400,
            mean=(0.5,),
            std=(0.25,),
        )
        return RunDirectory.create(tmp_path / name, settings, provenance)

    return make
