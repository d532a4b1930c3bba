"""Tests of tensors: what goes in comes out, on this CPU and on a device elsewhere."""

from __future__ import annotations

import itertools
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pytest_tvmrpc
from pytest_tvmrpc import dlpack, runtime
from pytest_tvmrpc.data_type import DataType
from pytest_tvmrpc.dlpack import ALIGNMENT
from pytest_tvmrpc.errors import ConnectionLostError, DeviceError
from pytest_tvmrpc.runtime import copying, nd
from pytest_tvmrpc.runtime import tensor as tensor_function
from pytest_tvmrpc.runtime.copying import not_in_this_process
from pytest_tvmrpc.runtime.device.api import DeviceAPI
from pytest_tvmrpc.runtime.device.cpu import allocate
from pytest_tvmrpc.runtime.tensor import Tensor


class StoredMemory:
    """Memory of the device below: a name for bytes that only it can reach."""

    def __init__(self, number: int, nbytes: int) -> None:
        self.data = number
        self.nbytes = nbytes


class Store(DeviceAPI):
    """A device whose memory is not in this process, as far as a tensor can tell."""

    def __init__(self) -> None:
        self.blocks: dict[int, bytearray] = {}
        self.done: list[str] = []
        self.broken = False

    def alloc(self, device, shape, dtype, mem_scope):
        nbytes = dlpack.tensor_nbytes(shape, dtype)
        number = len(self.blocks) + 1
        self.blocks[number] = bytearray(nbytes)
        return StoredMemory(number, nbytes)

    def _view(self, tensor: Tensor) -> memoryview:
        start = tensor.byte_offset
        return memoryview(self.blocks[tensor.memory.data])[start : start + tensor.nbytes]

    def copy_from_host(self, source, target):
        assert source.format == "B"
        assert source.contiguous
        self.done.append("copy_from_host")
        self.last_source = source
        self._view(target)[:] = source

    def copy_to_host(self, source, target):
        if self.broken:
            raise ConnectionLostError("the peer is gone")
        assert target.format == "B"
        self.done.append("copy_to_host")
        target[:] = self._view(source)

    def describe(self, tensor):
        raise not_in_this_process(tensor)

    def copy(self, source, target):
        self.done.append("copy")
        self._view(target)[:] = self._view(source)


class StoreDevice(runtime.Device):
    """A device with its own API, as a remote one is."""

    store: DeviceAPI

    @property
    def api(self):
        return self.store


@pytest.fixture
def elsewhere() -> StoreDevice:
    device = StoreDevice(1, 0)
    device.store = Store()
    return device


PLAIN_TYPES = [
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128", "bool"),
]


@pytest.mark.parametrize("shape", [(), (1,), (7,), (2, 3), (0,), (3, 0, 2), (1, 2, 3, 4, 5, 1, 1)])
@pytest.mark.parametrize("dtype", PLAIN_TYPES)
def test_array_comes_back_as_it_was(dtype, shape):
    """An array of each type and form survives the way into a tensor and back."""
    count = int(np.prod(shape))
    array = np.arange(count).reshape(shape).astype(dtype)
    tensor = runtime.tensor(array)
    back = tensor.numpy()
    assert (tensor.shape, tensor.dtype) == (shape, dtype)
    assert tensor.nbytes == array.nbytes
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)
    assert back.flags.writeable


def test_array_comes_back_from_another_device(elsewhere):
    """The same through a device whose memory this process cannot reach."""
    array = np.arange(12, dtype="float32").reshape(3, 4)
    tensor = runtime.tensor(array, elsewhere)
    np.testing.assert_array_equal(tensor.numpy(), array)
    assert elsewhere.store.done == ["copy_from_host", "copy_to_host"]


def test_empty_tensors_ask_the_device_nothing(elsewhere):
    """Nothing is copied where there is nothing."""
    tensor = runtime.empty((0, 3), "float32", elsewhere)
    assert tensor.copyfrom(np.empty((0, 3), "float32")).numpy().shape == (0, 3)
    assert tensor.copyto(runtime.cpu()).shape == (0, 3)
    assert elsewhere.store.done == []


def test_contiguous_array_is_not_copied_on_the_way(elsewhere):
    """What the device is given is the array's own memory; also of an array that is read-only."""
    array = np.arange(6, dtype="int32").reshape(2, 3)
    array.flags.writeable = False
    runtime.tensor(array, elsewhere)
    source = elsewhere.store.last_source
    assert np.frombuffer(source, "u1").ctypes.data == array.ctypes.data


