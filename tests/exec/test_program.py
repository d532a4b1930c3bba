"""What the tracker, the server and the proxy have in common as programs: port, warning, ends."""

from __future__ import annotations

import contextlib
import fcntl
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_tvmrpc.background import Program

from .programs import ENVIRONMENT, line_of, port_of, running

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.parametrize("program", ["rpc_tracker", "rpc_server", "rpc_proxy"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_prints_the_port_that_it_got(program: str, number: int) -> None:
    """Port 0 works, the line says the real one, and a signal is a clean end."""
    with running(program, ["--port", "0"]) as process:
        with socket.create_connection(("127.0.0.1", port_of(process)), 10) as stranger:
            stranger.sendall(b"no magic")
            with contextlib.suppress(ConnectionResetError):
                assert stranger.recv(1) == b""
        process.send_signal(number)
        output, _ = process.communicate(timeout=10)
    assert process.returncode == 0
    assert "Traceback" not in output


def test_a_signal_while_it_starts(program: str, deadline_s: float) -> None:
    """It is no less a signal in the moment in which its handler has just been set."""
    code = f"""
import os, signal

def set_and_send(number, handler, set=signal.signal):
    before = set(number, handler)
    if number == signal.SIGTERM and before == signal.SIG_DFL:
        os.kill(os.getpid(), number)
    return before

signal.signal = set_and_send
from pytest_tvmrpc.exec.{program} import main
raise SystemExit(main(["--port", "0"]))
"""
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=deadline_s,
    )
    assert (ended.returncode, "Traceback" in ended.stderr) == (0, False)


def test_a_wide_bind_warns(program: str) -> None:
    """Who opens it to the network is told what that means; the two lines are of two streams."""
    danger = {
        "rpc_tracker": "use every device",
        "rpc_server": "run code on this machine",
        "rpc_proxy": "use every server",
    }
    with running(program, ["--host", "0.0.0.0", "--port", "0"]) as process:
        lines = [line_of(process), line_of(process)]
    assert any(line.startswith("bind to 0.0.0.0:") for line in lines)
    assert any(f"whoever reaches this port can {danger[program]}" in line for line in lines)


def test_a_wide_bind_warns_also_when_silent(program: str, tmp_path: Path) -> None:
    """A silent program says this, and nothing else."""
    arguments = ["--host", "0.0.0.0", "--port", "0", "--silent"]
    path = tmp_path / "log"
    with path.open("w") as log, Program(f"pytest_tvmrpc.exec.{program}", arguments, log=log):
        (line,) = path.read_text().splitlines()
    assert line.startswith("warning: whoever reaches this port can ")


@pytest.mark.skipif(not hasattr(fcntl, "F_SETPIPE_SZ"), reason="sets the size of a pipe")
def test_nobody_reads_what_it_prints(program: str, deadline_s: float) -> None:
    """The pipe is full: lines are dropped, and everybody is served, its end included."""
    with subprocess.Popen(
        [sys.executable, "-m", f"pytest_tvmrpc.exec.{program}", "--port", "0"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    ) as process, contextlib.ExitStack() as stack:
        assert process.stderr is not None
        stack.callback(process.kill)
        fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, 4096)
        address = ("127.0.0.1", port_of(process))
        for _ in range(100):
            with socket.create_connection(address, deadline_s) as stranger:
                stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
                with contextlib.suppress(ConnectionResetError):
                    assert stranger.recv(1) == b""
        process.send_signal(signal.SIGTERM)
        assert process.wait(deadline_s) == 0


def test_the_next_free_port_is_taken(program: str) -> None:
    """As TVM's programs do, within the range that it was given."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with running(program, ["--port", str(port), "--port-end", str(port + 30)]) as process:
            assert port < port_of(process) < port + 30


def test_no_port_is_free(program: str) -> None:
    """One line says what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        arguments = ["--port", str(port), "--port-end", str(port + 1)]
        with running(program, arguments) as process:
            output, _ = process.communicate(timeout=10)
    assert process.returncode == 1
    assert output.startswith(f"error: cannot bind to port {port}")
    assert "give another port" in output
    assert output.count("\n") == 1
