"""A logged channel: one line for each packet, whatever parts it comes in; nothing else changes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, List

from pytest_tvmrpc import rpc
from pytest_tvmrpc.data_type import DataType
from pytest_tvmrpc.dlpack import Device, TensorRecord
from pytest_tvmrpc.protocol.codes import RPCCode
from pytest_tvmrpc.session.endpoint import Endpoint
from pytest_tvmrpc.session.logged import LoggedChannel

if TYPE_CHECKING:
    import pytest


def lines(caplog: pytest.LogCaptureFixture) -> List[str]:
    """What was logged so far."""
    return [record.getMessage() for record in caplog.records]


def test_each_packet_is_a_line(
    conversation: Any, caplog: pytest.LogCaptureFixture, deadline_s: float
) -> None:
    """With its direction, name and size."""
    caplog.set_level(logging.DEBUG, "pytest_tvmrpc.session")
    conversation.socket.settimeout(None)
    channel = LoggedChannel(conversation.socket, "board", deadline_s, "call_timeout")
    endpoint = Endpoint(channel)
    endpoint.init_server()
    handle = int(endpoint.syscall(RPCCode.GET_GLOBAL_FUNC, "rpc.test.addone"))
    assert endpoint.call(handle, [1], "addone") == 2
    pending = [endpoint.start(handle, [number], "addone") for number in range(2)]
    endpoint.finish()
    assert [one.value for one in pending] == [1, 2]
    endpoint.close()
    logged = lines(caplog)
    assert logged[:6] == [
        "> board INIT_SERVER, 21 bytes",
        "< board RETURN, 8 bytes",
        "> board GET_GLOBAL_FUNC, 35 bytes",
        "< board RETURN, 20 bytes",
        "> board CALL_FUNC, 28 bytes",
        "< board RETURN, 32 bytes",
    ]
    assert sorted(logged[6:10]) == 2 * ["< board RETURN, 32 bytes"] + 2 * [
        "> board CALL_FUNC, 28 bytes"
    ]
    assert logged[10:] == ["> board SHUTDOWN, 4 bytes", "! board: the connection is closed"]


def test_large_copies(
    conversation: Any, caplog: pytest.LogCaptureFixture, deadline_s: float
) -> None:
    """A packet of megabytes is one line, and its content arrives."""
    caplog.set_level(logging.DEBUG, "pytest_tvmrpc.session")
    conversation.socket.settimeout(None)
    endpoint = Endpoint(LoggedChannel(conversation.socket, "board", deadline_s, "call_timeout"))
    endpoint.init_server()
    nbytes = 3_000_000
    record = TensorRecord(0, Device(1, 0), (nbytes,), DataType("uint8"))
    data = int(endpoint.syscall(RPCCode.DEV_ALLOC_DATA_WITH_SCOPE, record, None))
    record = TensorRecord(data, Device(1, 0), (nbytes,), DataType("uint8"))
    content = bytes(range(250)) * 12_000
    endpoint.copy_to_remote(record, memoryview(content))
    target = bytearray(nbytes)
    endpoint.copy_from_remote(record, memoryview(target))
    assert target == content
    endpoint.close()
    assert f"> board COPY_TO_REMOTE, {nbytes + 52} bytes" in lines(caplog)
    assert f"< board COPY_ACK, {nbytes + 4} bytes" in lines(caplog)


def test_connect_logs(caplog: pytest.LogCaptureFixture) -> None:
    """``enable_logging`` of connect() turns it on; without it nothing is logged."""
    caplog.set_level(logging.DEBUG, "pytest_tvmrpc.session")
    with rpc.Server(port=0, silent=True) as server:
        with rpc.connect(server.host, server.port) as remote:
            remote.get_function("rpc.test.addone")(1)
        assert not lines(caplog)
        with rpc.connect(server.host, server.port, enable_logging=True) as remote:
            remote.get_function("rpc.test.addone")(1)
    assert any("CALL_FUNC" in line for line in lines(caplog))
