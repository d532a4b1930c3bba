"""Tensors in the server's memory."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from .clients import Client

DTYPES = [
    *("float32", "float64", "float16", "int8", "uint8", "int16", "uint16"),
    *("int32", "uint32", "int64", "uint64", "bool"),
]
SHAPES = [(), (1,), (7,), (2, 3), (3, 1, 5), (0,), (0, 3), (4, 0), (2, 3, 4, 5)]


def _values(shape: tuple[int, ...], dtype: str) -> np.ndarray[Any, Any]:
    numbers = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    return (numbers % 3 == 1 if dtype == "bool" else numbers % 100).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_data_type(client: Client, remote: Any, dtype: str) -> None:
    """A tensor made from an array gives the array back, in its data type."""
    values = _values((3, 5), dtype)
    tensor = client.runtime.tensor(values, remote.cpu(0))
    assert tensor.dtype == dtype
    assert tensor.numpy().dtype == values.dtype
    np.testing.assert_array_equal(tensor.numpy(), values)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_numbers(client: Client, remote: Any, dtype: str) -> None:
    """Our client has them; to a server they are bytes like others."""
    if client.name == "tvm":
        pytest.skip("TVM has no names for them: unknown dtype")
    values = (np.arange(6) * (1 + 2j)).astype(dtype).reshape(2, 3)
    tensor = client.runtime.tensor(values, remote.cpu(0))
    assert tensor.dtype == dtype
    np.testing.assert_array_equal(tensor.numpy(), values)
    np.testing.assert_array_equal(tensor.copyto(remote.cpu(0)).numpy(), values)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_each_shape(client: Client, remote: Any, shape: tuple[int, ...]) -> None:
    """A tensor may have any number of dimensions, none, and dimensions of length zero."""
    values = _values(shape, "float32")
    tensor = client.runtime.tensor(values, remote.cpu(0))
    assert tuple(tensor.shape) == shape
    assert tensor.numpy().shape == shape
    np.testing.assert_array_equal(tensor.numpy(), values)


def test_empty(client: Client, remote: Any) -> None:
    """An empty tensor has the shape and type asked for; float32 unless told."""
    tensor = client.runtime.empty((2, 3), device=remote.cpu(0))
    assert tuple(tensor.shape) == (2, 3)
    assert tensor.dtype == "float32"
    assert tensor.numpy().shape == (2, 3)


def test_bfloat16(client: Client, remote: Any) -> None:
    """A type that NumPy lacks can be had on the server, and keeps its name."""
    tensor = client.runtime.empty((4,), "bfloat16", remote.cpu(0))
    assert tensor.dtype == "bfloat16"


def test_copyfrom(client: Client, remote: Any) -> None:
    """``copyfrom`` writes an array and returns the tensor; the array is converted to its type."""
    tensor = client.runtime.empty((2, 3), "float32", remote.cpu(0))
    values = np.arange(6.0).reshape(2, 3)
    assert tensor.copyfrom(values) is tensor
    np.testing.assert_array_equal(tensor.numpy(), values.astype("float32"))
    tensor.copyfrom([[1, 1, 1], [2, 2, 2]])
    np.testing.assert_array_equal(tensor.numpy(), [[1, 1, 1], [2, 2, 2]])


def test_copyfrom_an_array_with_strides(client: Client, remote: Any) -> None:
    """An array that is not contiguous arrives in C order."""
    values = np.arange(12, dtype="int32").reshape(3, 4)
    for view in (values.T, values[:, ::2], values[::-1]):
        tensor = client.runtime.tensor(view, remote.cpu(0))
        np.testing.assert_array_equal(tensor.numpy(), view)


def test_copyfrom_the_wrong_shape(client: Client, remote: Any) -> None:
    """An array of another shape is refused; the tensor keeps its contents."""
    tensor = client.runtime.tensor(np.ones((2, 3), "float32"), remote.cpu(0))
    with pytest.raises(ValueError, match="shape"):
        tensor.copyfrom(np.zeros((3, 2), "float32"))
    np.testing.assert_array_equal(tensor.numpy(), np.ones((2, 3)))


def test_copyto_on_the_server(client: Client, remote: Any) -> None:
    """``copyto`` between two tensors of a session copies there, and gives the target."""
    values = _values((4, 4), "int64")
    source = client.runtime.tensor(values, remote.cpu(0))
    target = client.runtime.empty((4, 4), "int64", remote.cpu(0))
    assert source.copyto(target) is target
    source.copyfrom(np.zeros((4, 4), "int64"))
    np.testing.assert_array_equal(target.numpy(), values)
    np.testing.assert_array_equal(target.copyto(remote.cpu(0)).numpy(), values)


def test_copyto_and_from_this_machine(client: Client, remote: Any) -> None:
    """``copyto`` moves a tensor here and there."""
    values = _values((5,), "float64")
    there = client.runtime.tensor(values, client.runtime.cpu(0)).copyto(remote.cpu(0))
    np.testing.assert_array_equal(there.numpy(), values)
    here = there.copyto(client.runtime.cpu(0))
    np.testing.assert_array_equal(here.numpy(), values)
    there.copyfrom(np.zeros(5))
    np.testing.assert_array_equal(here.numpy(), values)


def test_a_view_of_another_shape(client: Client, remote: Any) -> None:
    """A view has the memory of its tensor in another shape."""
    tensor = client.runtime.tensor(np.arange(6, dtype="float32"), remote.cpu(0))
    view = tensor._create_view((2, 3))
    assert tuple(view.shape) == (2, 3)
    np.testing.assert_array_equal(view.numpy(), np.arange(6).reshape(2, 3))
    view.copyfrom(np.ones((2, 3), "float32"))
    np.testing.assert_array_equal(tensor.numpy(), np.ones(6))


def test_a_view_outlives_its_tensor(client: Client, remote: Any) -> None:
    """The memory stays while a view of it does."""
    tensor = client.runtime.tensor(np.arange(6, dtype="float32"), remote.cpu(0))
    view = tensor._create_view((3, 2))
    del tensor
    gc.collect()
    np.testing.assert_array_equal(view.numpy(), np.arange(6).reshape(3, 2))


def test_a_view_with_an_offset(client: Client, remote: Any, module: Any) -> None:
    """A function that gets a view into the middle of a tensor works there."""
    tensor = client.runtime.tensor(np.zeros(6, "float32"), remote.cpu(0))
    view = tensor._create_view((2,), relative_byte_offset=12)
    module["fill"](view, 1.0)
    np.testing.assert_array_equal(tensor.numpy(), [0, 0, 0, 1, 1, 0])


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3)], ids=str)
def test_scalars_and_nothing(client: Client, remote: Any, shape: tuple[int, ...]) -> None:
    """Tensors of no dimension or no element are copied on the server, and seen by functions."""
    values = _values(shape, "float32") + 1
    tensor = client.runtime.tensor(values, remote.cpu(0))
    copy = tensor.copyto(remote.cpu(0))
    np.testing.assert_array_equal(copy.numpy(), values)
    assert tensor.copyto(copy) is copy
    assert copy.copyfrom(values * 2) is copy
    np.testing.assert_array_equal(copy.copyto(client.runtime.cpu(0)).numpy(), values * 2)


def test_shapes_a_kernel_sees(client: Client, remote: Any, module: Any) -> None:
    """A compiled function gets any number of dimensions, and lengths of zero."""
    field = module["tensor_field"]
    for shape in SHAPES:
        tensor = client.runtime.empty(shape, "float32", remote.cpu(0))
        assert field(tensor, 0) == len(shape)
        assert [field(tensor, 10 + axis) for axis in range(len(shape))] == list(shape)


def test_a_large_tensor(client: Client, remote: Any) -> None:
    """Tensors of several megabytes go there and back unchanged."""
    values = np.random.default_rng(0).integers(0, 255, 8_000_003).astype("uint8")
    tensor = client.runtime.tensor(values, remote.cpu(0))
    np.testing.assert_array_equal(tensor.numpy(), values)


def test_many_tensors(client: Client, remote: Any) -> None:
    """Tensors keep apart, and what is freed can be had again."""
    for _ in range(3):
        tensors = [client.runtime.tensor(np.full(5, n, "int32"), remote.cpu(0)) for n in range(50)]
        for number, tensor in enumerate(tensors):
            assert tensor.numpy().tolist() == [number] * 5
        del tensors, tensor


@pytest.mark.parametrize("nbytes", [64, 4096, 65536])
def test_tensors_that_are_dropped_at_once(client: Client, remote: Any, nbytes: int) -> None:
    """What was copied to a tensor never lands in memory that was freed and is another's."""
    kept = client.runtime.tensor(np.full(nbytes, 7, "uint8"), remote.cpu(0))
    for _ in range(300):
        client.runtime.tensor(np.zeros(nbytes, "uint8"), remote.cpu(0))
    assert set(kept.numpy().tolist()) == {7}


