"""Ctrl-C while a session waits: the client returns at once, and the device is free again."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Iterator

import pytest

from pytest_tvmrpc import rpc

FOLDER = str(Path(rpc.__file__).resolve().parents[1])

CLIENT = """
import sys
sys.path.append({folder!r})
from pytest_tvmrpc import rpc
remote = rpc.connect("127.0.0.1", {port})
sleep = remote.get_function("testing.sleep")
try:
    print("calling", flush=True)
    {call}
except KeyboardInterrupt:
    print("interrupted", remote.closed, flush=True)
    try:
        sleep(0.0)
    except rpc.RPCError as error:
        print(error, flush=True)
"""

Start = Callable[[int, str], "subprocess.Popen[str]"]


def is_waiting(process: "subprocess.Popen[str]") -> bool:
    """Whether the process sleeps in the kernel, as it does while it waits for an answer."""
    status = Path(f"/proc/{process.pid}/stat").read_text()
    return status.rpartition(")")[2].split()[0] == "S"


@pytest.fixture(name="start")
def _start(wait_until: Callable[..., None]) -> Iterator[Start]:
    """``start(port, call)``: a client's process that waits for the answer to the call."""
    if not Path("/proc/self/stat").exists():
        pytest.skip("needs /proc, to see that a process waits")
    processes = []

    def start(port: int, call: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", CLIENT.format(folder=FOLDER, port=port, call=call)],
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "calling\n"
        wait_until(lambda: is_waiting(process), "the client waits for its answer")
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    "call",
    [
        "sleep(60.0)",
        "with remote.pipeline() as p: p.call(sleep, 60.0)",
        "with remote.pipeline() as p: calls = [p.call(sleep, 60.0, 'x' * 1000) for _ in range(9)]",
    ],
    ids=["call", "pipeline", "several"],
)
def test_a_call_is_interrupted(
    server: rpc.Server, start: Start, deadline_s: float, call: str
) -> None:
    """The exception comes at once, the session is over and says so, the next client is served."""
    process = start(server.port, call)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=deadline_s)
    assert time.monotonic() - began < 1 + deadline_s / 10
    first, second = out.splitlines()
    assert first == "interrupted True"
    assert "is over: it was interrupted in" in second
    with rpc.connect(server.host, server.port) as remote:
        assert remote.get_function("rpc.test.addone")(1) == 2


def test_connecting_is_interrupted(server: rpc.Server, deadline_s: float) -> None:
    """A client that waits for a device in use can be interrupted, too."""
    with rpc.connect(server.host, server.port):
        script = (
            f"import sys; sys.path.append({FOLDER!r}); from pytest_tvmrpc import rpc\n"
            f"print('connecting', flush=True)\n"
            f"rpc.connect('127.0.0.1', {server.port}, handshake_timeout=60)"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=deadline_s)
        assert "KeyboardInterrupt" in errors
