"""The server as people start it: options, output, ends."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import signal
import struct
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Callable, ContextManager, List

import pytest

from pytest_tvmrpc import network, rpc
from pytest_tvmrpc.protocol import tracker
from pytest_tvmrpc.protocol.codes import TrackerCode

from .programs import ENVIRONMENT, line_of, port_of, running

if TYPE_CHECKING:
    import socket
    from pathlib import Path

PROGRAM = "pytest_tvmrpc.exec.rpc_server"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_ended(number: int) -> None:
    """Port 0 works, the lines say what happens, and Ctrl-C is a clean end without a traceback."""
    with running("rpc_server", ["--port", "0"]) as process:
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
    with running(
        "rpc_server", ["--port", str(port), "--port-end", str(port + 1), "--silent"]
    ) as process:
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
            env=ENVIRONMENT,
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


def test_a_daemon_without_streams() -> None:
    """Started with all of them closed; what a session prints goes nowhere, and not to a client."""
    with network.listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        command = f"exec {sys.executable} -m {PROGRAM} --listen-fd {listener.fileno()}"
        with subprocess.Popen(
            ["/bin/sh", "-c", f"{command} <&- >&- 2>&-"],
            pass_fds=[listener.fileno()],
            env=ENVIRONMENT,
        ) as process:
            try:
                for _ in range(3):
                    with rpc.connect("127.0.0.1", port) as remote:
                        assert remote.get_function("rpc.test.addone")(1) == 2
                        with pytest.raises(rpc.RPCError):
                            remote.load_module("none.so")
                assert process.poll() is None
                for stream in range(3):
                    assert os.readlink(f"/proc/{process.pid}/fd/{stream}") == os.devnull
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(10)


def test_clients_before_the_tracker_answers(
    scripted: Callable[..., ContextManager[Any]], tmp_path: Path, deadline_s: float
) -> None:
    """What all sessions need is loaded once, by the server, and not by each of them."""
    keys: queue.SimpleQueue[str] = queue.SimpleQueue()

    def talk(connection: socket.socket) -> None:
        with connection.makefile("rb") as stream:
            connection.sendall(stream.read(4))
            while head := stream.read(4):
                code, *message = json.loads(stream.read(*struct.unpack("<i", head)))
                if code == TrackerCode.UPDATE_INFO:
                    connection.sendall(tracker.SUCCESS)
                elif code == TrackerCode.PUT:
                    keys.put(message[1][1])

    log = tmp_path / "log"
    arguments = [sys.executable, "-X", "importtime", "-m", PROGRAM, "--port", "0", "--key", "k"]
    with scripted(talk) as peer, log.open("w") as file, subprocess.Popen(
        [*arguments, "--tracker", f"127.0.0.1:{peer.port}"],
        stdout=subprocess.PIPE,
        stderr=file,
        text=True,
        env=ENVIRONMENT,
    ) as process:
        try:
            port = port_of(process)
            for number in range(3):
                with rpc.connect("127.0.0.1", port, keys.get(timeout=deadline_s)) as remote:
                    assert remote.get_function("rpc.test.addone")(number) == number + 1
        finally:
            process.terminate()
            process.wait(deadline_s)
    lines = log.read_text().splitlines()
    loaded = [line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")]
    assert loaded.count("pytest_tvmrpc.session.local") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tracker", "127.0.0.1:9190"], "Need key"),
        (["--tracker", "nonsense", "--key", "k"], "expected HOST:PORT"),
        (["--key", "two words"], "single words"),
        (["--port", "70000"], "port 70000 is none"),
        (["--through-proxy"], "needs the proxy's port and a key"),
        (["--idle-timeout", "-1"], "the idle timeout -1.0 is no time"),
    ],
)
def test_options_that_cannot_be(arguments: List[str], message: str) -> None:
    """One line says why, and nothing is started."""
    with running("rpc_server", arguments) as process:
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
        with running("rpc_server", [*arguments, "--custom-addr", "localhost"]) as process:
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
    with running("rpc_server", ["--help"]) as process:
        text, _ = process.communicate(timeout=10)
    assert "can run code on this machine" in text
    for option in (
        *("--host", "--port", "--port-end", "--tracker", "--key", "--custom-addr", "--silent"),
        *("--through-proxy", "--load-library", "--no-fork", "--idle-timeout", "--timeout"),
    ):
        assert option in text
    for hidden in ("--ready-fd", "--callback-fd", "--no-reuse-addr"):
        assert hidden not in text


def test_an_interpreter_for_each_session() -> None:
    """--no-fork, on an interpreter that has its usual folders."""
    with running("rpc_server", ["--port", "0", "--no-fork"]) as process, rpc.connect(
        "127.0.0.1", port_of(process)
    ) as remote:
        assert remote.get_function("rpc.test.addone")(1) == 2


def test_it_ends_when_nobody_comes() -> None:
    """--timeout: a clean end, with a line that says why."""
    with running("rpc_server", ["--port", "0", "--timeout", "0.2"]) as process:
        port_of(process)
        assert process.wait(10) == 0
        assert "no client came for 0.2 s, which is the timeout" in line_of(process)


def test_no_place_for_sessions(tmp_path: Path) -> None:
    """It does not start, and says what is missing."""
    program = (
        "import os, sys\n"
        "def mkdir(path, mode=0o777):\n"
        "    raise OSError(30, 'Read-only file system', path)\n"
        "os.mkdir = mkdir\n"
        "from pytest_tvmrpc.exec import rpc_server\n"
        "sys.exit(rpc_server.main(['--port', '0']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: there is no place for the directories of sessions: ")
    assert "set TMPDIR" in done.stderr
