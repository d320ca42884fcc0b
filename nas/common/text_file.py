"""Text files that users name: what they hold, or a sentence."""

from __future__ import annotations

from pathlib import Path

from nas.common.errors import InputError

MOST_BYTES = 64 * 2**20
"""Bytes that such a file has at most: /dev/zero has no end."""


def read_text(path: Path, shown: str) -> str:
    """What a UTF-8 file holds; raises `InputError`, which calls the file as `shown`, but `FileNotFoundError` where there is none."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise InputError(f"{shown}: cannot be read: larger than {MOST_BYTES >> 20} MiB, which no such file is")
        return content.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError:
        raise
    except UnicodeDecodeError as error:
        raise InputError(f"{shown}: cannot be read: not a UTF-8 text file") from error
    except OSError as error:
        raise InputError(f"{shown}: cannot be read: {error.strerror}") from error
