"""Scripted peers of TVM 0.8 to 0.20 for every test here, and servers of ours for them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Callable, ContextManager, Iterator, List

import pytest

from pytest_tvmrpc import rpc
from pytest_tvmrpc.errors import CompilerError
from pytest_tvmrpc.runtime.toolchain import compile_library

from .clients import FfiClient, LegacyClient
from .server import LegacyServer

KERNELS = Path(__file__).parents[2] / "examples" / "kernels"


@pytest.fixture(name="legacy_server")
def _legacy_server() -> Iterator[Callable[..., LegacyServer]]:
    """``legacy_server(minor=13, ...)``: a `LegacyServer`; its complaints fail the test.

    A test that means to break a rule takes the complaints away: ``server.complaints.clear()``.
    """
    servers: List[LegacyServer] = []

    def start(minor: int = 13, **options: Any) -> LegacyServer:
        servers.append(LegacyServer(minor, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
    complaints = [complaint for server in servers for complaint in server.complaints]
    assert not complaints, "\n\n".join(complaints)


@pytest.fixture(name="old", params=[8, 13, 14, 16, 18, 20], ids="0.{}".format)
def _old(
    request: pytest.FixtureRequest, legacy_server: Callable[..., LegacyServer]
) -> LegacyServer:
    """A server of each kind of those days."""
    return legacy_server(request.param)


@pytest.fixture(name="session")
def _session(deadline_s: float) -> Callable[..., ContextManager[rpc.RPCSession]]:
    """``session(server, ...)``: a session of our client, which has to end as TVM's does."""

    @contextlib.contextmanager
    def session(server: LegacyServer, *arguments: Any) -> Iterator[rpc.RPCSession]:
        with rpc.connect("127.0.0.1", server.port, *arguments) as remote:
            yield remote
        # The server got its answers off and then read the Shutdown.
        assert server.session.done.wait(deadline_s)
        assert server.session.ended == "Shutdown"

    return session


@pytest.fixture(name="server", scope="module")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rpc.Server]:
    """One server of ours for the module, as it should survive every test."""
    log = tmp_path_factory.mktemp("server") / "log"
    with open(log, "w") as file, rpc.Server(port=0, log=file) as server:
        yield server


@pytest.fixture(name="second_server")
def _second_server() -> Iterator[rpc.Server]:
    """Another one, for a test."""
    with rpc.Server(port=0, silent=True) as server:
        yield server


@pytest.fixture(name="legacy")
def _legacy(server: rpc.Server, deadline_s: float) -> Iterator[Callable[..., LegacyClient]]:
    """``legacy(key="", options="", minor=13, ...)``: a `LegacyClient` of our server."""
    with contextlib.ExitStack() as stack:

        def connect(*arguments: str, **options: Any) -> LegacyClient:
            options.setdefault("timeout_s", deadline_s)
            port = options.pop("port", server.port)
            return stack.enter_context(LegacyClient(port, *arguments, **options))

        yield connect


@pytest.fixture(name="ffi")
def _ffi(server: rpc.Server, deadline_s: float) -> Iterator[Callable[[], FfiClient]]:
    """``ffi()``: a client of our server that speaks the dialect of today."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(FfiClient(server.port, timeout_s=deadline_s))


@pytest.fixture(name="kernel", scope="session")
def _kernel(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A library of those days."""
    output = tmp_path_factory.mktemp("kernel") / "kernel.so"
    try:
        compile_library(Path(__file__).parent / "kernel.c", output, options=["-std=c99"])
    except CompilerError as error:
        pytest.skip(str(error))
    return output.read_bytes()


@pytest.fixture(name="vector_add", scope="session")
def _vector_add(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A library of today: ``vector_add(a, b, c)`` of float32 tensors."""
    output = tmp_path_factory.mktemp("library") / "vector_add.so"
    try:
        compile_library(KERNELS / "vector_add.c", output, options=["-std=c99"])
    except CompilerError as error:
        pytest.skip(str(error))
    return output.read_bytes()
