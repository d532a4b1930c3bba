"""The servers and trackers under test, TVM's and ours, each in processes that end with the run.

TVM's programs fork helpers that outlive the process one sees, and hang rather than exit when
something goes wrong. So each program leads a process group, the whole group is killed, and a guard
process kills what is left if the test run itself dies.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Iterator, Protocol

from .clients import HOST

START_LIMIT_S = 60.0
END_LIMIT_S = 10.0
KEY = "board"

_GUARD = """
import os, signal, sys
groups = set()
for line in sys.stdin:
    group = int(line)
    groups.add(group) if group > 0 else groups.discard(-group)
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""


class Guard:
    """A process that kills the given process groups as soon as this one is gone."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-E", "-c", _GUARD],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._groups: set[int] = set()

    def watch(self, group: int) -> None:
        """Kill ``group`` if this process ends before `kill` did it."""
        self._groups.add(group)
        self._say(group)

    def kill(self, group: int) -> None:
        """Kill ``group`` now."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        self._say(-group)

    def _say(self, group: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{group}\n")
        self._process.stdin.flush()

    def close(self) -> None:
        """End the guard; what it watched is killed.

        Raises:
            AssertionError: a process of a watched group is still alive after that.
        """
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(END_LIMIT_S)
        deadline = time.monotonic() + END_LIMIT_S
        while True:
            left = _members(self._groups)
            if not left or time.monotonic() > deadline:
                break
            time.sleep(0.02)
        assert not left, f"processes {left} outlive the run"


def _members(groups: set[int]) -> list[int]:
    """The living processes of these groups; zombies wait for their parent only."""
    members = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            state, _, group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(group) in groups and state not in "ZX":
                members.append(int(entry.name))
    return members


class Program(Protocol):
    """A running server, tracker or proxy."""

    key: str
    port: int

    def stop(self) -> None:
        """End it and all its processes; may be called twice."""

    def log(self) -> str:
        """What it has printed."""


class TvmProgram:
    """``python -m tvm.exec.PROGRAM``, as a user of TVM starts it."""

    def __init__(
        self,
        program: str,
        arguments: list[str],
        folder: Path,
        guard: Guard,
        key: str = "",
        at: int = 0,
        python: str = sys.executable,
    ) -> None:
        """``at`` is a proxy's port, if the program waits there instead of listening."""
        self.key = key
        self._guard = guard
        self._log = folder / f"{program}-{time.monotonic_ns()}.log"
        first = at or _free_port()
        command = [python, "-m", f"tvm.exec.{program}", f"--host={HOST}"]
        command += [f"--port={first}", f"--port-end={first + 100}", *arguments]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                # Sessions leave their temporary folders behind when they are killed.
                env={**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )
        guard.watch(self._process.pid)
        try:
            self.port = at or self._wait_for_port()
        except BaseException:
            self.stop()
            raise

    def _wait_for_port(self) -> int:
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            bound = re.search(rf"bind to {re.escape(HOST)}:(\d+)", self.log())
            if bound is not None:
                return int(bound.group(1))
            time.sleep(0.02)
        raise AssertionError(f"{self._process.args} did not start:\n{self.log()}")

    def stop(self) -> None:
        """End it and all its processes; may be called twice."""
        self._guard.kill(self._process.pid)
        self._process.wait(END_LIMIT_S)

    def log(self) -> str:
        """What it has printed."""
        return self._log.read_text(errors="replace")


class OurProgram:
    """A server or tracker of this package, started as a test starts it: ``rpc.Server(...)``.

    Its server in C is ``native``; ``binary`` is the program, if it is not built here.
    """

    def __init__(self, program: str, options: dict[str, Any], folder: Path) -> None:
        from pytest_tvmrpc import rpc
        from pytest_tvmrpc.runtime.native_programs import build_server
        from pytest_tvmrpc.server.launch import NativeServer

        self.key = options.get("key", "")
        self._log = folder / f"{program}-{time.monotonic_ns()}.log"
        with self._log.open("wb") as log:
            settings = {"host": HOST, "port": 0, "log": log, **options}
            if program == "native":
                binary = settings.pop("binary", None) or build_server()
                self._program: Any = NativeServer(binary, **settings)
            else:
                self._program = getattr(rpc, program)(**settings)
        self.port = self._program.port

    def stop(self) -> None:
        """End it and all its processes; may be called twice."""
        self._program.terminate()

    def log(self) -> str:
        """What it has printed."""
        return self._log.read_text(errors="replace")


def _free_port() -> int:
    """A port that is free now, to begin the search at: TVM's programs do not take port 0."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return min(int(probe.getsockname()[1]), 65000)


class Launcher:
    """Starts programs of either kind, and stops all that it started.

    Args:
        folder: where their logs and temporary files go.
        python: the interpreter that has TVM.
    """

    def __init__(self, folder: Path, python: str = sys.executable) -> None:
        self._folder = folder
        self._python = python
        self._guard = Guard()
        self._running: list[Program] = []

    def server(
        self,
        kind: str,
        key: str = KEY,
        tracker: Program | None = None,
        proxy: Program | None = None,
        binary: str | None = None,
    ) -> Program:
        """A server of this kind, registered at ``tracker`` if there is one, or at ``proxy``.

        A ``native`` one is built for this machine, unless a binary is given.
        """
        if kind == "tvm":
            arguments = [f"--key={key}"]
            if tracker is not None:
                arguments.append(f"--tracker={HOST}:{tracker.port}")
            if proxy is not None:
                arguments.append("--through-proxy")
            at = 0 if proxy is None else proxy.port
            return self._tvm("rpc_server", arguments, key, at)
        address = None if tracker is None else (HOST, tracker.port)
        options: dict[str, Any] = {"key": key, "tracker_addr": address}
        if proxy is not None:
            options.update(port=proxy.port, is_proxy=True)
        if kind == "native":
            options["binary"] = binary
        program = "native" if kind == "native" else "Server"
        return self._started(OurProgram(program, options, self._folder))

    def tracker(self, kind: str) -> Program:
        """A tracker of this kind."""
        if kind == "tvm":
            return self._tvm("rpc_tracker", [])
        return self._started(OurProgram("Tracker", {}, self._folder))

    def proxy(self, kind: str, tracker: Program | None = None) -> Program:
        """A proxy of this kind, which offers its servers to ``tracker`` if there is one."""
        if kind == "tvm":
            arguments = ["--web-port=0"]
            if tracker is not None:
                arguments.append(f"--tracker={HOST}:{tracker.port}")
            return self._tvm("rpc_proxy", arguments, KEY)
        address = None if tracker is None else (HOST, tracker.port)
        options = {"tracker_addr": address}
        program = OurProgram("Proxy", options, self._folder)
        program.key = KEY
        return self._started(program)

    def _tvm(self, program: str, arguments: list[str], key: str = "", at: int = 0) -> Program:
        return self._started(
            TvmProgram(program, arguments, self._folder, self._guard, key, at, self._python)
        )

    def _started(self, program: Program) -> Program:
        self._running.append(program)
        return program

    def stop(self, program: Program) -> None:
        """Stop one program."""
        self._running.remove(program)
        program.stop()

    def close(self) -> None:
        """Stop all programs, the last one first."""
        while self._running:
            self._running.pop().stop()
        self._guard.close()


class Station:
    """One server of one kind for many tests; a new one when the last test may have broken it.

    TVM's server serves one session at a time and ends with the first session that crashes.
    """

    def __init__(self, launcher: Launcher, kind: str) -> None:
        self._launcher = launcher
        self._kind = kind
        self._server: Program | None = None
        self.suspect = False

    def server(self) -> Program:
        """The server, started if there is none that can be trusted."""
        if self._server is not None and self.suspect:
            self._launcher.stop(self._server)
            self._server = None
        if self._server is None:
            self._server = self._launcher.server(self._kind)
            self.suspect = False
        return self._server

    def log(self) -> str:
        """What the server has printed."""
        return "" if self._server is None else self._server.log()

    def close(self) -> None:
        """Stop the server."""
        if self._server is not None:
            self._launcher.stop(self._server)
            self._server = None


class Farm:
    """A tracker and a server that offers `KEY` there; new ones when a test may have broken them."""

    def __init__(self, launcher: Launcher, tracker_kind: str, server_kind: str) -> None:
        self._launcher = launcher
        self._kinds = tracker_kind, server_kind
        self._programs: list[Program] = []
        self.suspect = False

    @property
    def tracker(self) -> Program:
        """The tracker."""
        return self._programs[0]

    @property
    def server(self) -> Program:
        """The server that offers `KEY`."""
        return self._programs[1]

    def renew(self) -> None:
        """Start what is not there, or start all anew when it is suspect."""
        if self.suspect:
            self.close()
        if not self._programs:
            self.suspect = False
            self._programs.append(self._launcher.tracker(self._kinds[0]))
            self.add(KEY)

    @contextlib.contextmanager
    def another(self, key: str) -> Iterator[Program]:
        """One more server, that offers ``key``, until the block ends."""
        server = self.add(key)
        try:
            yield server
        finally:
            self._programs.remove(server)
            self._launcher.stop(server)

    def add(self, key: str) -> Program:
        """One more server, that offers ``key``."""
        server = self._launcher.server(self._kinds[1], key, self.tracker)
        self._programs.append(server)
        return server

    def log(self) -> str:
        """What tracker and servers have printed."""
        return "\n".join(program.log() for program in self._programs)

    def close(self) -> None:
        """Stop servers and tracker."""
        while self._programs:
            self._launcher.stop(self._programs.pop())


def wait_for_queue(tracker: Any, key: str, **wanted: int) -> dict[str, Any]:
    """The tracker's summary, once the numbers of a key are as wanted."""
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        summary: dict[str, Any] = tracker.summary()
        queue = summary["queue_info"].get(key, {"free": 0, "pending": 0})
        if all(queue[name] == number for name, number in wanted.items()):
            return summary
        assert time.monotonic() < deadline, f"{key}: {wanted} expected, {queue} after a long wait"
        time.sleep(0.005)
