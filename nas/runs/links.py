"""Symbolic links in a run directory: others may have made them, to have a search write, delete or copy elsewhere."""

from pathlib import Path

from nas.common.errors import InputError
from nas.runs import layout


def refuse_links_outside(run: Path, *names: str) -> None:
    """Raise `InputError` where one of what a run writes, or of further `names` in it, is a link that leads outside of it.

    The directory itself may be a link, and links may lead from place to place in it.
    """
    for name in (*sorted(layout.WRITTEN), *names):
        refuse_link_outside(run, name)


def refuse_link_outside(run: Path, name: str) -> None:
    """The same for one of them."""
    path = run / name
    if path.is_symlink() and not (target := _end(path)).is_relative_to(run.resolve()):
        kind = "folder" if name in layout.FOLDERS or path.is_dir() else "file"
        raise InputError(f"{path}: is a link to {target}, outside of the run; put a {kind} there")


def links_of_trackers(run: Path) -> list[str]:
    """The links below the folders of trackers, which write there by names of their own, by their paths from the run's directory."""
    folders = (run / layout.TENSORBOARD, run / layout.MLFLOW)
    paths = (path for folder in folders for path in folder.rglob("*") if path.is_symlink())
    return sorted(path.relative_to(run).as_posix() for path in paths)


def _end(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # it leads round in a circle, so to no place in the run
        return path.readlink()


def is_linked(folder: Path, name: str) -> bool:
    """Whether a path from a folder is a link, or leads through one."""
    path = folder / name
    return any(step.is_symlink() for step in (path, *path.parents) if step != folder and step.is_relative_to(folder))


def linked_names(run: Path) -> list[str]:
    """Of what belongs to a run the links, by their paths from its directory."""
    links = [path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_symlink()]
    return sorted(name for name in links if name in layout.WRITTEN or layout.is_kept(name))
