"""How a child process ended, in words, and whether it has."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import Any

import pytest

from pytest_tvmrpc.processes import has_ended, how_ended


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "exited with 0"),
        (3, "exited with 3"),
        (-int(signal.SIGSEGV), "was killed by SIGSEGV"),
        (-250, "was killed by signal 250"),
    ],
)
def test_words(code: int, words: str) -> None:
    """Signals by their name where they have one."""
    assert how_ended(code) == words


def test_a_child_is_not_reaped(wait_until: Any) -> None:
    """It can still be waited for, so that its number is nobody else's."""
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    assert not has_ended(process.pid)
    assert process.stdin is not None
    process.stdin.close()
    wait_until(lambda: has_ended(process.pid), "it has no input any more")
    assert os.waitpid(process.pid, 0) == (process.pid, 0)
    process.returncode = 0
