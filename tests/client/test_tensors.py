"""Tensors whose memory is on a server."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pytest_tvmrpc import rpc, runtime
from pytest_tvmrpc.errors import RemoteError

SHAPES = [(), (0,), (1,), (1024,), (1025,), (3, 4, 5), (0, 3), (300, 300), (2, 1_000_000)]
DTYPES = ["float32", "float64", "float16", "int8", "uint8", "int32", "int64", "uint16", "bool"]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_any_shape(remote: rpc.RPCSession, shape: Any) -> None:
    """There and back without a change."""
    array = np.asarray(np.random.random_sample(shape), "float32")
    tensor = runtime.tensor(array, remote.cpu(0))
    assert tensor.shape == shape
    assert tensor.device == remote.cpu(0)
    np.testing.assert_array_equal(tensor.numpy(), array)


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_type(remote: rpc.RPCSession, dtype: str) -> None:
    """The type stays what it was."""
    array = (np.arange(100) % 2).astype(dtype)
    tensor = runtime.tensor(array, remote.cpu(0))
    assert tensor.dtype == dtype
    assert tensor.numpy().dtype == array.dtype
    np.testing.assert_array_equal(tensor.numpy(), array)


def test_arrays_with_gaps(remote: rpc.RPCSession) -> None:
    """Slices, transposed and reversed arrays are sent in their own order."""
    array = np.arange(1200, dtype="int32").reshape(30, 40)
    for view in (array[::2, ::3], array.T, array[::-1]):
        np.testing.assert_array_equal(runtime.tensor(view, remote.cpu(0)).numpy(), view)


def test_new_content(remote: rpc.RPCSession) -> None:
    """copyfrom replaces it, small or large, and gives the tensor back; another shape cannot be."""
    for count in (10, 100_000):
        tensor = runtime.empty((count,), "float32", remote.cpu(0))
        array = np.random.rand(count).astype("float32")
        assert tensor.copyfrom(array) is tensor
        np.testing.assert_array_equal(tensor.numpy(), array)
        with pytest.raises(ValueError):
            tensor.copyfrom(np.zeros(count + 1, "float32"))
        np.testing.assert_array_equal(tensor.numpy(), array)


def test_copies_between_places(remote: rpc.RPCSession, inside: Any) -> None:
    """Here and there, there and here, on the server, and from server to server."""
    array = np.random.rand(64, 64).astype("float32")
    here = runtime.tensor(array)
    there = here.copyto(remote.cpu(0))
    assert there.device == remote.cpu(0)
    again = there.copyto(runtime.empty((64, 64), "float32", remote.cpu(0)))
    back = again.copyto(runtime.cpu(0))
    np.testing.assert_array_equal(back.numpy(), array)
    elsewhere = inside[0].cpu(0)
    try:
        moved = there.copyto(elsewhere)
    except ValueError:
        return  # refused in words, which is as good
    np.testing.assert_array_equal(moved.numpy(), array)


def test_views(remote: rpc.RPCSession) -> None:
    """A view at an offset reads and writes there; TVM's goes to the start of the memory."""
    array = np.arange(24, dtype="float32")
    tensor = runtime.tensor(array, remote.cpu(0))
    view = tensor._create_view((3, 4), relative_byte_offset=16)
    np.testing.assert_array_equal(view.numpy(), array[4:16].reshape(3, 4))
    view.copyfrom(np.zeros((3, 4), "float32"))
    expected = array.copy()
    expected[4:16] = 0
    np.testing.assert_array_equal(tensor.numpy(), expected)
    with pytest.raises(ValueError):
        tensor._create_view((24,), relative_byte_offset=4)


def test_a_returned_tensor(remote: rpc.RPCSession) -> None:
    """A tensor that a function returns is held as long as it is held here."""
    made = remote.get_function("rpc.test.remote_return_nd")
    tensor = made("get_arr")()
    assert tensor.shape == (10,)
    np.testing.assert_array_equal(tensor.numpy(), np.zeros(10, "float32"))
    tensor.copyfrom(np.arange(10, dtype="float32"))
    np.testing.assert_array_equal(tensor.numpy(), np.arange(10, dtype="float32"))


def test_more_memory_than_there_is(remote: rpc.RPCSession) -> None:
    """Is an error of the device, and the session goes on."""
    with pytest.raises(RemoteError, match="cannot allocate"):
        runtime.empty((1 << 50,), "uint8", remote.cpu(0))
    assert remote.cpu(0).exist


def test_a_memory_scope_that_is_not_there(remote: rpc.RPCSession) -> None:
    """TVM's words, as an error of this session's."""
    with pytest.raises(RemoteError, match=r"memory scope: global\.texture"):
        runtime.empty((4,), "float32", remote.cpu(0), mem_scope="global.texture")


def test_streams_and_attributes(remote: rpc.RPCSession) -> None:
    """The device's own functions go over the session."""
    device = remote.cpu(0)
    stream = device.create_raw_stream()
    device.set_raw_stream(stream)
    device.sync(stream)
    device.free_raw_stream(stream)
    device.sync()
    assert device.total_global_memory
    assert device.warp_size is None


def test_text(remote: rpc.RPCSession) -> None:
    """A tensor says where it is."""
    text = repr(runtime.tensor(np.ones(2, "float32"), remote.cpu(0)))
    assert "remote[" in text
    assert "cpu(0)" in text
