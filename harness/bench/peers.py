"""Who is measured: our stack and TVM's, behind one small protocol. Measures nothing.

Both have the same names, as ours are TVM's: what a session, a tensor or a module can do is not
wrapped. What differs is how programs are started, and how a session ends.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
import socket
import sys
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .goals import NATIVE, OURS, TVM, TVM_NATIVE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Address = tuple[str, int]

LOOPBACK = "127.0.0.1"
PORTS_TRIED = 200  # TVM searches a range; where ours asks the system for any port


class Runtime(Protocol):
    """The functions of ``tvm.runtime`` that are used."""

    def tensor(self, arr: Any, device: Any) -> Any: ...

    def empty(self, shape: tuple[int, ...], dtype: str, device: Any) -> Any: ...


class Session(Protocol):
    """What is used of an RPCSession."""

    def get_function(self, name: str) -> Any: ...

    def upload(self, data: Any, target: str | None = None) -> None: ...

    def download(self, path: str) -> bytearray: ...

    def load_module(self, path: str) -> Any: ...

    def cpu(self, dev_id: int = 0) -> Any: ...


class Stack(Protocol):
    """A client, a server and a tracker that belong together."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def runtime(self) -> Runtime: ...

    def tracker(self) -> AbstractContextManager[Address]:
        """A tracker in a process of its own."""
        ...

    def server(
        self, tracker: Address | None = None, key: str = ""
    ) -> AbstractContextManager[Address]:
        """A server in a process of its own."""
        ...

    def connect(self, address: Address) -> Session: ...

    def connect_tracker(self, address: Address) -> Any: ...

    def close(self, session: Session) -> None:
        """Ends a session; nothing of it may be used later."""
        ...


class OurStack:
    """pytest_tvmrpc, as users import it.

    Args:
        is_legacy: whether sessions with our own server speak the older dialect, which the server
            learns from what it hears. With TVM's server they speak the server's.
        program: the server in C, if that is the server.
    """

    def __init__(self, *, is_legacy: bool = False, program: str = "") -> None:
        self.name = NATIVE if program else OURS
        self._is_legacy = is_legacy
        self._program = program
        package = importlib.import_module("pytest_tvmrpc")
        self._rpc = package.rpc
        self.runtime: Runtime = package.runtime
        self.version: str = package.__version__

    @contextlib.contextmanager
    def tracker(self) -> Iterator[Address]:
        with self._rpc.Tracker(host=LOOPBACK, port=0, silent=True) as tracker:
            yield (LOOPBACK, tracker.port)

    @contextlib.contextmanager
    def server(self, tracker: Address | None = None, key: str = "") -> Iterator[Address]:
        if self._program:
            with _native_server(self._program, tracker, key) as address:
                yield address
            return
        with self._rpc.Server(
            host=LOOPBACK, port=0, tracker_addr=tracker, key=key, silent=True
        ) as server:
            yield (LOOPBACK, server.port)

    def connect(self, address: Address) -> Session:
        session = self._rpc.connect(*address)
        endpoint = session._endpoint
        if self._is_legacy and endpoint.is_ours:
            endpoint.speak(importlib.import_module("pytest_tvmrpc.protocol.dialect").LEGACY)
        return session  # type: ignore[no-any-return]

    def connect_tracker(self, address: Address) -> Any:
        return self._rpc.connect_tracker(*address)

    def close(self, session: Session) -> None:
        session.close()  # type: ignore[attr-defined]


class TvmStack:
    """apache-tvm, as its documentation uses it.

    Args:
        program: the server in C, if that is the server; the tracker is ours then.
    """

    def __init__(self, program: str = "") -> None:
        self.name = TVM_NATIVE if program else TVM
        self._program = program
        self._rpc = importlib.import_module("tvm.rpc")
        self.runtime: Runtime = importlib.import_module("tvm.runtime")
        self.version = importlib.metadata.version("apache-tvm")

    @contextlib.contextmanager
    def tracker(self) -> Iterator[Address]:
        if self._program:
            with OurStack().tracker() as address:
                yield address
            return
        port = free_port()
        module = importlib.import_module("tvm.rpc.tracker")  # wants tornado; the rest does not
        with _silent_children():
            tracker = module.Tracker(LOOPBACK, port, port + PORTS_TRIED, silent=True)
        try:
            yield (LOOPBACK, tracker.port)
        finally:
            tracker.terminate()

    @contextlib.contextmanager
    def server(self, tracker: Address | None = None, key: str = "") -> Iterator[Address]:
        if self._program:
            with _native_server(self._program, tracker, key) as address:
                yield address
            return
        port = free_port()
        with _silent_children():
            server = self._rpc.Server(
                LOOPBACK, port, port + PORTS_TRIED, tracker_addr=tracker, key=key, silent=True
            )
        try:
            yield (LOOPBACK, server.port)
        finally:
            server.terminate()

    def connect(self, address: Address) -> Session:
        session: Session = self._rpc.connect(*address)
        return session

    def connect_tracker(self, address: Address) -> Any:
        return self._rpc.connect_tracker(*address)

    def close(self, session: Session) -> None:
        """Nothing: TVM's session ends when the last name for it is gone."""


@contextlib.contextmanager
def _native_server(program: str, tracker: Address | None, key: str) -> Iterator[Address]:
    launch = importlib.import_module("pytest_tvmrpc.server.launch")
    with launch.NativeServer(program, port=0, key=key, tracker_addr=tracker) as server:
        yield (LOOPBACK, server.port)


def _build() -> str:
    """The server in C."""
    programs = importlib.import_module("pytest_tvmrpc.runtime.native_programs")
    return str(programs.build_server())


class Absent(NamedTuple):
    """A stack that cannot be measured here, and why."""

    name: str
    reason: str


def find_stacks(names: set[str], *, is_legacy: bool = False) -> tuple[list[Stack], list[Absent]]:
    """The stacks that can be measured, and those that cannot. Imports TVM only when it is named."""
    found: list[Stack] = []
    absent: list[Absent] = []
    makers: tuple[tuple[str, Callable[[], Stack]], ...] = (
        (OURS, lambda: OurStack(is_legacy=is_legacy)),
        (NATIVE, lambda: OurStack(is_legacy=is_legacy, program=_build())),
        (TVM_NATIVE, lambda: TvmStack(_build())),
        (TVM, TvmStack),
    )
    for name, make in makers:
        if name not in names:
            absent.append(Absent(name, ""))
            continue
        try:
            found.append(make())
        except Exception as error:  # TVM's import fails in many ways; each is a remark
            absent.append(Absent(name, _why_not(name, error)))
    return found, absent


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return min(int(probe.getsockname()[1]), 65535 - PORTS_TRIED)


def _why_not(name: str, error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name == "tvm":
        return "not installed (pip install apache-tvm tornado)"
    return f"cannot be imported: {' '.join(str(error).split())}"[:200]


@contextlib.contextmanager
def _silent_children() -> Iterator[None]:
    """Children that are started inside write their errors nowhere.

    TVM's tracker and server log to the standard error that they inherit, whatever `silent` says:
    each connection of a session that ends would be a line through our table.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(nowhere)
        os.close(kept)
