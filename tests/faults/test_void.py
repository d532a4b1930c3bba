"""The answer to a call has a value, also that of a function which returns nothing.

Clients of TVM from 0.21 on crash on an answer without any.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any, List, Tuple

import pytest

from pytest_tvmrpc.protocol import packets
from pytest_tvmrpc.protocol.codes import RPCCode
from pytest_tvmrpc.protocol.dialect import FFI, LEGACY
from pytest_tvmrpc.protocol.handshake import encode_client_hello

if TYPE_CHECKING:
    from pytest_tvmrpc import rpc


def exactly(connection: socket.socket, nbytes: int) -> bytes:
    received = connection.recv(nbytes, socket.MSG_WAITALL)
    assert len(received) == nbytes
    return received


def answer(connection: socket.socket) -> Tuple[int, bytes]:
    nbytes, code = struct.unpack("<Qi", exactly(connection, 12))
    return code, exactly(connection, nbytes - 4)


def ask(connection: socket.socket, code: int, *parts: bytes) -> Tuple[int, bytes]:
    body = b"".join(parts)
    connection.sendall(struct.pack("<Qi", 4 + len(body), code) + body)
    return answer(connection)


@pytest.mark.parametrize("dialect", [FFI, LEGACY], ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("name", ["testing.echo", "tvm.rpc.server.remove"])
def test_nothing_is_a_value(server: rpc.Server, dialect: Any, name: str) -> None:
    """A null, in both dialects."""
    with socket.create_connection((server.host, server.port), 10) as connection:
        connection.sendall(encode_client_hello(""))
        _, length = struct.unpack("<ii", exactly(connection, 8))
        exactly(connection, length)
        connection.sendall(b"".join(packets.init_server(dialect)))
        answer(connection)
        found = ask(connection, RPCCode.GET_GLOBAL_FUNC, *dialect.encode_values((name,)))[1]
        (handle,) = dialect.decode_values(found, 0, len(found))
        values: List[Any] = [None] if name == "testing.echo" else ["no-such-file"]
        code, body = ask(
            connection,
            RPCCode.CALL_FUNC,
            struct.pack("<Q", handle),
            *dialect.encode_values(values),
        )
        assert code == RPCCode.RETURN
        assert struct.unpack_from("<i", body) != (0,)
        assert dialect.decode_result(body, 0, len(body)) is None
