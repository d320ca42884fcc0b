"""The study in a database that several searches share, rather than in the run's own journal file.

The driver alone speaks with it. It may be lost, or be newer than a run that was restored: the records are the truth.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage

from nas.common.errors import InputError, arg
from nas.common.redact import has_password, without_password
from nas.common.text import resume_line
from nas.runs.settings import SearchSettings
from nas.runs.store import RunDirectory

_ALLOWED = (
    "it takes the URL of a database as SQLAlchemy does: postgresql://user@host/database (extra postgresql), "
    "sqlite:///file.db"
)


def stored_url(url: str) -> str:
    """What run.yaml keeps of a URL: all but the password; the path of an SQLite file in full.

    Raises `InputError` when it is not a URL of a database.
    """
    from sqlalchemy import make_url
    from sqlalchemy.exc import SQLAlchemyError

    try:
        parsed = make_url(url)
    except SQLAlchemyError as error:
        raise InputError(f"{arg('storage')} {without_password(url)}: not the URL of a database; {_ALLOWED}") from error
    if parsed.get_backend_name() == "sqlite":
        if parsed.database in (None, "", ":memory:"):
            raise InputError(
                f"{arg('storage')} {without_password(url)}: names no file, so that no study would be kept; {_ALLOWED}"
            )
        if not parsed.database.startswith("file:"):
            url = parsed.set(database=str(Path(parsed.database).absolute())).render_as_string(hide_password=False)
    return without_password(url)


def open_storage(url: str) -> RDBStorage:
    """Connect to a database and make Optuna's tables where they are missing; raises `InputError` where that fails."""
    kept = stored_url(url)
    try:
        storage = RDBStorage(url, engine_kwargs={"pool_pre_ping": True})  # the server may restart between two trials
    except Exception as error:  # the driver's own, or that of a module that is missing
        why = _without_secrets(_first_cause(error), url)
        raise InputError(f"{arg('storage')} {kept}: cannot be used: {why}; {_ALLOWED}{_hint(url)}") from None
    storage.url = kept  # which would be pickled with a study
    return storage


def connected(settings: SearchSettings) -> tuple[SearchSettings, RDBStorage | None]:
    """The database of a search's settings, if they name one, and the settings without its password."""
    if settings.storage is None:
        return settings, None
    return replace(settings, storage=stored_url(settings.storage)), open_storage(settings.storage)


def study_name(run: RunDirectory) -> str:
    """The study's name in a database of many: that of the run's folder, and when the run was started.

    A folder of another name is another study, made again from the records, so that copies of a run do not share one.
    """
    created = run.provenance.created
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(created))
    return f"nas-{run.path.absolute().name}-{stamp}-{int(created % 1 * 1e6):06d}"


@contextmanager
def database_errors(run: RunDirectory) -> Iterator[None]:
    """Turn the failures of a database during a search into an `InputError` that says how to go on."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        raise InputError(
            f"{arg('storage')} {run.settings.storage}: fails: {_first_cause(error)}; every finished trial is recorded, go on with "
            + resume_line(run.path)
        ) from error


def _first_cause(error: BaseException) -> str:
    """What the database said: SQLAlchemy and Optuna add statements and links."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:300]


def _hint(url: str) -> str:
    if has_password(url) or not url.startswith("postgres"):
        return ""
    return f"; a password comes from PGPASSWORD, from ~/.pgpass, or with {arg('storage')}, beside {arg('resume')} too"


def _without_secrets(text: str, url: str) -> str:
    from sqlalchemy import make_url

    parsed = make_url(url)
    kept = make_url(without_password(url)).query
    for secret in (parsed.password, *(value for name, value in parsed.query.items() if name not in kept)):
        text = text.replace(str(secret), "***") if secret else text
    return text
