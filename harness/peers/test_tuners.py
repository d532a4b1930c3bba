"""The tuners of each age, with all their trials on two of our servers behind our tracker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.interop.clients import HOST
from harness.interop.servers import KEY

from .conftest import Ready, lines_of

if TYPE_CHECKING:
    from pathlib import Path

    from harness.interop.servers import Launcher, Program

TRIALS = 4
SINCE = {"autotvm": (0, 8), "auto_scheduler": (0, 8), "tune_tir": (0, 9)}
UNTIL = {"autotvm": (0, 19), "auto_scheduler": (0, 19), "tune_tir": (0, 99)}


@pytest.fixture(scope="session")
def tracker(launcher: Launcher, kind: str) -> Program:
    """Our tracker, with two of our servers."""
    tracker = launcher.tracker("ours")
    for _ in range(2):
        launcher.server(kind, tracker=tracker)
    return tracker


@pytest.mark.parametrize("flushes", ["0", "1"], ids=["cached", "flushed"])
@pytest.mark.parametrize("tuner", list(SINCE))
def test_every_trial(
    ready: Ready, tracker: Program, tmp_path: Path, tuner: str, flushes: str
) -> None:
    """A small product of matrices: not one trial fails, with and without flushed caches."""
    if not SINCE[tuner] <= ready.peer.version <= UNTIL[tuner]:
        pytest.skip(f"TVM {ready.peer.name} has no {tuner}")
    if ready.peer.version == (0, 16):
        pytest.skip(
            "hhb's 0.16 sends load_module two values more, which its own server refuses, too"
        )
    arguments = (tuner, flushes, TRIALS, HOST, tracker.port, KEY, tmp_path)
    assert lines_of(ready.run("tuner_cases.py", *arguments)) == [None] * TRIALS
