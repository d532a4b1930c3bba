"""Tensors in the server's memory: made, copied in all directions, seen by functions; devices."""

from __future__ import annotations

import gc
from typing import Any, Tuple

import pytest

from pytest_tvmrpc import rpc, runtime
from pytest_tvmrpc.data_type import DataType
from pytest_tvmrpc.dlpack import Device, OpaquePointer, TensorRecord
from pytest_tvmrpc.errors import RemoteError
from pytest_tvmrpc.protocol.codes import RPCCode

np = pytest.importorskip("numpy")

CPU = Device(1, 0)
DTYPES = [
    *("float32", "float64", "float16", "int8", "uint8", "int16", "uint16"),
    *("int32", "uint32", "int64", "uint64", "bool", "complex64", "complex128"),
]
SHAPES = [(), (1,), (7,), (2, 3), (3, 1, 5), (0,), (0, 3), (4, 0), (2, 3, 4, 5), (1,) * 32]


def values(shape: Tuple[int, ...], dtype: str) -> Any:
    """An array to tell apart."""
    numbers = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    return (numbers % 3 == 1 if dtype == "bool" else numbers % 100).astype(dtype)


def test_each_data_type(remote: rpc.RPCSession) -> None:
    """There and back, and copied there."""
    for dtype in DTYPES:
        array = values((3, 5), dtype)
        tensor = runtime.tensor(array, remote.cpu(0))
        assert tensor.dtype == dtype
        for one in (tensor, tensor.copyto(remote.cpu(0))):
            assert one.numpy().dtype == array.dtype
            np.testing.assert_array_equal(one.numpy(), array)


