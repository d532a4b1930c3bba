"""Servers in processes of their own, and kernels that are the end of a session."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Set

import pytest

from pytest_tvmrpc import rpc
from pytest_tvmrpc.errors import CompilerError
from pytest_tvmrpc.runtime.toolchain import compile_library

FOLDER = str(Path(__file__).parents[2])

CLIENT = """
import sys
sys.path.append({folder!r})
from pytest_tvmrpc import rpc
remote = rpc.connect("127.0.0.1", {port})
{script}
"""


@pytest.fixture(name="deaths", scope="session")
def _deaths(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The library of functions that end badly."""
    output = tmp_path_factory.mktemp("deaths") / "deaths.so"
    options = ["-Wno-unused", "-pthread"]
    try:
        return compile_library(Path(__file__).parent / "deaths.c", output, options=options)
    except CompilerError as error:
        pytest.skip(str(error))


@pytest.fixture(name="limit_s")
def _limit_s(deadline_s: float) -> float:
    """Seconds that a session may last; it can begin in them, also on a slow machine."""
    return deadline_s / 20


class Watched:
    """A server, what it reports, and what it holds.

    Args:
        server: running.
        log: the file into which it reports.
        temp: the folder in which its sessions have their directories.
    """

    def __init__(self, server: rpc.Server, log: Path, temp: Path) -> None:
        self.server = server
        self.port = server.port
        self.pid = server.program.pid
        self._log = log
        self._temp = temp

    @property
    def reports(self) -> str:
        """Everything it said so far."""
        return self._log.read_text()

    @property
    def children(self) -> Set[int]:
        """Its sessions' processes."""
        found = set()
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == self.pid:
                    found.add(int(entry.name))
        return found

    @property
    def directories(self) -> List[Path]:
        """Its sessions' directories."""
        return sorted(self._temp.glob("tvmrpc-session-*"))

    @property
    def descriptors(self) -> int:
        """How many it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing is left of any session."""
        return not self.children and not self.directories

    def started(self) -> bool:
        """Whether the session's kernel runs that says so."""
        return any((directory / "started").exists() for directory in self.directories)

    def connect(self, **options: Any) -> rpc.RPCSession:
        """A new session."""
        return rpc.connect("127.0.0.1", self.port, **options)

    def load(self, library: str, **options: Any) -> Any:
        """A new session's module of a library, on which `session` is the session."""
        remote = self.connect(**options)
        remote.upload(library)
        return remote.load_module(os.path.basename(library))

    def serves(self) -> bool:
        """Whether a new client gets a session that works, at once."""
        with self.connect(connect_timeout=5) as remote:
            return bool(remote.get_function("rpc.test.addone")(1) == 2)


Start = Callable[..., Watched]


@pytest.fixture(name="start_server")
def _start_server(tmp_path: Path, _own_temp: Path, launch: Callable[..., Any]) -> Iterator[Start]:
    """``start_server(**options)``: a server that ends with the test; maybe behind a proxy."""
    with contextlib.ExitStack() as stack:

        def start(proxy_port: int = 0, **options: Any) -> Watched:
            log = tmp_path / f"server-{len(list(tmp_path.iterdir()))}.log"
            file = stack.enter_context(open(log, "w"))
            server = stack.enter_context(launch(port=proxy_port, log=file, **options))
            return Watched(server, log, _own_temp)

        yield start


@pytest.fixture(name="server", scope="module")
def _server(
    tmp_path_factory: pytest.TempPathFactory, _own_temp: Path, launch: Callable[..., Any]
) -> Iterator[Watched]:
    """One server for the module, as it should survive every test."""
    log = tmp_path_factory.mktemp("server") / "log"
    with open(log, "w") as file, launch(port=0, log=file) as server:
        yield Watched(server, log, _own_temp)


