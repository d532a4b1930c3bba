"""Sessions with a real server, and with an answering end in this process, to look into."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path
from typing import Any, Callable, Iterator, Tuple

import pytest

from pytest_tvmrpc import rpc
from pytest_tvmrpc.client.session import RPCSession
from pytest_tvmrpc.errors import CompilerError
from pytest_tvmrpc.runtime.toolchain import compile_library, find_compiler
from pytest_tvmrpc.session.channel import SocketChannel
from pytest_tvmrpc.session.endpoint import Endpoint
from pytest_tvmrpc.session.environment import Environment
from pytest_tvmrpc.session.local import LocalSession
from pytest_tvmrpc.session.serving import Server, StreamBrokenError

KERNELS = Path(__file__).parents[2] / "examples" / "kernels"


@pytest.fixture(name="library", scope="session")
def _library(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The library of the function ``vector_add(a, b, c)`` of float32 tensors."""
    output = tmp_path_factory.mktemp("library") / "vector_add.so"
    try:
        find_compiler()
    except CompilerError as error:
        pytest.skip(str(error))
    return compile_library(KERNELS / "vector_add.c", output, options=["-std=c99"])


@pytest.fixture(name="server", scope="module")
def _server(launch: Callable[..., Any]) -> Iterator[rpc.Server]:
    """One server for the module."""
    with launch(port=0, silent=True) as server:
        yield server


@pytest.fixture(name="remote")
def _remote(server: rpc.Server) -> Iterator[rpc.RPCSession]:
    """A session with it."""
    with rpc.connect(server.host, server.port) as remote:
        yield remote


@pytest.fixture(name="inside")
def _inside(tmp_path: Path, deadline_s: float) -> Iterator[Tuple[RPCSession, LocalSession]]:
    """A session, and what stands at its other end."""
    session = LocalSession(Environment(str(tmp_path)))
    asking, answering = socket.socketpair()

    def serve() -> None:
        with answering, contextlib.suppress(StreamBrokenError, OSError):
            Server(SocketChannel(answering, "the client"), session).serve()

    thread = threading.Thread(target=serve)
    thread.start()
    endpoint = Endpoint(SocketChannel(asking, "the server", deadline_s, "call_timeout"))
    endpoint.init_server()
    with RPCSession(endpoint, ("inside", 1)) as remote:
        yield remote, session
    thread.join(deadline_s)
    assert not thread.is_alive()


@pytest.fixture(name="vector_add")
def _vector_add(remote: rpc.RPCSession, library: str) -> Any:
    """The module of the library, on the server."""
    remote.upload(library)
    return remote.load_module("vector_add.so")