def test_strided_array_is_packed():
    """Columns, reversed and transposed arrays arrive in C order."""
    array = np.arange(24, dtype="float32").reshape(4, 6)
    for strided in (array[:, ::2], array[::-1], array.T, np.asfortranarray(array)):
        np.testing.assert_array_equal(runtime.tensor(strided).numpy(), strided)


def test_other_byte_order_is_converted():
    """Values arrive, not bytes."""
    np.testing.assert_array_equal(runtime.tensor(np.array([1, 2], ">i4")).numpy(), [1, 2])


def test_input_is_converted_to_the_tensors_type():
    """Of an array and of a list, where the tensor's type has the values; copyfrom returns it."""
    tensor = runtime.empty((3,), "int32")
    assert tensor.copyfrom(np.array([1.0, -2.0, 3.0])) is tensor
    assert tensor.numpy().tolist() == [1, -2, 3]
    assert tensor.copyfrom([True, False, 2**31 - 1]).numpy().tolist() == [1, 0, 2**31 - 1]
    flags = runtime.empty((3,), "bool").copyfrom(np.array([0, 1.0, 1]))
    assert flags.numpy().tolist() == [False, True, True]
    rounded = runtime.empty((2,), "float16").copyfrom(np.array([0.1, np.inf]))
    np.testing.assert_array_equal(rounded.numpy(), np.array([0.1, np.inf], "float16"))
    assert np.isnan(runtime.empty((1,), "float32").copyfrom([np.nan]).numpy()[0])
    whole = runtime.empty((1,), "float32").copyfrom(np.array([2 + 0j]))
    assert whole.numpy().tolist() == [2]


WRONG_VALUES = [
    ("int32", [1.5]),
    ("int32", [np.nan]),
    ("int32", [2**31]),
    ("int8", np.array([0, 300])),
    ("int8", np.array([200], "uint8")),
    ("uint8", [-1]),
    ("uint64", np.array([-1])),
    ("int64", np.array([2**63], "uint64")),
    ("int64", [2.0**63]),
    ("bool", [2]),
    ("bool", [0.5]),
    ("int4", [8]),
    ("int4", np.array([-9], "int8")),
    ("uint4", [16]),
    ("float16", [1e6]),
    ("float32", [1e300]),
    ("float32", [1 + 2j]),
    ("int32", [1 + 2j]),
    ("complex64", np.array([1e300])),
    ("float8_e4m3fn", [1e6]),
]


@pytest.mark.parametrize(("dtype", "source"), WRONG_VALUES, ids=str)
def test_values_that_the_type_does_not_have(dtype, source):
    """Are refused with their place, and the tensor stays as it was."""
    if dtype.startswith("float8"):
        pytest.importorskip("ml_dtypes")
    tensor = runtime.empty((len(source),), dtype)
    before = bytes(tensor.memory.view)
    with pytest.raises(ValueError, match=r"element \(\d,\) of the array is .* no value of"):
        tensor.copyfrom(source)
    assert bytes(tensor.memory.view) == before


NO_NUMBERS = [
    np.array(["1"]),
    np.array([b"1"]),
    np.array([1, None]),
    np.array(["2020-01-01"], "datetime64[D]"),
    np.array([1], "timedelta64[s]"),
    np.array([(1, 2.0)], "i4,f4"),
    np.array([b"12"], "V2"),
    np.zeros(1, np.dtype([])),
    np.longdouble(1).reshape(1),
    np.clongdouble(1).reshape(1),
    ["1"],
    [None],
    [2**70],
    [[1], [2, 3]],
]


@pytest.mark.parametrize("source", NO_NUMBERS, ids=itertools.count())
def test_arrays_of_no_numbers(source):
    """Texts, times, structures, objects and types of one machine only reach no tensor."""
    for make in (runtime.tensor, runtime.numpyasarray, runtime.empty((1,), "int64").copyfrom):
        with pytest.raises((TypeError, ValueError)):
            make(source)


def test_masked_arrays():
    """What is masked has no value in a tensor; an array with nothing masked is one as others."""
    masked = np.ma.array([1, 2, 3], mask=[0, 1, 0])
    for make in (runtime.tensor, runtime.numpyasarray, runtime.empty((3,), "int64").copyfrom):
        with pytest.raises(ValueError, match=r"masked.*array\.filled"):
            make(masked)
        assert make(np.ma.array([1, 2, 3])).numpy().tolist() == [1, 2, 3]