@pytest.fixture(name="start_client")
def _start_client() -> Iterator[Callable[[int, str], "subprocess.Popen[bytes]"]]:
    """``start_client(port, script)``: a client's process, to be killed; `remote` is its session.

    It has the session, and `script` has printed a line, when it is returned.
    """
    processes: List["subprocess.Popen[bytes]"] = []

    def start(port: int, script: str) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            [sys.executable, "-c", CLIENT.format(folder=FOLDER, port=port, script=script)],
            stdout=subprocess.PIPE,
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline()
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


SUPERVISOR = """
import itertools, os, signal, sys, time
sys.path.append({folder!r})
from pytest_tvmrpc import network
from pytest_tvmrpc.server.config import ServerConfig
from pytest_tvmrpc.server.supervisor import Supervisor

def fork_once_fails():
    def fork(fork=os.fork):
        os.fork = fork
        raise BlockingIOError(11, os.strerror(11))
    os.fork = fork

def clock_jumps():
    turns = itertools.cycle((3600, -7200, 7200))
    time.time = lambda now=time.time: now() + next(turns)

{before}
listener = network.listen("127.0.0.1", 0)
Supervisor(
    ServerConfig(port=0, **{settings!r}),
    listener,
    lambda line: print(line, file=sys.stderr, flush=True),
    lambda: print(listener.getsockname()[1], flush=True),
).run()
"""


_SETTINGS = {
    "handshake_s": "--handshake-timeout",
    "idle_s": "--idle-timeout",
    "send_s": "--send-timeout",
    "output_nbytes": "--output-limit",
}
"""How the server in C is told what the one in Python has no options for."""


@pytest.fixture(name="start_supervisor")
def _start_supervisor(
    request: pytest.FixtureRequest, deadline_s: float, server_kind: str
) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """``start_supervisor(handshake_s=0.2)``: one with settings that not every kind has options for.

    Its attribute ``args`` ends with the port; `before` is called in its process first.
    """
    processes: List["subprocess.Popen[str]"] = []

    def command(before: str, settings: Dict[str, float]) -> List[str]:
        if server_kind == "native":
            assert not before
            options = [f"{_SETTINGS[name]}={value}" for name, value in settings.items()]
            return [request.getfixturevalue("native_server"), "--port=0", *options]
        script = SUPERVISOR.format(folder=FOLDER, before=before, settings=settings)
        return [sys.executable, "-S", "-c", script]

    def start(before: str = "", **settings: float) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            command(before, settings),
            stdin=subprocess.PIPE,  # in which nothing ever comes
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout is not None
        process.args = [int(process.stdout.readline().rpartition(":")[2])]
        return process

    yield start
    for process in processes:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=deadline_s)


@pytest.fixture(name="dial")
def _dial(deadline_s: float) -> Iterator[Callable[[int], socket.socket]]:
    """``dial(port)``: a bare connection, closed after the test."""
    connections: List[socket.socket] = []

    def dial(port: int) -> socket.socket:
        connections.append(socket.create_connection(("127.0.0.1", port), deadline_s))
        return connections[-1]

    yield dial
    for connection in connections:
        connection.close()


def _hello(key: bytes = b"client:", length: Optional[int] = None) -> bytes:
    return struct.pack("<ii", 0xFF271, len(key) if length is None else length) + key


@pytest.fixture(name="hello", scope="session")
def _hello_of() -> Callable[..., bytes]:
    """``hello(key=b"client:", length=None)``: a client's first words."""
    return _hello


@pytest.fixture(name="session_folders")
def _session_folders(_own_temp: Path) -> Callable[[str], List[Path]]:
    """``session_folders("/name")``: what of this name is in the directories of all sessions."""
    return lambda name: sorted(_own_temp.glob(f"tvmrpc-session-*{name}"))


@pytest.fixture(name="ended_at_once", scope="session")
def _ended_at_once(wait_until: Callable[..., None]) -> Callable[[int], None]:
    """``ended_at_once(pid)`` waits until a process is gone, or a zombie of somebody else's."""

    def wait(pid: int) -> None:
        def is_gone() -> bool:
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                return True
            return bool(re.search(r"^State:\s+[ZX]", status, re.MULTILINE))

        wait_until(is_gone, f"process {pid} is gone")

    return wait
