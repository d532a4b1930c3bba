"""Our programs as people start them, in processes of their own. No test is in here."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Dict, Iterator, Sequence

ENVIRONMENT: Dict[str, str] = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


@contextlib.contextmanager
def running(program: str, arguments: Sequence[str]) -> Iterator["subprocess.Popen[str]"]:
    """A program started by hand, and ended as a system does it; its output is read as one."""
    with subprocess.Popen(
        [sys.executable, "-m", f"pytest_tvmrpc.exec.{program}", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=ENVIRONMENT,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            finally:
                process.kill()  # or Popen would wait for ever for one that does not end


def line_of(process: "subprocess.Popen[str]") -> str:
    """The next line that it prints."""
    assert process.stdout is not None
    return process.stdout.readline()


def port_of(process: "subprocess.Popen[str]") -> int:
    """The port that it says it listens on."""
    line = line_of(process)
    assert line.startswith("bind to 127.0.0.1:")
    return int(line.rpartition(":")[2])
