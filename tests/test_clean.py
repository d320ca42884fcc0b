"""What nas leaves on a machine's disks: shown, and removed only where nobody needs it."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import BRIEF, wait_for_records
from PIL import Image
from rich.console import Console
from test_latency_cache import KEY

from nas.cli.app import main
from nas.common.scratch import scratch_folder
from nas.workflows.clean import Leftover, leftovers, remove

NAS = [sys.executable, str(Path(sys.executable).with_name("nas"))]
OLD = time.time() - 40 * 86_400


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The only temporary folder, with a short path."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.delenv("RAY_TMPDIR", raising=False)
        monkeypatch.setattr("nas.workflows.clean._temporary_places", lambda: [Path(folder)])
        monkeypatch.setenv("NAS_DATA", f"{folder}/data")
        monkeypatch.setenv("NAS_LATENCY_CACHE", f"{folder}/latency")
        yield Path(folder)


def at(path: Path, **options: object) -> Leftover:
    (found,) = [each for each in leftovers(**options) if each.path == path]  # type: ignore[arg-type]
    return found


def aged(path: Path, when: float = OLD) -> Path:
    os.utime(path, (when, when))
    return path


def entry(place: Path, digit: str, when: float) -> Path:
    path = place / "data" / "decoded" / (digit * 32)
    path.mkdir(parents=True)
    (path / "train.npy").write_bytes(bytes(1000))
    (path / "index.json").write_text("{}")
    aged(path / "index.json", when)
    return path


def started_in(place: Path) -> Iterator[int]:
    """Processes that have it as their temporary folder, or a file of it open: a new title may take the variables' place."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            told = (process / "environ").read_text(errors="replace").split("\0")
            opened = [os.readlink(file) for file in (process / "fd").iterdir()]
            if f"TMPDIR={place}" in told or any(Path(name).is_relative_to(place) for name in opened):
                yield int(process.name)


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_a_killed_search_leaves_a_folder_that_is_removed_once_its_ray_is_gone(place: Path, tmp_path: Path) -> None:
    out, log = tmp_path / "run", tmp_path / "log"
    with log.open("w") as file:
        command = [*NAS, "search", *BRIEF, "--trials", "30", "--confirm", "0", "--out", str(out)]
        driver = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
    wait_for_records(driver, out, 1, log)
    used = [each for each in leftovers() if each.kind == "scratch"]
    assert used
    assert not any(each.removable for each in used)
    assert not any(remove(each) for each in used)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    for each in used:
        aged(each.path)
    deadline = time.monotonic() + 60
    while not all(at(each.path).removable for each in used):
        assert time.monotonic() < deadline, leftovers()
        time.sleep(1.0)  # each look reads what all processes have open
        for agent in set(started_in(place)) - {os.getpid()}:  # Ray's, which try for a minute to say that it is gone
            with suppress(ProcessLookupError):
                os.kill(agent, signal.SIGKILL)
    assert all(remove(at(each.path)) for each in used)
    assert not list(place.glob("nas.*"))


@pytest.mark.ray
@pytest.mark.subprocess
@pytest.mark.slow
def test_a_search_that_ends_leaves_no_folder_and_a_late_ctrl_c_changes_nothing(place: Path, tmp_path: Path) -> None:
    command = [*NAS, "search", *BRIEF, "--trials", "1", "--confirm", "0", "--out", str(tmp_path / "run")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, start_new_session=True, **pipes) as driver:  # type: ignore[call-overload]
        said = list(itertools.takewhile(lambda line: not line.startswith("Next:"), driver.stdout))
        time.sleep(0.5)  # by now Ray is being ended
        driver.send_signal(signal.SIGINT)
        said.append(driver.stdout.read())
    assert driver.returncode == 0, "".join(said)
    assert "Traceback" not in "".join(said)
    assert not list(place.glob("nas.*"))
    assert not (place / "ray").exists()


def test_scratch_of_a_living_process_a_link_and_a_strangers_folder_stay(place: Path, tmp_path: Path) -> None:
    with scratch_folder(str(place)) as living:
        assert not at(aged(living)).removable
    assert not living.exists()
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    gone = place / "nas.gone"
    gone.mkdir()
    (gone / ".lock").touch()
    (gone / "out").symlink_to(tmp_path / "precious")
    (place / "nas.link").symlink_to(tmp_path / "precious")
    (place / "nas.other").mkdir()  # without a lock: whoever made it, it was not nas
    assert not at(gone).removable  # too young: it may be about to be locked
    found = at(aged(gone))
    assert found.removable
    assert remove(found)
    assert (tmp_path / "precious" / "file").exists()
    assert {path.name for path in place.iterdir()} >= {"nas.link", "nas.other"}
    assert not [each for each in leftovers() if each.path.name in ("nas.link", "nas.other")]