def test_other_kinds_of_arrays(tmp_path):
    """Matrices, arrays in files, scalars of each type, no elements, no axes: as they are."""
    with pytest.warns(PendingDeprecationWarning, match="matrix"):  # NumPy's own opinion
        matrix = np.matrix([[1, 2]])
    assert runtime.tensor(matrix).numpy().tolist() == [[1, 2]]
    mapped = np.memmap(tmp_path / "array", "int16", "w+", shape=(2, 2))
    mapped[:] = [[1, 2], [3, 4]]
    assert runtime.tensor(mapped.T).numpy().tolist() == [[1, 3], [2, 4]]
    for name in (*PLAIN_TYPES, "longlong", "ulonglong", "intc"):
        scalar = np.dtype(name).type(1)
        tensor = runtime.tensor(scalar)
        assert (tensor.shape, tensor.dtype) == ((), scalar.dtype.name)
        assert tensor.numpy().item() == scalar
        swapped = np.array([1, 0, 1], name).astype(np.dtype(name).newbyteorder("S"))
        assert runtime.tensor(swapped).numpy().tolist() == [1, 0, 1]
        if np.dtype(name).itemsize > 1:
            with pytest.raises(ValueError, match="byte order"):
                runtime.numpyasarray(swapped)


def test_size_and_place():
    """ndim, size, numel, strides, is_contiguous and data_ptr, as of TVM's tensors."""
    tensor = runtime.empty((2, 3, 4), "float32")
    assert (tensor.ndim, tensor.numel(), tensor.strides) == (3, 24, (12, 4, 1))
    assert [tensor.size(axis) for axis in (0, 1, -1)] == [2, 3, 4]
    for axis in (3, -4):
        with pytest.raises(IndexError, match=f"axis {axis} of a tensor of 3"):
            tensor.size(axis)
    assert tensor.is_contiguous()
    assert tensor.data_ptr() == tensor.memory.data
    view = tensor._create_view((5,), relative_byte_offset=8)
    assert view.data_ptr() == tensor.data_ptr() + 8
    scalar = runtime.empty((), "float32")
    assert (scalar.ndim, scalar.numel(), scalar.strides) == (0, 1, ())
    assert runtime.empty((2, 0, 3)).numel() == 0
    assert tensor.is_(tensor)
    assert not tensor.is_(view)
    assert tensor.id_ != view.id_


def test_nested_lists_and_numbers_are_arrays():
    """Something like an array will do: lists, tuples, a NumPy scalar, a number."""
    assert runtime.tensor([[1, 2], [3, 4]]).dtype == "int64"
    assert runtime.tensor((1.5,)).numpy().tolist() == [1.5]
    tensor = runtime.empty((), "float32")
    assert tensor.copyfrom(2.5).numpy() == 2.5
    assert tensor.copyfrom(np.float64(3.5)).numpy() == 3.5


def test_what_is_no_array_is_refused():
    """The error names the type that was given."""
    with pytest.raises(TypeError, match=r"array_like data, type <class 'object'>"):
        runtime.empty((1,)).copyfrom(object())
    for source in (np.array(["text"]), object()):
        with pytest.raises((TypeError, ValueError), match=r"is no data type|expected numbers"):
            runtime.tensor(source)


def test_shape_mismatch_has_tvms_words():
    """Both shapes are named; nothing is broadcast."""
    words = r"array shape do not match the shape of NDArray \(3,\) vs \(2,\)"
    with pytest.raises(ValueError, match=words):
        runtime.empty((2,)).copyfrom(np.zeros(3))
    with pytest.raises(ValueError, match="array shape do not match"):
        runtime.empty((2, 1)).copyfrom(np.zeros(2))
    with pytest.raises(ValueError, match="array shape do not match"):
        runtime.empty((2,)).copyto(runtime.empty((3,)))


def test_lanes_are_a_last_axis():
    """A vector type shows its lanes to NumPy."""
    tensor = runtime.empty((2,), "int8x4")
    array = np.arange(8, dtype="int8").reshape(2, 4)
    np.testing.assert_array_equal(tensor.copyfrom(array).numpy(), array)
    assert (tensor.shape, tensor.nbytes) == ((2,), 8)
    with pytest.raises(ValueError, match=r"\(2,\) vs \(2, 4\)"):
        tensor.copyfrom(np.zeros(2, "int8"))


