"""The kinds of servers under test: each is started once, and gives sessions and connections."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from typing import TYPE_CHECKING, Any, Callable, ContextManager, Dict, Iterator

from pytest_tvmrpc import rpc
from pytest_tvmrpc.runtime.native_programs import build_server
from pytest_tvmrpc.server.launch import NativeServer

from ..legacy.clients import FfiClient, LegacyClient

if TYPE_CHECKING:
    from pathlib import Path

    from harness.interop.servers import Station

KEY = "board"
ANSWER_LIMIT_S = 5.0
"""How long TVM's server is asked whether it still serves; if not, it is started anew."""


class Kind:
    """A running server of one kind.

    Args:
        name: of the kind.
        is_ours: whether it has what only servers of this package have.
        has_handshake: whether clients say hello to it, at an address.
        compiles_sources: whether it loads sources of C.
        links: whether its machine has a compiler that links what it loads.
    """

    def __init__(
        self,
        name: str,
        *,
        is_ours: bool = True,
        has_handshake: bool = True,
        compiles_sources: bool,
        links: bool = True,
    ) -> None:
        self.name = name
        self.is_ours = is_ours
        self.has_handshake = has_handshake
        self.compiles_sources = compiles_sources
        self.links = links

    def doubt(self) -> None:
        """A test has failed, which a server of ours survives."""

    def renew(self) -> None:
        """Between two tests, while no session is open."""

    def session(self, **options: Any) -> rpc.RPCSession:
        """A session of our client; `options` are those of `rpc.connect`."""
        raise NotImplementedError

    def legacy(self, minor: int, timeout_s: float) -> ContextManager[LegacyClient]:
        """A plain connection in the dialect of TVM 0.8 to 0.20."""
        raise NotImplementedError

    def ffi(self, timeout_s: float) -> ContextManager[FfiClient]:
        """A plain connection in the dialect of today."""
        raise NotImplementedError


class OverTcp(Kind):
    """A server at an address; the other arguments are those of `Kind`.

    Args:
        port: of the server.
        host: of the server.
        key: of the server.
    """

    def __init__(
        self, name: str, port: int, host: str = "127.0.0.1", key: str = KEY, **features: bool
    ) -> None:
        super().__init__(name, **features)
        self.host = host
        self.port = port
        self.key = key

    def session(self, **options: Any) -> rpc.RPCSession:
        """A session with the server."""
        return rpc.connect(self.host, self.port, options.pop("key", self.key), **options)

    def legacy(self, minor: int, timeout_s: float) -> ContextManager[LegacyClient]:
        """A connection after its handshake and InitServer."""
        return LegacyClient(self.port, self.key, minor=minor, timeout_s=timeout_s, host=self.host)

    def ffi(self, timeout_s: float) -> ContextManager[FfiClient]:
        """Likewise."""
        return FfiClient(self.port, self.key, timeout_s=timeout_s, host=self.host)


class OfTvm(OverTcp):
    """TVM's server, which ends with the first session that crashes, and then is started anew.

    Args:
        station: starts it.
    """

    def __init__(self, station: Station) -> None:
        super().__init__("tvm", station.server().port, is_ours=False, compiles_sources=False)
        self._station = station

    def doubt(self) -> None:
        """It is to be looked at before the next test."""
        self._station.suspect = True

    def renew(self) -> None:
        """A new one, unless the one that is there serves a session."""
        if self._station.suspect:
            with contextlib.suppress(rpc.RPCError), self.session(
                handshake_timeout=ANSWER_LIMIT_S, call_timeout=ANSWER_LIMIT_S
            ) as session:
                self._station.suspect = session.get_function("rpc.test.addone")(1) != 2
        self.port = self._station.server().port


class OverPipes(Kind):
    """A program that is started for each session."""

    def __init__(self, name: str, binary: str, **features: bool) -> None:
        super().__init__(name, has_handshake=False, **features)
        self.binary = binary

    def session(self, **options: Any) -> rpc.RPCSession:
        """A session with a new process."""
        return rpc.PopenSession(self.binary, **options)

    @contextlib.contextmanager
    def _process(self) -> Iterator[socket.socket]:
        ours, its = socket.socketpair()
        with ours, its:
            number = its.fileno()
            with subprocess.Popen(
                [self.binary, str(number), str(number)], pass_fds=[number]
            ) as process:
                its.close()
                try:
                    yield ours
                finally:
                    ours.close()
                    process.wait()

    @contextlib.contextmanager
    def legacy(self, minor: int, timeout_s: float) -> Iterator[LegacyClient]:
        """A connection to a new process, after its InitServer."""
        with self._process() as connection, LegacyClient(
            connection, minor=minor, timeout_s=timeout_s
        ) as client:
            yield client

    @contextlib.contextmanager
    def ffi(self, timeout_s: float) -> Iterator[FfiClient]:
        """Likewise."""
        with self._process() as connection, FfiClient(connection, timeout_s=timeout_s) as client:
            yield client


@contextlib.contextmanager
def python(folder: Path) -> Iterator[Kind]:
    """Our server in Python."""
    with rpc.Server(port=0, key=KEY, silent=True) as server:
        yield OverTcp("python", server.port, compiles_sources=True)


@contextlib.contextmanager
def native(folder: Path) -> Iterator[Kind]:
    """Our server in C."""
    with NativeServer(build_server(), port=0, key=KEY, silent=True) as server:
        yield OverTcp("native", server.port, compiles_sources=False)


@contextlib.contextmanager
def popen(folder: Path) -> Iterator[Kind]:
    """Our program in C for one session over two descriptors."""
    yield OverPipes("popen", build_server(kind="popen"), compiles_sources=False)


@contextlib.contextmanager
def tvm(folder: Path) -> Iterator[Kind]:
    """TVM's server in Python, of the TVM that is installed."""
    from harness.interop.servers import Launcher, Station

    launcher = Launcher(folder)
    try:
        yield OfTvm(Station(launcher, "tvm"))
    finally:
        launcher.close()


KINDS: Dict[str, Callable[[Path], ContextManager[Kind]]] = {
    "python": python,
    "native": native,
    "popen": popen,
    "tvm": tvm,
}
"""Each starts a server that may use a folder for its files, and ends it."""


def started(name: str, folder: Path) -> ContextManager[Kind]:
    """A server of a kind; or, as ``HOST:PORT/KEY``, one of ours in C that runs somewhere."""
    if name in KINDS:
        return KINDS[name](folder)
    address, _, key = name.partition("/")
    host, _, port = address.rpartition(":")
    there = OverTcp(name, int(port), host, key, compiles_sources=False, links=False)
    return contextlib.nullcontext(there)


DEFAULT = ["python", "native", "popen"]
"""What is tested where nobody says otherwise: what needs nothing but this package."""