SMALL = [
    *("bfloat16", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn"),
    *("float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn"),
]


@pytest.mark.parametrize("dtype", SMALL)
def test_types_of_ml_dtypes(remote: rpc.RPCSession, dtype: str) -> None:
    """Bit by bit; those of less than a byte are packed."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    array = np.array([1, 2, 4, 1, 2], "float32").astype(getattr(ml_dtypes, dtype))
    tensor = runtime.tensor(array, remote.cpu(0))
    assert tensor.numpy().tobytes() == array.tobytes()
    assert tensor.copyto(remote.cpu(0)).numpy().tobytes() == array.tobytes()


@pytest.mark.parametrize("dtype", ["int4", "uint4", "int1", "uint2", "int4x8", "float4_e2m1fnx2"])
def test_elements_of_less_than_a_byte(remote: rpc.RPCSession, dtype: str) -> None:
    """Their bytes come back, also of a count that leaves half a byte."""
    kind = DataType(dtype)
    tensor = runtime.empty((5, 3), dtype, remote.cpu(0))
    nbytes = (15 * kind.bits * kind.lanes + 7) // 8
    content = bytes(range(1, nbytes + 1))
    endpoint = remote._endpoint
    endpoint.copy_to_remote(tensor.record, memoryview(content), is_awaited=True)
    back = bytearray(nbytes)
    endpoint.copy_from_remote(tensor.record, memoryview(back))
    assert bytes(back) == content
    copy = runtime.empty((5, 3), dtype, remote.cpu(0))
    tensor.copyto(copy)
    endpoint.copy_from_remote(copy.record, memoryview(back))
    assert bytes(back) == content


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_each_shape(remote: rpc.RPCSession, module: Any, shape: Tuple[int, ...]) -> None:
    """None, one or many dimensions, some of length zero; and so a function sees them."""
    array = values(shape, "float32")
    tensor = runtime.tensor(array, remote.cpu(0))
    assert tensor.shape == shape
    copy = tensor.copyto(remote.cpu(0))
    for one in (tensor, copy, copy.copyto(runtime.cpu(0))):
        np.testing.assert_array_equal(one.numpy(), array)
    field = module["tensor_field"]
    assert field(tensor, 0) == len(shape)
    assert [field(tensor, 10 + axis) for axis in range(len(shape))] == list(shape)


def test_what_a_kernel_sees(remote: rpc.RPCSession, module: Any) -> None:
    """Type, device, compact strides, and memory that is aligned to 64 bytes."""
    field = module["tensor_field"]
    tensor = runtime.empty((2, 3), "int16", remote.cpu(0))
    assert [field(tensor, number) for number in (1, 3, 4)] == [16 << 16 | 1, 1, 0]
    assert field(tensor, 2) >= 64
    assert field(tensor, 5) is True
    assert field(runtime.empty((2,), "bool", remote.cpu(0)), 1) == 6 << 24 | 8 << 16 | 1


def test_a_kernel_writes(remote: rpc.RPCSession, module: Any) -> None:
    """In place, and where a view begins."""
    tensor = runtime.tensor(np.zeros((3, 4), "float32"), remote.cpu(0))
    module["fill"](tensor, 2.5)
    np.testing.assert_array_equal(tensor.numpy(), np.full((3, 4), 2.5))
    view = tensor._create_view((2,), relative_byte_offset=12)
    module["fill"](view, -1.0)
    assert tensor.numpy().ravel().tolist() == [2.5] * 3 + [-1.0] * 2 + [2.5] * 7
    scalar = runtime.tensor(np.float32(1), remote.cpu(0))
    module["fill"](scalar, 7.0)
    assert scalar.numpy() == 7


def test_views(remote: rpc.RPCSession) -> None:
    """A view with an offset is read, written and copied from where it is, beyond its tensor."""
    tensor = runtime.tensor(np.arange(24, dtype="float32"), remote.cpu(0))
    view = tensor._create_view((3, 4), relative_byte_offset=16)
    np.testing.assert_array_equal(view.numpy(), np.arange(4, 16).reshape(3, 4))
    np.testing.assert_array_equal(view.copyto(remote.cpu(0)).numpy(), view.numpy())
    view.copyfrom(np.zeros((3, 4)))
    assert tensor.numpy().nonzero()[0].tolist() == [1, 2, 3, *range(16, 24)]
    runtime.tensor(np.ones((3, 4), "float32"), remote.cpu(0)).copyto(view)
    del tensor
    gc.collect()
    np.testing.assert_array_equal(view.numpy(), np.ones((3, 4)))


@pytest.mark.parametrize("nbytes", [0, 1, 63, 64, 65, 4095, 65_537, (1 << 20) + 1, 64 << 20])
def test_sizes(remote: rpc.RPCSession, nbytes: int) -> None:
    """From nothing to 64 MiB."""
    array = np.random.default_rng(nbytes).integers(0, 256, nbytes).astype("uint8")
    tensor = runtime.tensor(array, remote.cpu(0))
    assert tensor.numpy().tobytes() == array.tobytes()


def test_copies_there(remote: rpc.RPCSession) -> None:
    """Between two tensors; of one size, though the types may differ."""
    source = runtime.tensor(values((4, 4), "int64"), remote.cpu(0))
    target = runtime.empty((4, 4), "int64", remote.cpu(0))
    assert source.copyto(target) is target
    source.copyfrom(np.zeros((4, 4), "int64"))
    np.testing.assert_array_equal(target.numpy(), values((4, 4), "int64"))
    smaller = runtime.empty((4, 3), "int64", remote.cpu(0))
    with pytest.raises(RemoteError):
        remote._endpoint.syscall(
            RPCCode.COPY_AMONG_REMOTE, source.record, smaller.record, OpaquePointer(0)
        )


def test_many(remote: rpc.RPCSession) -> None:
    """They keep apart, and what is freed can be had again."""
    kept = runtime.tensor(np.full(5000, 7, "uint8"), remote.cpu(0))
    for _ in range(3):
        tensors = [runtime.tensor(np.full(5, n, "int32"), remote.cpu(0)) for n in range(50)]
        for number, tensor in enumerate(tensors):
            assert tensor.numpy().tolist() == [number] * 5
        del tensors, tensor
    for _ in range(300):  # what is copied to one that is dropped at once lands nowhere else
        runtime.tensor(np.zeros(5000, "uint8"), remote.cpu(0))
    assert set(kept.numpy().tolist()) == {7}


def test_as_arguments_and_results(remote: rpc.RPCSession) -> None:
    """What a function returned goes into others, and is held there as long as here."""
    check = remote.get_function("rpc.test.remote_tensor_func")
    check(runtime.tensor(np.ones((3, 4)), remote.cpu(0)))
    with pytest.raises(RemoteError):
        check(runtime.tensor(np.zeros((3, 4)), remote.cpu(0)))
    make = remote.get_function("rpc.test.remote_return_nd")
    get, element = make("get_arr"), make("get_arr_elem")
    first, second = get(), get()
    assert (first.shape, str(first.dtype)) == ((10,), "float32")
    assert first.device == remote.cpu(0)
    first.copyfrom(np.arange(10, dtype="float32"))
    assert element(first, 7) == 7.0
    del first
    gc.collect()
    np.testing.assert_array_equal(second.numpy(), np.arange(10))
    for _ in range(100):
        assert element(get(), 3) == 3.0
    assert make("get_elem")(3) == 0.0  # of another tensor


def test_raw_memory(remote: rpc.RPCSession) -> None:
    """Bytes without a form, as older allocations ask for them; they can be seen as any type."""
    endpoint = remote._endpoint
    memory = int(endpoint.syscall(RPCCode.DEV_ALLOC_DATA, CPU, 40, 64, DataType("float32")))
    record = TensorRecord(memory, CPU, (10,), DataType("float32"), 0)
    endpoint.copy_to_remote(record, memoryview(bytes(range(40))), is_awaited=True)
    part = bytearray(8)
    there = TensorRecord(memory, CPU, (2,), DataType("float32"), 16)
    endpoint.copy_from_remote(there, memoryview(part))
    assert bytes(part) == bytes(range(16, 24))
    endpoint.syscall(RPCCode.DEV_FREE_DATA, CPU, OpaquePointer(memory))


def test_memory_scopes(remote: rpc.RPCSession) -> None:
    """A CPU has ``global`` only; another one is refused in TVM's words."""
    tensor = runtime.empty((3,), "int32", remote.cpu(0), "global")
    tensor.copyfrom(np.arange(3))
    assert tensor.numpy().tolist() == [0, 1, 2]
    with pytest.raises(RemoteError, match=r"specified memory scope: local\.fast"):
        runtime.empty((3,), "int32", remote.cpu(0), "local.fast")


ATTRIBUTES = [
    *("max_threads_per_block", "warp_size", "max_shared_memory_per_block", "compute_version"),
    *("device_name", "max_clock_rate", "multi_processor_count", "api_version", "driver_version"),
    *("l2_cache_size_bytes", "max_thread_dimensions"),
]


def test_attributes_of_a_device(remote: rpc.RPCSession) -> None:
    """A CPU is there, has memory, and nothing else to say."""
    device = remote.cpu(0)
    assert device.exist
    assert {name: getattr(device, name) for name in ATTRIBUTES} == dict.fromkeys(ATTRIBUTES)
    assert device.total_global_memory > 1 << 20
    assert device.available_global_memory is None or device.available_global_memory > 0


def test_streams(remote: rpc.RPCSession) -> None:
    """Those of a CPU can be made, set, waited for and freed; they are all the same one."""
    device = remote.cpu(0)
    remote._endpoint.syscall(RPCCode.DEV_SET_DEVICE, CPU)
    stream = device.create_raw_stream()
    device.set_raw_stream(stream)
    device.sync(stream)
    assert device.get_raw_stream() == 0
    device.sync()
    device.free_raw_stream(stream)