def test_a_tensor_as_an_argument(client: Client, remote: Any) -> None:
    """A function on the server sees the tensor's values."""
    check = remote.get_function("rpc.test.remote_tensor_func")
    check(client.runtime.tensor(np.ones((3, 4)), remote.cpu(0)))
    with pytest.raises(client.remote_error):
        check(client.runtime.tensor(np.zeros((3, 4)), remote.cpu(0)))


def test_what_a_kernel_sees_of_a_tensor(client: Client, remote: Any, module: Any) -> None:
    """A compiled function gets shape, type and compact strides; memory aligned to 64 bytes."""
    field = module["tensor_field"]
    tensor = client.runtime.empty((2, 3), "int16", remote.cpu(0))
    assert [field(tensor, number) for number in (0, 1, 3, 4, 10, 11)] == [
        *(2, 0 << 24 | 16 << 16 | 1, 1, 0, 2, 3)
    ]
    assert field(tensor, 2) >= 64
    assert field(tensor, 5) is True
    flags = client.runtime.empty((2,), "bool", remote.cpu(0))
    assert field(flags, 1) == 6 << 24 | 8 << 16 | 1


def test_a_kernel_writes_a_tensor(client: Client, remote: Any, module: Any) -> None:
    """What a compiled function writes into a tensor is there afterwards."""
    tensor = client.runtime.tensor(np.zeros((3, 4), "float32"), remote.cpu(0))
    module["fill"](tensor, 2.5)
    np.testing.assert_array_equal(tensor.numpy(), np.full((3, 4), 2.5))
    scalar = client.runtime.tensor(np.float32(1), remote.cpu(0))
    module["fill"](scalar, -1.0)
    assert scalar.numpy() == -1


