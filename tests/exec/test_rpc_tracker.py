"""The tracker's programs as people start them: options, output, ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Iterator, List

import pytest

from pytest_tvmrpc.errors import StartError
from pytest_tvmrpc.exec import query_rpc_tracker
from pytest_tvmrpc.tracker.launch import Tracker

FOLDER = str(Path(__file__).parents[2])


@contextlib.contextmanager
def running(arguments: List[str]) -> Iterator["subprocess.Popen[str]"]:
    """The tracker by hand, ended as a terminal ends it."""
    environment = {**os.environ, "PYTHONPATH": FOLDER}
    with subprocess.Popen(
        [sys.executable, "-m", "pytest_tvmrpc.exec.rpc_tracker", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(10)


def test_it_prints_the_port_that_it_got() -> None:
    """Port 0 works, the line says the real one, and SIGTERM is a clean end."""
    with running(["--port", "0"]) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("bind to 127.0.0.1:")
        socket.create_connection(("127.0.0.1", int(line.rpartition(":")[2])), 10).close()
    assert process.returncode == 0


def test_a_wide_bind_warns() -> None:
    """Who opens the farm to the network is told what that means."""
    with running(["--host", "0.0.0.0", "--port", "0"]) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("bind to 0.0.0.0:")
        assert process.stdout.readline().startswith("warning: whoever reaches this port")


def test_the_next_free_port_is_taken() -> None:
    """Ports are tried upward; none free is an error that says what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with running(["--port", str(port), "--port-end", str(port + 1)]) as process:
            output, _ = process.communicate(timeout=10)
    assert process.returncode == 1
    assert output.startswith(f"error: cannot bind to port {port}")
    assert "Traceback" not in output


def test_an_address_of_another_machine_is_refused() -> None:
    """The error names the address."""
    with pytest.raises(StartError, match=r"192\.0\.2\.1"):
        Tracker(host="192.0.2.1", port=0, log=subprocess.DEVNULL)


def test_query_prints_the_state(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Address, empty line, table: with options or with TVM's environment variables."""
    with Tracker(port=0, silent=True) as tracker:
        monkeypatch.setenv("TVM_TRACKER_HOST", "localhost.invalid")
        monkeypatch.setenv("TVM_TRACKER_PORT", str(tracker.port))
        assert query_rpc_tracker.main(["--host", "127.0.0.1"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[:3] == [f"Tracker address 127.0.0.1:{tracker.port}", "", "Server List"]
        monkeypatch.setenv("TVM_TRACKER_HOST", "127.0.0.1")
        monkeypatch.delenv("TVM_TRACKER_PORT")
        assert query_rpc_tracker.main(["--port", str(tracker.port)]) == 0


@pytest.mark.parametrize("port", ["0.5", "99999", ""])
def test_query_says_what_is_wrong(
    port: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad port, or nobody there: one line on stderr, no traceback."""
    if not port:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
    monkeypatch.setenv("TVM_TRACKER_PORT", port)
    assert query_rpc_tracker.main(["--host", "127.0.0.1"]) == 1
    assert capsys.readouterr().err.startswith("error: ")