@pytest.mark.parametrize("count", [0, 1, 2, 5])
@pytest.mark.parametrize(
    ("dtype", "numpy_type", "least"), [("int4", "int8", -8), ("uint4", "uint8", 0)]
)
def test_four_bits_are_packed(dtype, numpy_type, least, count):
    """Two elements share a byte, the first in the upper half; the sign survives."""
    array = np.arange(least, least + count).astype(numpy_type)
    tensor = runtime.empty((count,), dtype).copyfrom(array)
    assert tensor.nbytes == (count + 1) // 2
    assert tensor.numpy().dtype == numpy_type
    np.testing.assert_array_equal(tensor.numpy(), array)


def test_first_of_two_elements_is_in_the_upper_half():
    """The order of TVM's own numpy()."""
    tensor = runtime.empty((3,), "uint4").copyfrom([1, 2, 3])
    assert bytes(tensor.memory.view) == b"\x12\x30"


def test_bool_of_old_takes_a_byte():
    """Up to 0.22, TVM's bool is uint1, and takes one byte all the same."""
    tensor = runtime.empty((9,), DataType.of(1, 1))
    array = np.arange(9) % 2 == 0
    assert tensor.nbytes == 9
    np.testing.assert_array_equal(tensor.copyfrom(array).numpy(), array)


@pytest.mark.parametrize(
    "dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float4_e2m1fn"]
)
def test_small_floats_are_those_of_ml_dtypes(dtype, elsewhere):
    """With ml_dtypes installed, NumPy has these types; float32 input is converted."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    array = np.array([[1.0, 2.0, 4.0]]).astype(getattr(ml_dtypes, dtype))
    for device in (runtime.cpu(), elsewhere):
        tensor = runtime.tensor(array, device)
        assert (tensor.dtype, tensor.shape) == (dtype, (1, 3))
        assert tensor.numpy().dtype == array.dtype
        np.testing.assert_array_equal(tensor.numpy().astype("float32"), [[1, 2, 4]])
        converted = runtime.empty((1, 3), dtype, device).copyfrom(np.float32([[1, 2, 4]]))
        np.testing.assert_array_equal(converted.numpy().astype("float32"), [[1, 2, 4]])


def test_bfloat16_without_ml_dtypes_is_its_bits():
    """A process without the package sees uint16, as with TVM, and may give it."""
    script = (
        "import sys; sys.modules['ml_dtypes'] = None\n"
        "import numpy as np; from pytest_tvmrpc import runtime\n"
        "tensor = runtime.empty((2,), 'bfloat16').copyfrom(np.array([0x3f80, 0x4000], 'uint16'))\n"
        "assert tensor.numpy().dtype == 'uint16' and tensor.numpy().tolist() == [0x3f80, 0x4000]\n"
        "for call in (lambda: tensor.copyfrom(np.zeros(2, 'float32')),\n"
        "             lambda: tensor.copyfrom([1.0, 2.0]),\n"
        "             lambda: runtime.empty((2,), 'float8_e5m2').numpy()):\n"
        "    try: call()\n"
        "    except TypeError as error: assert 'ml_dtypes' in str(error), error\n"
        "    else: raise AssertionError('no error')\n"
    )
    _run(script, "-c")


def test_bfloat16_takes_bits_with_ml_dtypes_too():
    """uint16 input means the bits, as with TVM."""
    pytest.importorskip("ml_dtypes")
    tensor = runtime.empty((2,), "bfloat16").copyfrom(np.array([0x3F80, 0x4000], "uint16"))
    assert tensor.numpy().astype("float32").tolist() == [1.0, 2.0]


@pytest.mark.parametrize("dtype", ["handle", "int24", "float6_e2m3fn", "int2", DataType.of(200, 8)])
def test_types_that_numpy_lacks_are_refused(dtype):
    """The error says how to look at the bytes instead; that way works."""
    tensor = runtime.empty((4,), dtype)
    with pytest.raises(TypeError, match="there is no NumPy type for"):
        tensor.numpy()
    assert tensor._create_view((tensor.nbytes,), "uint8").numpy().shape == (tensor.nbytes,)


def test_view_reads_and_writes_where_it_should(elsewhere):
    """The offset of a view counts, on this CPU and elsewhere, in both directions."""
    for device in (runtime.cpu(), elsewhere):
        whole = runtime.tensor(np.arange(8, dtype="int32"), device)
        view = whole._create_view((2, 2), relative_byte_offset=12)
        assert view.numpy().tolist() == [[3, 4], [5, 6]]
        view.copyfrom(np.full((2, 2), -1))
        assert whole.numpy().tolist() == [0, 1, 2, -1, -1, -1, -1, 7]
        inner = view._create_view((1,), "int32", 4)
        assert (inner.byte_offset, inner.memory) == (16, whole.memory)
        assert inner.copyto(runtime.empty((1,), "int32", device)).numpy().tolist() == [-1]


def test_view_of_another_type():
    """A view may see the same bytes as other elements."""
    tensor = runtime.tensor(np.array([1.0, 2.0], "float32"))
    assert tensor._create_view((2,), "uint32").numpy().tolist() == [0x3F800000, 0x40000000]


@pytest.mark.parametrize(("shape", "offset"), [((5,), 0), ((4,), 1), ((1,), -4), ((1,), 16)])
def test_view_may_not_reach_beyond(shape, offset):
    """A view of more than the tensor has is refused, also of a view's own part."""
    with pytest.raises(ValueError, match="the tensor being viewed has 16"):
        runtime.empty((4,))._create_view(shape, relative_byte_offset=offset)


