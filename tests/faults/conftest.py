"""What the tests of this folder share: a server, and how it looks when it serves on."""

from __future__ import annotations

from typing import Callable, Iterator

import pytest

from pytest_tvmrpc import rpc


@pytest.fixture(name="server", scope="module")
def _server() -> Iterator[rpc.Server]:
    """One server for the module, as it should survive every test."""
    with rpc.Server(port=0, silent=True) as server:
        yield server


@pytest.fixture(name="serves", scope="session")
def _serves() -> Callable[[rpc.Server], bool]:
    """``serves(server)``: whether a new client gets a session that works, at once."""

    def serves(server: rpc.Server) -> bool:
        with rpc.connect(server.host, server.port, handshake_timeout=5) as remote:
            return bool(remote.get_function("rpc.test.addone")(1) == 2)

    return serves
