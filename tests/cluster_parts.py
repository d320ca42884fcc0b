"""What happens in the workers of tests/test_cluster.py, made up, so that it takes no time.

Imported by Ray's workers, and sent to them: without torch and the test's own imports, which take seconds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from answers import answer, snapshot

from nas.common.errors import WrongNodeError
from nas.runs.record import Evaluation
from nas.search.candidate import Candidate

if TYPE_CHECKING:
    from nas.search.ray.worker import Evaluator


def here() -> str:
    """The id of the node that this runs on."""
    import ray

    return str(ray.get_runtime_context().get_node_id())


def shared(what: str) -> Path:
    """A file that all processes of these tests see."""
    return Path(os.environ["NAS_LEASE_DIR"]) / what


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 100
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def evaluated(candidate: Candidate) -> Generator[Evaluation, None, Evaluation]:
    yield snapshot(candidate)
    return replace(answer(candidate), worker=here())


def start() -> Evaluator:
    return evaluated


def waits_for_the_other(candidate: Candidate) -> Generator[Evaluation, None, Evaluation]:
    """On a node that was there first, once another one has joined: until that is at work."""
    joined = shared("joined").read_text() if shared("joined").exists() else None
    if here() == joined:
        shared("at work").touch()
    elif joined:
        wait_for(shared("at work").exists)
    yield snapshot(candidate)
    return replace(answer(candidate), worker=here())


def start_waiting() -> Evaluator:
    return waits_for_the_other


def never_ends_on_the_victim(candidate: Candidate) -> Generator[Evaluation, None, Evaluation]:
    yield snapshot(candidate)
    if here() == shared("victim").read_text():
        shared("victim at work").touch()
        time.sleep(1000)
    wait_for(shared("victim at work").exists)
    return replace(answer(candidate), worker=here())


def start_with_a_victim() -> Evaluator:
    return never_ends_on_the_victim


def start_with_the_board() -> Evaluator:
    """What a worker does that finds another model of device than the search's: here on nodes without a board."""
    import ray

    own = next(node for node in ray.nodes() if node["NodeID"] == here())
    if "BOARD" not in own["Resources"]:
        shared("declined").touch()
        from nas.search.ray.measuring import node_name

        raise WrongNodeError(f"{node_name()} has a 486, and the latencies of this search are of a Pentium", here())
    return evaluated


def waits_for_a_verdict(candidate: Candidate) -> Generator[Evaluation, None, Evaluation]:
    """Until the search has made up its mind about a node that joined, or a trial runs there."""
    if candidate.number > 0:
        if here() != shared("t4").read_text():
            shared("verdict").touch()
        wait_for(shared("verdict").exists)
    yield snapshot(candidate)
    return replace(answer(candidate), worker=here())


def start_waiting_for_a_verdict() -> Evaluator:
    return waits_for_a_verdict