@pytest.mark.parametrize("shape", ["23", (2.5,), (True,), b"23", None, (-1,), (2**62, 2**62)])
def test_shapes_are_checked_where_they_enter(shape, elsewhere):
    """Of new tensors, here and elsewhere, and of views: an error at that line, nothing is made."""
    for device in (runtime.cpu(), elsewhere):
        with pytest.raises((TypeError, ValueError), match="shape"):
            runtime.empty(shape, "float32", device)
    with pytest.raises((TypeError, ValueError), match="shape"):
        runtime.empty((4,))._create_view(shape)
    assert not elsewhere.store.blocks


@pytest.mark.parametrize("offset", [1.5, "0", None])
def test_offsets_are_integers(offset):
    """Nothing is rounded; NumPy's integers count."""
    tensor = runtime.empty((4,), "uint8")
    with pytest.raises(TypeError):
        tensor._create_view((1,), relative_byte_offset=offset)
    assert tensor._create_view((1,), relative_byte_offset=np.uint8(3)).byte_offset == 3


def test_copies_take_the_shortest_way(elsewhere):
    """On one device by the device; to and from the CPU without a stop; else through the host."""
    array = np.arange(4, dtype="float32")
    second = StoreDevice(1, 0)
    second.store = Store()
    here = runtime.tensor(array)
    there = here.copyto(elsewhere)
    assert elsewhere.store.done == ["copy_from_host"]
    same = there.copyto(runtime.empty((4,), "float32", elsewhere))
    assert elsewhere.store.done[1:] == ["copy"]
    back = same.copyto(runtime.cpu())
    assert elsewhere.store.done[2:] == ["copy_to_host"]
    beyond = runtime.empty((4,), "float32", second).copyfrom(there)
    assert second.store.done == ["copy_from_host"]
    for tensor in (there, same, back, beyond):
        assert tensor.numpy().tolist() == array.tolist()


def test_copy_between_two_machines_holds_little(elsewhere, monkeypatch):
    """It goes through this process block by block, from and to wherever the views are."""
    monkeypatch.setattr(copying, "_RELAYED", 5)
    second = StoreDevice(1, 0)
    second.store = Store()
    source = runtime.tensor(np.arange(8, dtype="int32"), elsewhere)
    target = runtime.tensor(np.full(8, -1, "int32"), second)
    elsewhere.store.done.clear()
    part = source._create_view((3,), relative_byte_offset=8)
    part.copyto(target._create_view((3,), relative_byte_offset=4))
    assert target.numpy().tolist() == [-1, 2, 3, 4, -1, -1, -1, -1]
    assert elsewhere.store.done == ["copy_to_host"] * 3
    assert second.store.last_source.nbytes == 2


def test_copy_asks_for_the_same_bytes():
    """Shapes may differ where the number of bytes is the same; element types may not."""
    source = runtime.tensor(np.arange(6, dtype="float32"))
    assert source.copyto(runtime.empty((2, 3))).numpy().tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(ValueError, match=r"\(6,\) float32 vs \(7,\) float32"):
        source.copyto(runtime.empty((7,)))
    with pytest.raises(ValueError, match="a tensor of float32 cannot be copied to one of int32"):
        source.copyto(runtime.empty((6,), "int32"))
    with pytest.raises(ValueError, match="Unsupported target type"):
        source.copyto([1, 2, 3])