def test_a_tensor_as_a_result(client: Client, remote: Any) -> None:
    """A tensor that a function returns is in the server's memory, and readable."""
    get = remote.get_function("rpc.test.remote_return_nd")("get_arr")
    first, second = get(), get()
    assert tuple(first.shape) == (10,)
    assert first.dtype == "float32"
    assert first.device == remote.cpu(0)
    np.testing.assert_array_equal(first.numpy(), np.zeros(10))
    first.copyfrom(np.ones(10, "float32"))
    np.testing.assert_array_equal(second.numpy(), np.ones(10))
    del first
    gc.collect()
    np.testing.assert_array_equal(second.numpy(), np.ones(10))


def test_a_tensor_as_a_result_is_freed(client: Client, remote: Any) -> None:
    """The server holds a returned tensor as long as the client does, and no longer."""
    make = remote.get_function("rpc.test.remote_return_nd")
    get, element = make("get_arr"), make("get_arr_elem")
    for _ in range(100):
        tensor = get()
        assert element(tensor, 3) == 0.0
        del tensor
    assert make("get_elem")(3) == 0.0


def test_attributes_of_a_device(client: Client, remote: Any) -> None:
    """A remote device says whether it is there, and what is known about it."""
    device = remote.cpu(0)
    assert device.exist
    assert device.warp_size is None
    assert device.total_global_memory > 0
    assert not remote.cuda(0).exist


