"""Files that grow in a replica: only what is new is sent, few parts lie there, and a driver may die between any two writes."""

from __future__ import annotations

import json
import logging
import math
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import RunFactory
from test_run import record

from nas.cli.app import main
from nas.common.errors import InputError
from nas.common.jsonl import json_line
from nas.runs.parts import Parts, end_of, joined, next_step
from nas.runs.record import Evaluation, Outcome
from nas.runs.remote_folder import MARKER, Marker, RemoteFolder
from nas.runs.replica import _Copier, check_replica, fetch_run
from nas.runs.settings import EvaluationSettings, SearchSettings
from nas.runs.store import RunDirectory, open_run
from nas.search.broker import Broker
from nas.search.renewal import Renewal
from nas.spaces.files import load_space
from nas.training.recipe import Recipe
from nas.views.trackers import Progresses

DIGITS = SearchSettings(space=load_space("digits"), data="digits", evaluation=EvaluationSettings(Recipe(epochs=1)))
TRIALS, STUDY = "trials.jsonl", "study.journal"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "replica"


@pytest.fixture
def run(make_run: RunFactory, place: Path) -> RunDirectory:
    return make_run(replace(DIGITS, replica=f"file://{place}"))


def grow(run: RunDirectory, first: int, count: int) -> None:
    """Record trials, and tell each to a study, of which the line is the trial's number."""
    numbers = range(first, first + count)
    with (run.path / TRIALS).open("a") as trials, run.study_path.open("a") as study:
        trials.writelines(f"{json_line(record(number))}\n" for number in numbers)
        study.writelines(f"{number}\n" for number in numbers)


def copier(run: RunDirectory) -> _Copier:
    """What copies when it is told to, not by the clock."""
    assert run.settings.replica is not None
    return _Copier(run, run.settings.replica)


def there(place: Path, name: str = TRIALS) -> bytes:
    remote = RemoteFolder.at(f"file://{place}")
    return joined(name, remote.names(), remote.read).content


def parts(place: Path, name: str = TRIALS) -> list[Path]:
    return sorted((place / "parts" / name).glob("*"))


def died(place: Path) -> None:
    """The driver that copied has been silent for long."""
    marker = json.loads((place / MARKER).read_text())
    (place / MARKER).write_text(json.dumps(marker | {"copied": 0.0, "host": "gone"}))


def test_parts_are_few_and_no_byte_is_sent_often(tmp_path: Path) -> None:
    file, sent, drawn = tmp_path / TRIALS, 0, random.Random(7)
    held: Parts = ()
    store: dict[str, bytes] = {}
    with file.open("ab") as out:
        for _ in range(2000):
            out.write(b"x" * drawn.randrange(300) + b"\n")
            out.flush()
            step = next_step(file, held, file.stat().st_size)
            assert step is not None
            assert step.content
            sent += len(step.content)
            held = (*step.kept, step.part)
            store[step.part.file(TRIALS)] = step.content
            for old in step.taken_in:
                del store[old.file(TRIALS)]
            assert len(store) == len(held) <= math.log2(file.stat().st_size) + 1
            assert all(part.end - part.start > end_of(held) - part.end for part in held)
    size = file.stat().st_size
    assert joined(TRIALS, store, store.get).content == file.read_bytes()
    assert end_of(held) == size
    assert sent < size * math.log2(2000)


