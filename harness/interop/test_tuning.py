"""TVM's own tuner, with its trials on two of our servers behind our tracker."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .clients import HOST
from .servers import KEY

if TYPE_CHECKING:
    from .servers import Launcher

TUNER = Path(__file__).parents[1] / "peers" / "tuner_cases.py"
TRIALS = 8


@pytest.mark.parametrize("kind", ["ours", "native"])
@pytest.mark.parametrize("flushes", ["0", "1"], ids=["cached", "flushed"])
def test_every_trial_of_tune_tir(
    launcher: Launcher, tmp_path: Path, flushes: str, kind: str
) -> None:
    """A small product of matrices, measured by two servers: not one trial fails."""
    tracker = launcher.tracker("ours")
    servers = [launcher.server(kind, KEY, tracker) for _ in range(2)]
    try:
        said = tuned(sys.executable, "tune_tir", flushes, tracker, tmp_path)
    finally:
        for program in (*servers, tracker):
            launcher.stop(program)
    assert said == [None] * TRIALS


def tuned(python: str, tuner: str, flushes: str, tracker: Any, folder: Path) -> list[Any]:
    """What became of each trial: None, or what went wrong."""
    command = [python, str(TUNER), tuner, flushes, str(TRIALS), HOST, str(tracker.port), KEY]
    done = subprocess.run(
        [*command, str(folder)], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    lines = [line for line in done.stdout.splitlines() if line[:1] in ('"', "n")]
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in lines]