def test_a_ray_session_is_in_use_while_its_socket_answers(place: Path) -> None:
    session = place / "ray" / "session_2026-01-01_00-00-00_000000_1"
    (session / "sockets").mkdir(parents=True)
    (place / "ray" / "session_latest").symlink_to(session)
    with socket.socket(socket.AF_UNIX) as raylet:
        raylet.bind(str(session / "sockets" / "raylet"))
        raylet.listen()
        assert at(session, with_ray=True).reason == "in use"
    assert not at(session).removable
    assert at(session, with_ray=True).removable
    assert remove(at(session, with_ray=True))


@pytest.mark.subprocess
def test_decoded_images_go_when_they_are_not_used_for_long(place: Path) -> None:
    recent, old, mapped = entry(place, "a", time.time()), entry(place, "b", OLD), entry(place, "c", OLD)
    (place / "data" / "decoded" / "my own folder").mkdir()
    half = place / "data" / "decoded" / ".x1y2z3a4"
    half.mkdir()
    aged(half)
    code = "import mmap, sys\nwith open(sys.argv[1], 'rb') as f: m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)\n"
    reader = subprocess.Popen(
        [sys.executable, "-c", f"{code}print(flush=True)\ninput()", mapped / "train.npy"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert reader.stdout is not None
    reader.stdout.readline()
    assert [at(path).removable for path in (recent, old, mapped, half)] == [False, True, False, True]
    assert at(recent, unused_s=0).removable
    reader.communicate(b"\n")
    assert at(mapped).removable
    assert not [each for each in leftovers() if each.path.name == "my own folder"]


def test_a_read_of_decoded_images_is_a_use(place: Path) -> None:
    from sklearn.datasets import load_digits

    from nas.data.sets import load_data

    for number, pixels in enumerate(load_digits().images[:40]):
        folder = place / "photos" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15).astype("uint8")).save(folder / f"{number}.png")
    load_data(place / "photos", channels=1, size=8)
    (path,) = (place / "data" / "decoded").iterdir()
    aged(path / "index.json")
    assert at(path).removable
    load_data(place / "photos", channels=1, size=8)
    assert not at(path).removable


def test_latencies_go_when_nobody_looked_them_up_for_long(place: Path) -> None:
    from nas.latency.cache import LatencyCache

    (place / "latency").mkdir()
    files = [place / "latency" / f"{name}.jsonl" for name in ("old", "recent")]
    for file in files:
        file.write_text("{}\n")
    (place / "latency" / "link.jsonl").symlink_to(files[0])
    (place / "latency" / "notes.txt").touch()
    aged(files[0])
    assert [at(file).removable for file in files] == [True, False]
    LatencyCache(place / "latency").of(KEY)  # a read is a use
    assert not at(files[0]).removable
    aged(files[0])
    assert remove(at(files[0]))
    assert {each.name for each in (place / "latency").iterdir()} == {"recent.jsonl", "link.jsonl", "notes.txt"}
    assert not remove(at(files[1]))
    assert at(files[1], unused_s=0).removable


def test_it_shows_and_removes_only_when_told(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.cli.clean.console", Console(width=40))
    old, recent = entry(place, "b", OLD), entry(place, "c", time.time())
    (place / "latency").mkdir()
    (place / "latency" / "host.jsonl").write_text("{}\n")

    def said(*arguments: str) -> str:
        with pytest.raises(SystemExit) as end:
            main(["clean", *arguments])
        assert end.value.code == 0
        return capsys.readouterr().out

    shown = said()
    assert "1 item, 1.0 kB, can be removed: nas clean --remove" in shown
    assert "later searches look latencies up there" in shown
    assert {str(old), str(recent), str(place / "latency" / "host.jsonl")} <= set(
        shown.splitlines()
    )  # whole, to be pasted
    assert old.exists()
    assert "Removed 1 item of 1, 1.0 kB" in said("--remove")
    assert not old.exists()
    assert recent.exists()
    assert (place / "latency" / "host.jsonl").exists()
    assert "Nothing can be removed." in said()
    said("--unused", "0.001s", "--yes")
    assert not recent.exists()