def test_each_copy_sends_what_is_new_and_the_last_one_leaves_a_run_directory(
    run: RunDirectory, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    write = RemoteFolder.write

    def counted(remote: RemoteFolder, name: str, content: bytes) -> None:
        if TRIALS in name:
            sizes.append(len(content))
        write(remote, name, content)

    monkeypatch.setattr(RemoteFolder, "write", counted)
    copies = copier(run)
    grow(run, 0, 20)
    copies._copy()
    size = run.path.joinpath(TRIALS).stat().st_size
    for number in range(20, 23):
        grow(run, number, 1)
        copies._copy()
    assert sizes[0] == size
    assert max(sizes[1:]) < size / 5
    whole = (run.path / TRIALS).read_bytes()
    (run.path / TRIALS).write_bytes(whole + b'{"torn')
    copies._copy()
    assert there(place) == whole
    assert (place / TRIALS).stat().st_size == size
    assert len(parts(place)) == 2
    copies.start()
    copies.finish()
    assert not place.joinpath("parts").exists()
    assert open_run(place).recorded() == [record(number) for number in range(23)]


def test_a_driver_that_dies_between_two_writes_leaves_what_can_be_resumed(
    run: RunDirectory, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    operations, dies_at = [0], [-1]

    def counted(act: Callable[..., None]) -> Callable[..., None]:
        def counting(*arguments: object) -> None:
            operations[0] += 1
            if operations[0] > dies_at[0] >= 0:
                raise OSError("dead")
            act(*arguments)

        return counting

    def searched(dies: int) -> int:
        """How many operations a replica took until its driver died."""
        shutil.rmtree(place, ignore_errors=True)
        run.study_path.unlink(missing_ok=True)
        (run.path / TRIALS).write_bytes(b"")
        operations[0], dies_at[0] = 0, dies
        copies = copier(run)
        try:
            for number, count in enumerate((3, 1, 1, 2)):
                grow(run, 10 * number, count)
                copies._copy()
            copies._join_parts()
        except OSError:
            pass
        dies_at[0] = -1
        return operations[0]

    monkeypatch.setattr(RemoteFolder, "write", counted(RemoteFolder.write))
    monkeypatch.setattr(RemoteFolder, "delete", counted(RemoteFolder.delete))
    total = searched(-1)
    assert total > 20
    seen = set()
    for dies in range(total):
        searched(dies)
        if not (place / TRIALS).is_file():
            continue
        trials, study = there(place), there(place, STUDY)
        assert run.path.joinpath(TRIALS).read_bytes().startswith(trials)
        assert run.study_path.read_bytes().startswith(study)
        numbers = [json.loads(line)["number"] for line in trials.splitlines()]
        assert {int(number) for number in study.split()} <= set(numbers)
        seen.add(len(numbers))
        if dies % 6 == 0 and (place / "run.yaml").is_file():
            died(place)
            shutil.rmtree(tmp_path / "fetched", ignore_errors=True)
            fetch_run(f"file://{place}", tmp_path / "fetched")
            again = open_run(tmp_path / "fetched")
            assert again.path.joinpath(TRIALS).read_bytes() == trials
            grow(again, 100, 1)
            copies = copier(again)
            copies._copy()
            assert there(place) == again.path.joinpath(TRIALS).read_bytes()
            assert there(place, STUDY) == again.study_path.read_bytes()
            copies._join_parts()
            assert not parts(place) + parts(place, STUDY)
    assert seen == {3, 4, 5, 7}


def test_a_replica_of_an_earlier_version_is_resumed_and_goes_on(run: RunDirectory, place: Path, tmp_path: Path) -> None:
    grow(run, 0, 8)
    shutil.copytree(run.path, place)
    RemoteFolder.at(f"file://{place}").mark(replace(Marker.of(run, 30.0), host="gone", copied=0.0))
    fetch_run(f"file://{place}", tmp_path / "fetched")
    again = open_run(tmp_path / "fetched")
    copies = copier(again)
    for number in (8, 9):
        grow(again, number, 1)
        copies._copy()
    assert (place / TRIALS).read_bytes() == (run.path / TRIALS).read_bytes()  # sent once, by that version
    assert there(place) == (again.path / TRIALS).read_bytes()
    assert there(place, STUDY) == again.study_path.read_bytes()


def test_a_replica_that_was_not_ended_says_that_it_is_no_whole_run(
    run: RunDirectory, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copies = copier(run)
    for first, count in ((0, 8), (8, 1)):
        grow(run, first, count)
        copies._copy()
    synced = open_run(place)
    says = "a replica, or a copy of one, whose newest records lie in parts/ there"
    assert says in caplog.text
    assert len(synced.recorded()) == 8
    with pytest.raises(InputError, match=f"{says}; resume file://{place} goes on"), synced.locked():
        pass
    copies._join_parts()
    caplog.clear()
    assert len(open_run(place).recorded()) == 9
    assert not caplog.text


def test_of_a_folder_of_parts_what_is_empty_alone_is_removed(place: Path, tmp_path: Path) -> None:
    for folder in (place / "parts/empty", place / "parts/full", tmp_path / "elsewhere/empty"):
        folder.mkdir(parents=True)
    place.joinpath("parts/full/file").touch()
    place.joinpath("parts/link").symlink_to(tmp_path / "elsewhere")
    remote = RemoteFolder.at(f"file://{place}")
    remote.remove_empty("parts")
    assert sorted(path.name for path in place.rglob("*")) == ["file", "full", "link", "parts"]
    place.joinpath("linked").symlink_to(tmp_path / "elsewhere")
    remote.remove_empty("linked")
    assert tmp_path.joinpath("elsewhere/empty").is_dir()


def cut(part: Path) -> None:
    part.write_bytes(part.read_bytes()[:-3])


@pytest.mark.parametrize("harm", [Path.unlink, cut])
def test_a_part_that_is_missing_or_cut_ends_the_records_before_it(
    run: RunDirectory, place: Path, tmp_path: Path, harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    copies = copier(run)
    for first, count in ((0, 8), (8, 3), (11, 1)):
        grow(run, first, count)
        copies._copy()
    assert len(parts(place)) == 2
    left = parts(place)[harm is Path.unlink]
    harm(parts(place)[0])
    died(place)
    fetch_run(f"file://{place}", tmp_path / "fetched")
    says = f"{left.relative_to(place)} there was cut, or what comes before it is missing"
    assert says in caplog.text
    again = open_run(tmp_path / "fetched")
    assert again.recorded() == [record(number) for number in range(8)]
    before = {path: path.read_bytes() for path in parts(place)}
    with pytest.raises(InputError, match=f"{says}; give another prefix .*replica off beside resume"):
        check_replica(again)
    assert {path: path.read_bytes() for path in parts(place)} == before


def test_a_replica_that_lacks_a_part_is_resumed_without_it_or_not_at_all(
    run: RunDirectory,
    place: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    went_on: list[tuple[Path, str]] = []

    def resume(path: Path, renewal: Renewal, address: str | None, progress: Progresses, replica: str, _: None) -> None:
        went_on.append((path, replica))
        raise InputError("far enough")

    monkeypatch.setattr("nas.views.reported.resume_search", resume)
    copies = copier(run)
    for first, count in ((0, 8), (8, 3), (11, 1)):
        grow(run, first, count)
        copies._copy()
    parts(place)[0].unlink()
    died(place)
    uri, size, told = f"file://{place}", place.joinpath(TRIALS).stat().st_size, []
    for name, arguments in (("a", []), ("b", ["--replica", "off"]), ("c", ["--replica", f"file://{tmp_path}/empty"])):
        with pytest.raises(SystemExit):
            main(["search", "--resume", uri, "--out", str(tmp_path / name), *arguments])
        told.append(" ".join(capsys.readouterr().err.split()))
    assert f"go on from byte {size} of trials.jsonl with --replica off, or --replica and an empty prefix" in told[0]
    assert not (tmp_path / "a").exists()
    assert went_on == [(tmp_path / "b", "off"), (tmp_path / "c", f"file://{tmp_path}/empty")]


def test_parts_of_a_study_that_was_made_again_are_not_joined_with_it(run: RunDirectory, place: Path) -> None:
    copies = copier(run)
    for first, count in ((0, 8), (8, 1)):
        grow(run, first, count)
        copies._copy()
    assert parts(place, STUDY)
    run.study_path.write_text("made again\n")
    copies._copy()
    assert there(place, STUDY) == b"made again\n"
    run.study_path.write_text("made again\nand longer than it was before\n")
    copies._copy()
    assert there(place, STUDY) == run.study_path.read_bytes()


def test_records_that_were_changed_before_their_end_are_not_copied_over_parts(run: RunDirectory, place: Path) -> None:
    copies = copier(run)
    for first, count in ((0, 8), (8, 2)):
        grow(run, first, count)
        copies._copy()
    before = there(place)
    (run.path / TRIALS).write_bytes(before.replace(b'"number":8', b'"number":7'))
    grow(run, 10, 2)
    with pytest.raises(InputError, match=f"no longer holds the {len(before)} bytes"):
        copies._copy()
    assert there(place) == before


def test_a_study_that_knows_more_than_the_records_is_made_again_from_them(
    make_run: RunFactory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    run = make_run(replace(DIGITS, sampler="random", trials=4))
    broker = Broker(run)
    for _ in range(2):
        candidate = broker.ask()
        assert candidate is not None
        broker.finish(candidate, Evaluation(Outcome.FAILED, reason="none"))
    trials = run.path / TRIALS
    trials.write_bytes(trials.read_bytes().splitlines(keepends=True)[0])
    again = Broker(open_run(run.path))
    assert "study.journal knows trials that the records lack" in caplog.text
    assert [trial.number for trial in again.study.trials if "outcome" in trial.user_attrs] == [0]
