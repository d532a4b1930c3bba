"""A program of the bench in a child process, which talks in lines over its standard streams."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parents[2]  # the folder that holds pytest_tvmrpc and harness


class Child:
    """A running child: lines in, lines out."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    def read_line(self) -> str:
        """The next line; EOFError, with the exit status, when the child ended instead."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise EOFError(f"the child process ended with status {self._process.wait()}")
        return line.strip()

    def write_line(self, line: str = "") -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()


def end_with_parent() -> None:
    """In a child: ends this process when the other end of its standard input is closed."""

    def wait() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 1 << 12):
                pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def environment() -> dict[str, str]:
    """Our environment, with the package and the harness importable."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    return {**os.environ, "PYTHONPATH": path}


@contextlib.contextmanager
def child_program(module: str, *arguments: str, flags: Sequence[str] = ("-S",)) -> Iterator[Child]:
    """``python -m module`` in a child that is ended with the block."""
    process = subprocess.Popen(
        [sys.executable, *flags, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,  # an interrupt is ours to handle, not the child's to print
    )
    with process:
        try:
            yield Child(process)
        finally:
            process.kill()
