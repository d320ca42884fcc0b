"""What a training step frees on a CPU, the next one takes: in processes that nas itself is, by the C library's allocator.

How a process allocates is the business of whoever started it, so nothing is changed in a program or notebook of the user's.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# From glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4


class _Process:
    ours = False


def own_process() -> None:
    """This process runs nas alone (a worker, a command): its trainings may keep what they free."""
    _Process.ours = True


@contextmanager
def reused_memory(device: torch.device) -> Iterator[None]:
    """Keep what is freed on a CPU for what is allocated next; afterwards it goes back to the system.

    glibc maps and unmaps large tensors one by one, and the kernel clears each page of theirs again, at every step
    (mallopt(3)). Does nothing for a GPU, another C library, or in a process that is not nas's own.
    """
    libc = ctypes.CDLL(None)
    if not _Process.ours or device.type != "cpu" or not hasattr(libc, "gnu_get_libc_version"):
        yield
        return
    libc.mallopt(_MMAP_MAX, 0)
    libc.mallopt(_TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_MAX, 65536)
        # Setting any of them ends glibc's own adjustment, so these are the bounds at which that would have ended.
        libc.mallopt(_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(_TRIM_THRESHOLD, 64 << 20)
        libc.malloc_trim(0)