def test_overlapping_views_can_be_copied():
    """Bytes are moved as if they had been copied first."""
    whole = runtime.tensor(np.arange(8, dtype="uint8"))
    whole._create_view((6,)).copyto(whole._create_view((6,), relative_byte_offset=2))
    assert whole.numpy().tolist() == [0, 1, 0, 1, 2, 3, 4, 5]


def test_assignment_to_all_elements():
    """``tensor[:] = array``, and no other slice."""
    tensor = runtime.empty((2,))
    tensor[:] = np.array([1, 2])
    tensor[:] = tensor
    assert tensor.numpy().tolist() == [1, 2]
    with pytest.raises(ValueError, match="only support set"):
        tensor[0:1] = np.array([1])


def test_record_says_where_and_of_what_form():
    """What another machine is told, with plain numbers."""
    view = runtime.empty((4,), "int16")._create_view((3,), relative_byte_offset=2)
    record = view.record
    assert record == dlpack.TensorRecord(
        view.memory.data, dlpack.Device(1, 0), (3,), DataType("int16"), 2
    )
    assert type(record.device) is dlpack.Device
    assert view.record is record


def test_dltensor_is_what_compiled_code_reads():
    """48 bytes as dlpack.h has them, the offset in the pointer, then the shape."""
    import ctypes

    whole = runtime.empty((4, 2), "float32", runtime.cpu(3))
    view = whole._create_view((3, 2), relative_byte_offset=8)
    address = view.dltensor
    fields = struct.unpack("=QiiiBBHQQQ", ctypes.string_at(address, 48))
    assert fields[:7] == (whole.memory.data + 8, 1, 3, 2, 2, 32, 1)
    assert struct.unpack("=2q", ctypes.string_at(fields[7], 16)) == (3, 2)
    assert struct.unpack("=2q", ctypes.string_at(fields[8], 16)) == (2, 1)
    assert fields[9] == 0
    assert view.dltensor == address
    assert view.handle == address
    assert view.argument == struct.pack("=QQ", 7, address)


def test_dltensor_of_many_axes_and_of_none():
    """A scalar has no shape; more axes than are prepared for work, too."""
    import ctypes

    for shape in ((), (1, 2, 1, 2, 1, 2, 1, 2)):
        tensor = runtime.empty(shape)
        fields = struct.unpack("=QiiiBBHQQQ", ctypes.string_at(tensor.dltensor, 48))
        assert fields[3] == len(shape)
        read = ctypes.string_at(fields[7], 8 * len(shape))
        assert struct.unpack(f"={len(shape)}q", read) == shape


def test_dltensor_of_memory_elsewhere_is_refused(elsewhere):
    """Compiled code here cannot use a handle of another machine."""
    tensor = runtime.empty((2,), "float32", elsewhere)
    with pytest.raises(DeviceError, match="is not in this process"):
        _ = tensor.dltensor
    with pytest.raises(DeviceError, match="is not in this process"):
        np.from_dlpack(tensor)


def test_memory_that_a_library_owns_is_read_and_written():
    """A tensor on this CPU may have memory that is only an address."""
    owner = allocate(16)
    tensor = Tensor(StoredMemory(owner.data, 16), (4,), DataType("int32"), runtime.cpu())
    tensor.copyfrom([1, 2, 3, 4])
    assert tensor.numpy().tolist() == [1, 2, 3, 4]
    assert bytes(owner.view) == struct.pack("=4i", 1, 2, 3, 4)
    assert tensor.dltensor


def test_array_memory_can_be_shared():
    """numpyasarray and dlpack go without a copy, in both directions."""
    array = np.zeros(3, "float32")
    tensor = runtime.numpyasarray(array)
    tensor.copyfrom([1, 2, 3])
    assert array.tolist() == [1, 2, 3]
    shared = np.from_dlpack(tensor)
    array[0] = 5
    assert shared[0] == 5
    assert runtime.from_dlpack(array).dltensor
    assert tensor.__dlpack_device__() == (1, 0)
    assert isinstance(tensor, runtime.Tensor)
    assert "dltensor" in repr(tensor.to_dlpack())
    assert runtime.numpyasarray(np.empty((0,), "int8")).numpy().shape == (0,)
    with pytest.raises(ValueError, match="not contiguous"):
        runtime.numpyasarray(array[::2])


