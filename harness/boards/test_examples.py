"""All of examples/ on the boards, run as a user runs it: the kernels are made here, and sent."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Callable

if TYPE_CHECKING:
    from pytest_tvmrpc import rpc
    from pytest_tvmrpc.server.launch import NativeServer

    from .machines import Board

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_examples(
    board: Board,
    tracker: rpc.Tracker,
    server: NativeServer,
    run_as_user: Callable[..., str],
    tmp_path: Path,
    deadline_s: float,
) -> None:
    """Each passes, on a device of the board's key, and what is measured has a time."""
    report = tmp_path / "run.jsonl"
    said = run_as_user(
        *(sys.executable, "-m", "pytest", str(EXAMPLES), "-p", "no:cacheprovider"),
        f"--rpc-tracker=127.0.0.1:{tracker.port}",
        *(f"--rpc-key={board.name}", f"--rpc-report={report}", f"--basetemp={tmp_path / 'own'}"),
        timeout_s=60 * deadline_s,
    )
    passed = re.search(r"(\d+) passed", said)
    assert passed is not None
    assert int(passed[1]) >= 8
    assert not re.search(r"\d+ (failed|error)", said), said
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert lines
    assert f"{board.name}@" in said
