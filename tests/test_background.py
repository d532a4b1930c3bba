"""A program in a child process: how it starts, how it ends, and how its parent learns of it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Callable

import pytest

from pytest_tvmrpc import rpc
from pytest_tvmrpc.background import Program
from pytest_tvmrpc.errors import StartError

TRACKER = "pytest_tvmrpc.exec.rpc_tracker"
ARGUMENTS = ["--port", "0", "--silent"]

needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc")


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Makes a module that a child with site-packages can import, with this body of `main`."""

    def make(body: str) -> str:
        source = "import json, os, signal, sys, time\n\n\ndef main(arguments):\n"
        source += "    fd = int(arguments[arguments.index('--ready-fd') + 1])\n"
        source += textwrap.indent(textwrap.dedent(body), "    ")
        (tmp_path / "child_program.py").write_text(source)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        return "child_program"

    return make


def test_it_announces_a_port_and_ends_when_told() -> None:
    """The port is the one on which it serves; the end is clean, and said; nothing is left."""
    with Program(TRACKER, ARGUMENTS) as program:
        socket.create_connection(("127.0.0.1", program.port), 10).close()
        assert program.alive
        assert program.ended() is None
    assert not program.alive
    assert program.ended() == "exited with 0"
    program.terminate()
    with pytest.raises(ChildProcessError):
        os.waitpid(program.pid, os.WNOHANG)


def test_a_crash_is_told_apart(wait_until: Callable[..., None]) -> None:
    """A signal that ended it is named."""
    with Program(TRACKER, ARGUMENTS) as program:
        os.kill(program.pid, signal.SIGKILL)
        wait_until(lambda: not program.alive, "the program ended")
        assert program.ended() == "was killed by SIGKILL"


def test_a_module_that_is_not_there_is_named() -> None:
    """The import error reaches the parent over the pipe, with and without a log."""
    with pytest.raises(StartError, match=r"ModuleNotFoundError.*no_such_program"):
        Program("no_such_program", [], log=subprocess.DEVNULL)


def test_the_last_lines_of_the_log_are_in_the_error(
    module: Callable[[str], str], tmp_path: Path
) -> None:
    """Who reads the message need not look for the log, even one open for writing only."""
    name = module("print('a telling line', flush=True); os._exit(3)")
    with open(tmp_path / "log", "wb") as log:
        log.write(b"of an earlier program\n")
        with pytest.raises(StartError, match="exited with 3") as caught:
            Program(name, [], log=log, need_site=True)
    assert "a telling line" in str(caught.value)
    assert "earlier" not in str(caught.value)


def test_a_refusal_is_in_the_error(tmp_path: Path) -> None:
    """A port in use: the reason that the program gave, and how it ended."""
    with socket.create_server(("127.0.0.1", 0)) as taken, open(tmp_path / "log", "w+b") as log:
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=f"exited with 1: cannot bind to port {port}"):
            Program(TRACKER, ["--port", str(port), "--port-end", str(port + 1)], log=log)


def test_a_program_that_says_nothing_is_ended(module: Callable[[str], str]) -> None:
    """The wait for the port is limited, and the child does not survive it."""
    name = module("time.sleep(600)")
    started = time.monotonic()
    with pytest.raises(StartError, match=r"start_timeout_s=0\.3"):
        Program(name, [], log=subprocess.DEVNULL, start_timeout_s=0.3, need_site=True)
    assert time.monotonic() - started < 5


def test_who_ignores_the_polite_way_is_killed(
    module: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM ignored: SIGKILL for the whole group, and the process is reaped."""
    monkeypatch.setattr("pytest_tvmrpc.background._STOP_LIMIT_S", 0.1)
    name = module(
        """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.fork() == 0:
            time.sleep(600)
        os.write(fd, b'{"port": 7}\\n')
        time.sleep(600)
        """
    )
    program = Program(name, [], log=subprocess.DEVNULL, need_site=True)
    assert program.port == 7
    program.terminate()
    assert program.ended() == "was killed by SIGKILL"


def test_nonsense_instead_of_a_port_is_shown(module: Callable[[str], str]) -> None:
    """A child that writes anything else on the pipe did not start."""
    name = module("os.write(fd, b'hello\\n'); time.sleep(0.05); return 0")
    with pytest.raises(StartError, match="announced b'hello"):
        Program(name, [], log=subprocess.DEVNULL, need_site=True)


@needs_proc
def test_no_stray_descriptor_is_inherited(tmp_path: Path) -> None:
    """The child has what it was given, and not what its parent happened to have open."""
    stray = tmp_path / "stray"
    with open(stray, "w") as file:
        os.set_inheritable(file.fileno(), True)
        with Program(TRACKER, ARGUMENTS) as program:
            opened = {os.readlink(entry) for entry in Path(f"/proc/{program.pid}/fd").iterdir()}
    assert str(stray) not in opened


def test_it_ends_when_its_parent_is_killed(wait_until: Callable[..., None]) -> None:
    """However the parent dies, its end of the pipe closes, and the child goes."""
    script = (
        "import os, signal\n"
        "from pytest_tvmrpc.background import Program\n"
        f"program = Program({TRACKER!r}, {ARGUMENTS!r})\n"
        "os.write(1, b'%d' % program.port)\n"
        "os.close(1)\n"
        "os.read(0, 1)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    folder = str(Path(__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=folder,
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdin is not None
        port = int(parent.stdout.read())
        with socket.create_connection(("127.0.0.1", port), 10) as connection:
            parent.stdin.close()
            assert connection.recv(1) == b""
    wait_until(lambda: is_refused(port), "nobody listens any more")


def is_refused(port: int) -> bool:
    """Whether nobody listens at a port."""
    try:
        socket.create_connection(("127.0.0.1", port), 10).close()
    except ConnectionError:
        return True
    return False


def test_dropping_it_is_noticed() -> None:
    """A program that nobody ended is ended when it is collected, with a warning."""
    program = Program(TRACKER, ARGUMENTS)
    pid = program.pid
    with pytest.warns(ResourceWarning, match="was dropped while it ran"):
        del program
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def test_the_process_under_the_name_of_tvm() -> None:
    """What is running is `proc`, too."""
    with rpc.Tracker(port=0, silent=True) as tracker:
        assert tracker.proc is tracker.program
        os.kill(tracker.proc.pid, 0)


def test_what_programs_look_like() -> None:
    """Their address, key and tracker, and whether they run or how they ended."""
    with rpc.Tracker(port=0, silent=True) as tracker:
        place = (tracker.host, tracker.port)
        name = f"127.0.0.1:{tracker.port}"
        assert repr(tracker) == f"<Tracker {name}, process {tracker.proc.pid}>"
        with rpc.Proxy(port=0, tracker_addr=place) as proxy:
            assert repr(proxy) == (
                f"<Proxy 127.0.0.1:{proxy.port}, tracker {name}, process {proxy.proc.pid}>"
            )
            with rpc.Server(port=proxy.port, key="k", is_proxy=True, silent=True) as hidden:
                assert repr(hidden) == (
                    f"<Server 127.0.0.1:{proxy.port}, key 'k', at a proxy, "
                    f"process {hidden.proc.pid}>"
                )
        with rpc.Server(port=0, tracker_addr=place, key="k", silent=True) as server:
            address = f"127.0.0.1:{server.port}"
            assert repr(server) == (
                f"<Server {address}, key 'k', tracker {name}, process {server.proc.pid}>"
            )
    assert repr(server) == f"<Server {address}, key 'k', tracker {name}, exited with 0>"
