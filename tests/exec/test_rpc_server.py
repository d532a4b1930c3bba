"""The server as people start it: options, output, ends."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Iterator, List

import pytest

from pytest_tvmrpc import network, rpc

FOLDER = str(Path(__file__).parents[2])
PROGRAM = "pytest_tvmrpc.exec.rpc_server"


@contextlib.contextmanager
def running(arguments: List[str]) -> Iterator["subprocess.Popen[str]"]:
    """The server by hand, ended as a terminal ends it."""
    environment = {**os.environ, "PYTHONPATH": FOLDER}
    with subprocess.Popen(
        [sys.executable, "-m", PROGRAM, *arguments],
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


def line_of(process: "subprocess.Popen[str]") -> str:
    """The next line that it prints."""
    assert process.stdout is not None
    return process.stdout.readline()


def port_of(process: "subprocess.Popen[str]") -> int:
    """The port that it says it listens on."""
    line = line_of(process)
    assert line.startswith("bind to 127.0.0.1:")
    return int(line.rpartition(":")[2])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_ended(number: int) -> None:
    """Port 0 works, the lines say what happens, and Ctrl-C is a clean end without a traceback."""
    with running(["--port", "0"]) as process:
        port = port_of(process)
        with rpc.connect("127.0.0.1", port) as remote:
            assert remote.get_function("rpc.test.addone")(1) == 2
        for word in ("connected from 127.0.0.1:", "start serving at ", "finish serving 127.0.0.1:"):
            assert re.match(
                rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{{3}} INFO {word}", line_of(process)
            )
        process.send_signal(number)
        assert process.wait(10) == 0
        assert line_of(process) == ""


def test_silence() -> None:
    """--silent prints nothing, and the server is there all the same."""
    with network.listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
    with running(["--port", str(port), "--port-end", str(port + 1), "--silent"]) as process:
        deadline = network.Deadline(10, "the server")
        while True:
            try:
                rpc.connect("127.0.0.1", port).close()
                break
            except rpc.RPCError:
                deadline.left()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert line_of(process) == ""


@pytest.mark.parametrize("how", ["full", "closed", "not read"])
def test_nobody_takes_its_output(how: str) -> None:
    """A full disk, `| head`, a pager that waits: what it cannot print does not end a server."""
    if how == "full" and not os.path.exists("/dev/full"):
        pytest.skip("the system has no /dev/full")
    reader, writer = os.pipe()
    if how == "full":
        os.close(writer)
        writer = os.open("/dev/full", os.O_WRONLY)
    elif how == "not read":
        os.set_blocking(writer, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writer, bytes(65536))
        os.set_blocking(writer, True)
    if how != "not read":
        os.close(reader)
    with network.listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with subprocess.Popen(
            [sys.executable, "-m", PROGRAM, "--listen-fd", str(listener.fileno())],
            stdout=writer,
            stderr=writer,
            pass_fds=[listener.fileno()],
            env={**os.environ, "PYTHONPATH": FOLDER},
        ) as process:
            try:
                os.close(writer)
                for _ in range(3):
                    with rpc.connect("127.0.0.1", port) as remote:
                        assert remote.get_function("rpc.test.addone")(1) == 2
                assert process.poll() is None
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(10)
    if how == "not read":
        os.close(reader)


def test_a_wide_bind_warns() -> None:
    """Who opens the machine to the network is told what that means."""
    with running(["--host", "0.0.0.0", "--port", "0"]) as process:
        lines = {line_of(process), line_of(process)}
        assert any(line.startswith("bind to 0.0.0.0:") for line in lines)
        assert any("whoever reaches this port can run code" in line for line in lines)


def test_the_next_free_port_is_taken() -> None:
    """As TVM's server does, within the range that it was given."""
    with network.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with running(["--port", str(port), "--port-end", str(port + 30)]) as process:
            assert port < port_of(process) < port + 30


def test_a_port_in_use() -> None:
    """The message says which, and what to do; the exit code says that it failed."""
    with network.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with running(["--port", str(port), "--port-end", str(port + 1)]) as process:
            line = line_of(process)
            assert line.startswith(f"error: cannot bind to port {port} on 127.0.0.1: ")
            assert "or 0 to let the system choose one" in line
            assert process.wait(10) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tracker", "127.0.0.1:9190"], "Need key"),
        (["--tracker", "nonsense", "--key", "k"], "expected HOST:PORT"),
        (["--key", "two words"], "single words"),
        (["--port", "70000"], "port 70000 is none"),
    ],
)
def test_options_that_cannot_be(arguments: List[str], message: str) -> None:
    """One line says why, and nothing is started."""
    with running(arguments) as process:
        line = line_of(process)
        assert line.startswith("error: ")
        assert message in line
        assert line_of(process) == ""
        assert process.wait(10) == 2


def test_a_key_and_a_tracker() -> None:
    """The README's command for a board."""
    with rpc.Tracker(port=0, silent=True) as tracker:
        address = f"{tracker.host}:{tracker.port}"
        arguments = ["--port", "0", "--tracker", address, "--key", "jetson"]
        with running([*arguments, "--custom-addr", "localhost"]) as process:
            port_of(process)
            with rpc.connect_tracker(tracker.host, tracker.port) as farm:
                deadline = network.Deadline(10, "the registration")
                while not farm.summary()["queue_info"].get("jetson"):
                    deadline.left()
                with farm.request("jetson") as remote:
                    assert remote.peer[0] == "localhost"
                    assert remote.get_function("rpc.test.addone")(1) == 2


def test_the_help_says_what_an_open_port_means() -> None:
    """And lists the options, but not the hidden ones."""
    with running(["--help"]) as process:
        text, _ = process.communicate(timeout=10)
    assert "can run code on this machine" in text
    for option in ("--host", "--port", "--port-end", "--tracker", "--key", "--custom-addr"):
        assert option in text
    assert "--ready-fd" not in text
