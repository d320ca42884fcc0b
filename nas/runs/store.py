"""The run directory: the only reader and writer of what a search leaves on disk (`nas.runs.layout` says what lies there)."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pydantic import TypeAdapter

from nas.common.errors import InputError, arg
from nas.common.files import (
    LaterRecords,
    each_record,
    file_mark,
    later_records,
    load_tensors,
    only_process,
    read_records,
    write_atomically,
    writing,
)
from nas.common.jsonl import Grown, append_line, json_line
from nas.common.text import quoted
from nas.runs import layout
from nas.runs.driver_files import PARTS_THERE, DriverFiles, has_parts
from nas.runs.in_turn import with_remeasured
from nas.runs.limits import apply_limits
from nas.runs.links import refuse_links_outside
from nas.runs.record import AuditRecord, BaselineRecord, Confirmation, LatencyRecord, TrainingRecord, TrialRecord
from nas.runs.run_file import Change, Provenance, RunFile, read_run_file, write_run_file
from nas.runs.run_images import RunImages, read_images
from nas.runs.settings import SearchSettings, is_limit, terms
from nas.tasks.base import task_of

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

_RECENT_WEIGHTS = 4
_T = TypeVar("_T")

_RECORD = TypeAdapter(TrialRecord)
_BASELINE = TypeAdapter(BaselineRecord)
_CONFIRMATION = TypeAdapter(Confirmation)
_AUDIT = TypeAdapter(AuditRecord)
_TRAINING = TypeAdapter(TrainingRecord)
_LATENCY = TypeAdapter(LatencyRecord)


class RunDirectory(DriverFiles):
    """A run on disk. Make one with `create` or `open_run`."""

    def __init__(self, path: Path, content: RunFile) -> None:
        super().__init__(path)
        self.content = content
        self._grown: dict[str, Grown] = {}

    def __repr__(self) -> str:
        """Where it lies and what is searched, without a look at the disk."""
        settings = self.settings
        what = f"{settings.space.name} on {settings.data} for {', '.join(settings.objectives)}"
        return f"<{type(self).__name__} {self.path}: {what}>"

    @property
    def settings(self) -> SearchSettings:
        """What the search was told."""
        return self.content.settings

    @property
    def provenance(self) -> Provenance:
        """Where and with what it was started."""
        return self.content.provenance

    @property
    def outputs(self) -> int:
        """How many values its networks give for an image."""
        return task_of(self.settings.evaluation.task).outputs(self.provenance.classes)

    @property
    def report_path(self) -> Path:
        """Where the report lies."""
        return self.path / layout.REPORT

    @property
    def picture_path(self) -> Path:
        """Where the picture of the front lies, where one was asked for."""
        return self.path / layout.PICTURE

    @property
    def study_path(self) -> Path:
        """The Optuna journal file."""
        return self.path / layout.STUDY

    @classmethod
    def create(
        cls,
        path: Path,
        settings: SearchSettings,
        provenance: Provenance,
        records: Sequence[TrialRecord] = (),
        weights: Mapping[str, Path] | None = None,
        images: RunImages | None = None,
    ) -> RunDirectory:
        """Make the directory and its run.yaml; raises `InputError` when something is there already.

        It begins with `records` of earlier runs, and copies of `weights` by digest, if they are still there, and with the hashes
        of its `images`. run.yaml comes last: a directory that can be opened holds all of them.
        """
        content = RunFile(settings, provenance)
        try:
            path.mkdir(parents=True)
        except FileExistsError as error:
            raise InputError(f"{path}: exists already; give another {arg('out')}, or {arg('resume')} {path}") from error
        except OSError as error:
            raise InputError(f"{path}: cannot be made: {error.strerror}") from error
        run = cls(path, content)
        with writing(path):
            (path / layout.WEIGHTS).mkdir()
            for digest, file in (weights or {}).items():
                with suppress(FileNotFoundError):  # the earlier run may be going on, and keep others by now
                    write_atomically(run.weights_path(digest), file.read_bytes())
            if images is not None:
                write_atomically(path / layout.IMAGES, images.content())
            lines = "".join(f"{json_line(record)}\n" for record in records)
            write_atomically(path / layout.TRIALS, lines.encode())
        write_run_file(path, content, new=True)
        return run

    def images(self) -> RunImages | None:
        """Its images by their hashes; None in runs of older versions."""
        return read_images(self.path / layout.IMAGES)

    def with_settings(self, settings: SearchSettings) -> Self:
        """The same run under other settings, written to run.yaml with what held before, if that decided anything."""
        now, before = terms(settings), terms(self.settings)
        other = {name: value for name, value in before.items() if now.get(name) != value}
        changes = self.content.changes
        if other:
            changes = (*changes, Change(time.time(), len(self.recorded()), other))
        content = replace(self.content, settings=settings, changes=changes)
        write_run_file(self.path, content)
        return type(self)(self.path, content)

    # ---------------------------------------------------------------- records

    def append(self, record: TrialRecord) -> None:
        """Add a record; on return it is on the disk.

        Raises `InputError` where it cannot be written, as all of these do, or where another driver goes on with the run. Where
        what was written or read through this object is gone, no file is begun anew.
        """
        self.check_driver()
        with writing(self.path / layout.TRIALS):
            self._note_trials()
        self._append(layout.TRIALS, record)

    def _note_trials(self) -> None:
        """Note how far the records go, unless it is known. Raises `OSError`."""
        if layout.TRIALS not in self._grown:
            self._grown[layout.TRIALS] = Grown.of(self.path / layout.TRIALS)

    def _append(self, name: str, *records: Any) -> None:
        """Add records to a file in one write; on return they are on the disk."""
        path = self.path / name
        with writing(path):
            self._grown[name] = append_line(path, "\n".join(map(json_line, records)), self._grown.get(name))

    def recorded(self) -> list[TrialRecord]:
        """All records as they were written, in that order. A torn or foreign line is left out, with a warning."""
        self._note_trials()
        return read_records(self.path / layout.TRIALS, _RECORD)

    def first_recorded(self) -> Iterator[TrialRecord]:
        """The same, one after another, for whoever needs the first ones alone."""
        return each_record(self.path / layout.TRIALS, _RECORD)

    def records(self) -> list[TrialRecord]:
        """All records by the run's limits of now; torn lines as in `recorded`."""
        return self.apply_limits(self.recorded())

    def apply_limits(self, records: list[TrialRecord]) -> list[TrialRecord]:
        """Records as they were written, by the run's limits of now: others where a resumed search was given other limits."""
        return apply_limits(records, self.settings.evaluation) if self.limits_changed else records

    @property
    def limits_changed(self) -> bool:
        """Whether trials were judged by other hard limits than those of now."""
        return any(is_limit(name) for change in self.content.changes for name in change.before)

    def records_from(self, start: int) -> LaterRecords[TrialRecord]:
        """The records that were finished from byte `start` on, for a reader that follows a run. Raises `OSError`."""
        return later_records(self.path / layout.TRIALS, _RECORD, start)

    def file_marks(self) -> dict[str, tuple[int, int, int] | None]:
        """Inode, bytes and time of each file that a run is read from: what changed shows here. None where there is none."""
        return {name: file_mark(self.path / name) for name in layout.READ}

    def _lines(self, name: str, kind: TypeAdapter[_T]) -> list[_T]:
        path = self.path / name
        return read_records(path, kind) if path.is_file() else []

    def append_latencies(self, records: Sequence[LatencyRecord]) -> None:
        """Add what was measured in turn, all of it in one write; on return it is on the disk."""
        self.check_driver()
        self._append(layout.LATENCIES, *records)

    def latencies(self) -> list[LatencyRecord]:
        """All latencies that were measured in turn, in the order written; torn lines as in `records`."""
        return self._lines(layout.LATENCIES, _LATENCY)

    def judged(self) -> list[TrialRecord]:
        """The records by the newest latencies that were measured in turn: what front, picks and limits go by."""
        return with_remeasured(self.records(), self.latencies(), self.settings)

    def append_confirmation(self, confirmation: Confirmation) -> None:
        """Add what training a candidate again gave; on return it is on the disk."""
        self.check_driver()
        self._append(layout.CONFIRMATIONS, confirmation)

    def confirmations(self) -> list[Confirmation]:
        """All confirmations in the order written; torn lines as in `records`."""
        return self._lines(layout.CONFIRMATIONS, _CONFIRMATION)

    def append_baseline(self, record: BaselineRecord) -> None:
        """Add what a reference network gave, also while a search runs; on return it is on the disk."""
        refuse_links_outside(self.path)
        self._append(layout.BASELINES, record)

    def baselines(self) -> list[BaselineRecord]:
        """The latest record of each reference network, in the order first written; torn lines as in `records`."""
        return list({record.name: record for record in self._lines(layout.BASELINES, _BASELINE)}.values())

    def append_audit(self, record: AuditRecord) -> None:
        """Add what a training of a fidelity check gave; on return it is on the disk."""
        self._append(layout.AUDITS, record)

    def audit_records(self) -> list[AuditRecord]:
        """All trainings of fidelity checks in the order written; torn lines as in `records`."""
        return self._lines(layout.AUDITS, _AUDIT)

    def append_training(self, record: TrainingRecord) -> None:
        """Add what a full training gave, also while a search runs; on return it is on the disk."""
        self._append(layout.TRAININGS, record)

    def training_records(self) -> list[TrainingRecord]:
        """All full trainings in the order written, failed ones too; torn lines as in `records`."""
        return self._lines(layout.TRAININGS, _TRAINING)

    def save_report(self, page: str) -> Path:
        """Write the report; readers see the whole file or none. Raises `InputError` when it cannot be written."""
        with writing(self.report_path):
            write_atomically(self.report_path, page.encode())
        return self.report_path

    # ---------------------------------------------------------------- weights

    def weights_path(self, digest: str) -> Path:
        """Where the weights of a candidate lie, if they were kept."""
        return self.path / layout.weights_file(digest)

    def save_weights(self, digest: str, content: bytes) -> None:
        """Keep the weights of a candidate, the content of a safetensors file; readers see the whole file or none."""
        write_atomically(self.weights_path(digest), content)

    def load_weights(self, digest: str) -> dict[str, torch.Tensor]:
        """The kept weights of a candidate; raises `InputError` when they were not kept or are damaged."""
        path = self.weights_path(digest)
        if not path.is_file():
            raise self._not_kept(digest)
        return load_tensors(path)

    def _not_kept(self, digest: str) -> InputError:
        return InputError(
            f"{self.weights_path(digest)}: the weights of {digest} were not kept (a run keeps those of its front, of what is "
            f"near it and of the last {_RECENT_WEIGHTS} trials): pick one of those"
        )

    def prune_weights(self, keep: Collection[str]) -> None:
        """Delete weights of candidates not in `keep`, but for the most recent few; nothing behind a link."""
        folder = self.path / layout.WEIGHTS
        if folder.is_symlink():
            return
        files = sorted(folder.glob(f"*{layout.SAFETENSORS}"), key=lambda p: p.lstat().st_mtime)
        for path in files[:-_RECENT_WEIGHTS]:
            if path.stem not in keep:
                path.unlink(missing_ok=True)

    # ---------------------------------------------------------------- full trainings

    def trained_weights(self, record: TrainingRecord) -> Path:
        """Where the weights of a full training lie, once it has ended."""
        return self.path / layout.trained_file(record.digest, record.key)

    def save_trained(self, record: TrainingRecord, content: bytes, hardest: bytes | None = None) -> None:
        """Keep the weights of a full training, and pictures of what it found hardest (`nas.tasks.examples`).

        To be called before it is recorded; readers see whole files or none.
        """
        with writing(self.path / layout.TRAINED):
            if hardest is not None:
                write_atomically(self._hardest_path(record), hardest)
            write_atomically(self.trained_weights(record), content)

    def _hardest_path(self, record: TrainingRecord) -> Path:
        return self.path / layout.trained_file(record.digest, record.key, layout.HARDEST)

    def hardest_pictures(self, record: TrainingRecord) -> bytes | None:
        """The pictures of what a full training found hardest, or None where there are none."""
        try:
            return self._hardest_path(record).read_bytes()
        except OSError:
            return None

    def load_trained(self, record: TrainingRecord) -> dict[str, torch.Tensor]:
        """The weights of a full training; raises `InputError` when they are gone or damaged."""
        path = self.trained_weights(record)
        if not path.is_file():
            raise InputError(f"{path}: the weights of this training are gone; it has to be trained again")
        return load_tensors(path)

    def save_checkpoint(self, key: str, content: bytes) -> None:
        """Keep what a full training goes on from, in place of what was kept before; readers see the whole file or none."""
        with writing(self.path / layout.TRAINED):
            write_atomically(self.checkpoint_path(key), content)

    def checkpoint_path(self, key: str) -> Path:
        """Where a full training that has not ended keeps what it goes on from."""
        return self.path / layout.checkpoint_file(key)

    def keep_start(self, key: str, digest: str) -> None:
        """Keep the search's weights of a candidate for a full training, since a search that runs may delete them.

        Raises `InputError` where they are gone already.
        """
        path = self.start_path(key)
        if path.is_file():
            return
        with writing(self.path / layout.TRAINED):
            path.parent.mkdir(exist_ok=True)
            try:
                path.hardlink_to(self.weights_path(digest))
            except FileNotFoundError:
                raise self._not_kept(digest) from None
            except FileExistsError:  # another process is to train it too
                pass
            except OSError:  # not every file system has links
                self._copy_start(path, digest)

    def _copy_start(self, path: Path, digest: str) -> None:
        try:
            content = self.weights_path(digest).read_bytes()
        except FileNotFoundError:
            raise self._not_kept(digest) from None
        write_atomically(path, content)

    def start_path(self, key: str) -> Path:
        """Where a full training that has not ended keeps the weights to begin with."""
        return self.path / layout.start_file(key)

    def load_start(self, key: str) -> dict[str, torch.Tensor]:
        """The weights that a full training begins with; raises `InputError` when they are gone or damaged."""
        return load_tensors(self.start_path(key))

    def forget_training(self, key: str) -> None:
        """The training has ended: what it began with, and what it would have gone on from, are of no more use."""
        self.checkpoint_path(key).unlink(missing_ok=True)
        self.start_path(key).unlink(missing_ok=True)

    @contextmanager
    def training_locked(self, key: str) -> Iterator[None]:
        """Be the only process with this full training; raises `InputError` when another one is at it, or a link leads outside."""
        refuse_links_outside(self.path, layout.training_lock(key))
        with writing(self.path / layout.TRAINED):
            (self.path / layout.TRAINED).mkdir(exist_ok=True)
        busy = f"{self.path}: another process is at this training already"
        with only_process(self.path / layout.training_lock(key), self.path, busy):
            yield


def open_run(path: str | Path) -> RunDirectory:
    """Open an existing run directory; raises `InputError` when it is not one."""
    path = Path(path)
    try:
        is_run = (path / layout.RUN_FILE).is_file() and (path / layout.TRIALS).is_file()
    except OSError as error:
        raise InputError(f"{quoted(str(path))}: cannot be read: {error.strerror}") from error
    if not is_run:
        raise InputError(f"{path}: not a run directory (no run.yaml and trials.jsonl there)")
    if has_parts(path):
        logger.warning("%s: %s", path, PARTS_THERE)
    return RunDirectory(path, read_run_file(path))
