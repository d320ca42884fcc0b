"""What Ray reads from the environment alone: set while it is started or runs, and as it was afterwards."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

OF_RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no usage statistics are sent
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a process that takes no GPU still sees those of the machine
}
OF_TUNE = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # 0.03 s a trial
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # signals are nas.common.signals's
    "TUNE_GLOBAL_CHECKPOINT_S": "inf",  # each would hold all trials so far, and nobody reads it
    "RAY_AIR_NEW_OUTPUT": "0",  # no tables
}


@contextmanager
def environment(variables: Mapping[str, str], usual: Mapping[str, str] | None = None) -> Iterator[None]:
    """While the context lasts, these variables have these values; `usual` ones have theirs unless the user set them."""
    wanted = {name: value for name, value in (usual or {}).items() if name not in os.environ} | dict(variables)
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
