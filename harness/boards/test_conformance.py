"""The suite that every kind of server passes, against the boards' servers, also for old clients."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from pytest_tvmrpc.server.launch import NativeServer

if TYPE_CHECKING:
    from .machines import Board

ROOT = Path(__file__).parents[2]


def test_conformance(
    board: Board,
    program: str,
    run_as_user: Callable[..., str],
    tmp_path: Path,
    deadline_s: float,
) -> None:
    """It passes, with the kernels made for the board."""
    # At a tracker, a server wants the key that the tracker gives.
    with NativeServer(program, port=0, key=board.name, silent=True) as server:
        said = run_as_user(
            *(sys.executable, "-m", "pytest", "-q", "tests/conformance", "-p", "no:cacheprovider"),
            f"--conformance=127.0.0.1:{server.port}/{board.name}",
            f"--basetemp={tmp_path / 'own'}",
            timeout_s=60 * deadline_s,
        )
    passed = re.search(r"(\d+) passed", said)
    assert passed is not None
    assert int(passed[1]) > 200