def test_aligned_also_after_conversion_to_memory():
    """Compiled code may load whole vectors."""
    for count in (1, 3, 100, 5_000_000):
        assert runtime.empty((count,), "uint8").memory.data % ALIGNMENT == 0


def test_dtype_may_be_a_numpy_type():
    """A text of TVM, a NumPy type or dtype, a DataType."""
    for dtype in ("float64", np.float64, np.dtype("float64"), float, DataType("float64")):
        assert runtime.empty((1,), dtype).dtype == "float64"
    assert runtime.empty(3).shape == (3,)
    assert runtime.empty([np.int64(2), 3]).shape == (2, 3)
    with pytest.raises(ValueError, match="is no data type"):
        runtime.empty((1,), "float33x")


def test_text_is_tvms():
    """As TVM's: a line about the tensor, then NumPy's text; str is NumPy's."""
    tensor = runtime.tensor(np.arange(6, dtype="float32").reshape(2, 3))
    array = tensor.numpy()
    assert repr(tensor) == f"<runtime.Tensor shape=(2, 3), cpu(0)>\n{array!r}"
    assert str(tensor) == str(array)


def test_text_comes_even_without_contents(elsewhere):
    """A report that shows a tensor of a lost device does not fail for it."""
    tensor = runtime.empty((2,), "float32", elsewhere)
    elsewhere.store.broken = True
    assert "contents not available: the peer is gone" in repr(tensor)
    assert "there is no NumPy type" in str(runtime.empty((2,), "handle"))


def test_identity_is_equality():
    """As with TVM: two tensors are equal if they are one."""
    first, second = runtime.empty((1,)), runtime.empty((1,))
    assert first == first.copyfrom([1])
    assert first.same_as(first)
    assert first != second
    assert len({first, second}) == 2


def test_older_spelling():
    """runtime.nd has TVM's older names; asnumpy() warns."""
    assert nd.array is runtime.tensor
    tensor = runtime.nd.array(np.zeros(2), runtime.nd.cpu(0))
    assert isinstance(tensor, runtime.nd.NDArray)
    with pytest.warns(DeprecationWarning, match="use numpy"):
        tensor.asnumpy()


def test_names_are_functions_though_modules_have_them():
    """`tensor` and `device` are functions, whatever else was imported before."""
    assert runtime.tensor is tensor_function
    assert callable(runtime.device)
    assert set(runtime.__all__) <= set(dir(runtime))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = runtime.no_such_name


def test_import_needs_neither_numpy_nor_ctypes():
    """A bare interpreter can import the runtime, and make and describe tensors."""
    script = (
        "import pytest_tvmrpc.runtime as runtime\n"
        "assert not {'numpy', 'ctypes', 'logging', 'asyncio'} & set(sys.modules)\n"
        "tensor = runtime.empty((2, 3)).copyto(runtime.cpu(0))\n"
        "assert tensor.dltensor and tensor.record.nbytes == 24\n"
        "assert 'numpy' not in sys.modules\n"
    )
    _run(script, "-S", "-E", "-c")


def _run(script: str, *flags: str) -> None:
    folder = str(Path(pytest_tvmrpc.__file__).parents[1])
    path = f"import sys; sys.path.insert(0, {folder!r})\n"
    subprocess.run([sys.executable, *flags, path + script], check=True, timeout=60)


@pytest.mark.parametrize("device", ["cuda", "", 0, 1, (1, 0), dlpack.Device(1, 0)])
def test_what_is_no_device(device):
    """Its name is none, and nothing that is empty stands for the CPU."""
    for make in (
        lambda: runtime.empty((2,), "float32", device),
        lambda: runtime.tensor([1.0], device),
    ):
        with pytest.raises(TypeError, match=r"device is .*; expected a Device, as runtime.device"):
            make()


def test_numbers_of_axes_and_bytes():
    """They are integers; a truth value is none."""
    made = runtime.tensor(np.arange(4))
    for number in (1.0, True, "0", np.bool_(0)):
        with pytest.raises(TypeError, match="expected an integer"):
            made.size(number)
        with pytest.raises(TypeError, match="expected an integer"):
            made._create_view((1,), "uint8", number)