def test_streams(client: Client, remote: Any) -> None:
    """Streams of a CPU can be made, set, waited for and freed; they are all the same one."""
    device = remote.cpu(0)
    stream = device.create_raw_stream()
    device.set_raw_stream(stream)
    device.sync(stream)
    device.sync()
    device.free_raw_stream(stream)


def test_a_device_that_is_not_there(client: Client, remote: Any) -> None:
    """Memory on a device that the server lacks raises, and the session goes on."""
    with pytest.raises(client.remote_error):
        client.runtime.empty((4,), "float32", remote.cuda(0))
    assert remote.get_function("rpc.test.addone")(1) == 2


SMALL_FLOATS = [
    *("bfloat16", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn"),
    *("float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn"),
]


@pytest.mark.parametrize("dtype", SMALL_FLOATS)
def test_types_of_ml_dtypes(client: Client, remote: Any, dtype: str) -> None:
    """What NumPy lacks goes there and back by way of ml_dtypes, bit by bit."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    values = np.array([1, 2, 4, 1, 2, 4], "float32").astype(getattr(ml_dtypes, dtype))
    tensor = client.runtime.tensor(values, remote.cpu(0))
    assert tensor.dtype == dtype
    assert tensor.numpy().dtype == values.dtype
    assert tensor.numpy().tobytes() == values.tobytes()
    on_the_server = tensor.copyto(remote.cpu(0))
    assert on_the_server.numpy().tobytes() == values.tobytes()


def test_copies_of_a_view_with_an_offset(client: Client, remote: Any) -> None:
    """A view is read and written where it is, and copied from there on the server."""
    if client.name == "tvm":
        pytest.skip("TVM's client reads and writes the start of the memory instead")
    tensor = client.runtime.tensor(np.arange(24, dtype="float32"), remote.cpu(0))
    view = tensor._create_view((3, 4), relative_byte_offset=16)
    np.testing.assert_array_equal(view.numpy(), np.arange(4, 16).reshape(3, 4))
    np.testing.assert_array_equal(view.copyto(remote.cpu(0)).numpy(), view.numpy())
    view.copyfrom(np.zeros((3, 4)))
    assert tensor.numpy().nonzero()[0].tolist() == [1, 2, 3, *range(16, 24)]


def test_copies_between_two_servers(client: Client, remote: Any) -> None:
    """A tensor of one server is copied to another, and back."""
    if client.name == "tvm":
        pytest.skip("TVM's client refuses: Cannot copy across two different remote session")
    values = _values((300, 300), "int32")
    tensor = client.runtime.tensor(values, remote.cpu(0))
    with client.rpc.Server(port=0, silent=True) as server, client.rpc.connect(
        server.host, server.port
    ) as other:
        there = tensor.copyto(other.cpu(0))
        tensor.copyfrom(np.zeros((300, 300)))
        np.testing.assert_array_equal(there.copyto(tensor).numpy(), values)


def test_four_bits(client: Client, remote: Any) -> None:
    """TVM's order of two elements in a byte, which its client cannot write by itself."""
    tensor = client.runtime.empty((4,), "int4", remote.cpu(0))
    packed = tensor._create_view((2,), "int8")
    packed.copyfrom(np.array([0x1F, 0x7A], "uint8").view("int8"))
    expected = [1, -1, 7, -6] if client.name == "ours" else [1, 15, 7, 10]
    assert tensor.numpy().tolist() == expected
