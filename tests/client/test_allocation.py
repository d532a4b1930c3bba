"""Small memory is asked for with the next request, which tells what went wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Tuple

import pytest

from pytest_tvmrpc import rpc, runtime
from pytest_tvmrpc.data_type import DataType
from pytest_tvmrpc.dlpack import Device, OpaquePointer, TensorRecord
from pytest_tvmrpc.errors import RemoteError
from pytest_tvmrpc.protocol.codes import RPCCode

if TYPE_CHECKING:
    from pytest_tvmrpc.client.session import RPCSession
    from pytest_tvmrpc.session.local import LocalSession

np = pytest.importorskip("numpy")

Inside = Tuple["RPCSession", "LocalSession"]


def test_it_costs_no_round_trip(remote: rpc.RPCSession) -> None:
    """Many tensors, and none of them waits; each has memory of its own."""
    device = remote.cpu(0)
    tensors = [runtime.empty((8,), "int32", device) for _ in range(40)]
    assert remote.meter.calls == 0
    for number, tensor in enumerate(tensors):
        tensor.copyfrom(np.full(8, number, "int32"))
    for number, tensor in enumerate(tensors):
        assert tensor.numpy().tolist() == [number] * 8


def test_a_great_many(remote: rpc.RPCSession) -> None:
    """More than wait at a time, mixed with frees: nothing is lost or mixed up."""
    device = remote.cpu(0)
    kept = {}
    for number in range(500):
        tensor = runtime.tensor(np.full(4, number, "int32"), device)
        if number % 3 == 0:
            kept[number] = tensor
    assert all(tensor.numpy().tolist() == [number] * 4 for number, tensor in kept.items())


def test_large_memory_is_waited_for(remote: rpc.RPCSession) -> None:
    """Where there may be none, the error comes at once."""
    with pytest.raises(RemoteError, match="cannot allocate"):
        runtime.empty((1 << 50,), "uint8", remote.cpu(0))
    with pytest.raises(RemoteError, match="memory scope"):
        runtime.empty((4,), "uint8", remote.cpu(0), mem_scope="nowhere")
    with pytest.raises(RemoteError):
        runtime.empty((4,), "uint8", remote.cuda(0))


def test_a_server_that_is_not_ours_chooses_itself(inside: Inside) -> None:
    """The handle is waited for, as in a session that was passed on."""
    remote, session = inside
    assert not remote._endpoint.takes_handles
    tensor = runtime.empty((4,), "uint8", remote.cpu(0))
    assert tensor.record.data in session.handles


def test_a_handle_that_cannot_be_chosen(remote: rpc.RPCSession) -> None:
    """Nothing that lives is replaced."""
    tensor = runtime.tensor(np.arange(4), remote.cpu(0))
    wanted = TensorRecord(0, Device(1), (4,), DataType("uint8"))
    for handle in (tensor.record.data, 1, 12345):
        with pytest.raises(RemoteError, match="cannot be chosen"):
            remote._endpoint.syscall(
                RPCCode.DEV_ALLOC_DATA_WITH_SCOPE, wanted, None, OpaquePointer(handle)
            )
    assert tensor.numpy().tolist() == [0, 1, 2, 3]
