"""Handles that another session has: numbers, which mean nothing here."""

from __future__ import annotations

from typing import Callable

import pytest

from pytest_tvmrpc import rpc, runtime


def test_a_handle_of_another_session(
    server: rpc.Server, serves: Callable[[rpc.Server], bool]
) -> None:
    """Calling it and freeing it touches nothing; the session that was asked goes on."""
    with rpc.Server(port=0, silent=True) as other, rpc.connect(other.host, other.port) as there:
        for number in range(20):
            function = there.get_function("rpc.test.add_to_lhs")(number)
        with rpc.connect(server.host, server.port) as here:
            add_one = here.get_function("rpc.test.addone")
            with pytest.raises(rpc.RemoteError, match="handle"):
                here.call(function.handle, (1,), "a foreign function")
            here.release(function.handle, type(function))
            assert add_one(1) == 2
            with pytest.raises((TypeError, ValueError), match="different remote session"):
                here.get_function("testing.echo")(function)
            assert add_one(2) == 3
        assert function(1) == 20
    assert serves(server)


def test_memory_of_another_session(server: rpc.Server) -> None:
    """A tensor over there is refused as an argument here, and not taken for what has its number."""
    with rpc.Server(port=0, silent=True) as other, rpc.connect(other.host, other.port) as there:
        tensor = runtime.empty((4,), "float32", there.cpu(0))
        with rpc.connect(server.host, server.port) as here:
            runtime.empty((4,), "float32", here.cpu(0))
            with pytest.raises((TypeError, ValueError), match="is not on this server"):
                here.get_function("testing.echo")(tensor)
            assert here.get_function("rpc.test.addone")(1) == 2
