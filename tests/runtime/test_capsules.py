"""Tests of DLPack: memory that is shared with NumPy and others, in both directions."""

from __future__ import annotations

import ctypes
import gc
import weakref
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pytest_tvmrpc import runtime
from pytest_tvmrpc.data_type import DataType
from pytest_tvmrpc.errors import DeviceError
from pytest_tvmrpc.runtime import exchange

if TYPE_CHECKING:
    from pytest_tvmrpc.runtime.tensor import Tensor

TYPES = [
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128", "bool"),
]


class Capsules:
    """A library of today, or one that only knows DLPack before 1.0."""

    def __init__(self, tensor: Tensor, *, is_old: bool = False) -> None:
        self._tensor = tensor
        if not is_old:
            self.__dlpack__ = tensor.__dlpack__  # type: ignore[method-assign]

    def __dlpack__(self, stream: object = None) -> object:
        return self._tensor.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._tensor.__dlpack_device__()


@pytest.fixture(autouse=True)
def _nothing_is_kept():
    """Whatever was shared is given back at the end."""
    gc.collect()
    before = len(exchange._given)
    yield
    gc.collect()
    assert len(exchange._given) == before


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("dtype", TYPES)
def test_numpy_sees_the_memory_itself(dtype, shape):
    """Of each type and form; what one side writes, the other reads; and back again."""
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    tensor = runtime.tensor(array)
    shown = np.from_dlpack(tensor)
    assert (shown.dtype, shown.shape) == (array.dtype, shape)
    np.testing.assert_array_equal(shown, array)
    back = runtime.from_dlpack(shown)
    assert (back.dtype, back.shape, back.device) == (dtype, shape, runtime.cpu(0))
    if array.size:
        assert shown.ctypes.data == tensor.data_ptr() == back.data_ptr()
        tensor.copyfrom(np.ones(shape))
        assert shown.flat[0] == 1
        shown[...] = 0
        assert not back.numpy().any()


@pytest.mark.parametrize("is_old", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float8_e4m3fn", "float32x4", "uint1"])
def test_tensors_of_our_own_through_dlpack(dtype, is_old):
    """Types that NumPy lacks, too, by both forms of the protocol; lanes are a last axis."""
    tensor = runtime.empty((6,), dtype)
    back = runtime.from_dlpack(Capsules(tensor, is_old=is_old))
    lanes = (4,) if dtype == "float32x4" else ()
    assert back.shape == (6, *lanes)
    assert str(back.dtype) == str(DataType(dtype).with_lanes(1))
    assert back.data_ptr() == tensor.data_ptr()


def test_views_keep_their_offset():
    """A part of a tensor is that part."""
    whole = runtime.tensor(np.arange(8, dtype="int32"))
    part = whole._create_view((3,), relative_byte_offset=8)
    assert np.from_dlpack(part).tolist() == [2, 3, 4]


def test_memory_lives_as_long_as_anybody_sees_it():
    """Whoever is dropped first."""
    tensor = runtime.tensor(np.arange(1000))
    shown = np.from_dlpack(tensor)
    del tensor
    gc.collect()
    assert shown.sum() == 499500
    array = np.arange(1000)
    memory = weakref.ref(array)
    shared = runtime.from_dlpack(array)
    del array
    gc.collect()
    assert memory() is not None
    assert shared.numpy().sum() == 499500
    part = shared._create_view((10,))
    del shared
    gc.collect()
    assert part.numpy().sum() == 45
    del part
    gc.collect()
    assert memory() is None


def test_capsules_can_be_taken_once():
    """The capsule itself will do, the second time it is refused; one that nobody takes is freed."""
    tensor = runtime.tensor(np.arange(3))
    capsule = tensor.to_dlpack()
    assert runtime.from_dlpack(capsule).numpy().tolist() == [0, 1, 2]
    with pytest.raises(TypeError, match="took it already"):
        runtime.from_dlpack(capsule)
    tensor.__dlpack__(max_version=(1, 0))
    tensor.__dlpack__()


def test_read_only_memory():
    """Is shared as such; nothing can be copied into it, and no compiled code gets it."""
    array = np.arange(4, dtype="int32")
    array.flags.writeable = False
    for shared in (runtime.from_dlpack(array), runtime.numpyasarray(array)):
        assert shared.data_ptr() == array.ctypes.data
        assert shared.numpy().tolist() == [0, 1, 2, 3]
        for source in (np.zeros(4, "int32"), runtime.tensor(np.zeros(4, "int32"))):
            with pytest.raises(DeviceError, match="read-only"):
                shared.copyfrom(source)
        assert not np.from_dlpack(shared).flags.writeable
        with pytest.raises(BufferError, match=r"read-only.*max_version"):
            shared.__dlpack__()
        assert np.from_dlpack(shared, copy=True).flags.writeable
        for ask in (lambda t: t.argument, lambda t: t.dltensor, lambda t: t.handle):
            with pytest.raises(DeviceError, match=r"read-only.*compiled code.*copyto"):
                ask(shared)
    assert array.tolist() == [0, 1, 2, 3]


def test_a_read_only_tensor_without_elements():
    """May be given to compiled code, which has nothing to write to."""
    assert runtime.numpyasarray(np.frombuffer(b"", "uint8")).argument


def test_what_the_taker_asks_for():
    """copy, dl_device, max_version and stream of the protocol."""
    tensor = runtime.tensor(np.arange(4, dtype="int32"))
    copied = runtime.from_dlpack(tensor.__dlpack__(copy=True))
    assert copied.data_ptr() != tensor.data_ptr()
    assert copied.numpy().tolist() == [0, 1, 2, 3]
    same = runtime.from_dlpack(tensor.__dlpack__(copy=False, dl_device=(1, 0), stream=None))
    assert same.data_ptr() == tensor.data_ptr()
    for device, copy in (((2, 0), None), ((2, 0), True)):
        with pytest.raises(BufferError, match="cannot be had on device"):
            tensor.__dlpack__(dl_device=device, copy=copy)
    names = {version: str(tensor.__dlpack__(max_version=version)) for version in (None, (0, 8))}
    assert all('"dltensor"' in name for name in names.values())
    for version in ((1, 0), (1, 3), (2, 0)):
        assert '"dltensor_versioned"' in str(tensor.__dlpack__(max_version=version))


@pytest.mark.parametrize("dtype", ["int4", "float4_e2m1fn", "float6_e2m3fn"])
def test_less_than_a_byte_is_not_shared(dtype):
    """Libraries pack it in different ways."""
    with pytest.raises(TypeError, match="cannot be shared"):
        runtime.empty((4,), dtype).__dlpack__()


def test_what_cannot_be_taken():
    """Gaps between elements, other objects, other capsules."""
    array = np.arange(12).reshape(3, 4)
    for strided in (array.T, array[:, ::2], array[::-1]):
        with pytest.raises(ValueError, match=r"not contiguous.*use tensor\(\), which copies"):
            runtime.from_dlpack(strided)
    assert runtime.from_dlpack(array[1:2]).numpy().tolist() == [[4, 5, 6, 7]]
    for other in (object(), [1, 2], None, "text"):
        with pytest.raises(TypeError, match="has no __dlpack__"):
            runtime.from_dlpack(other)
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = (
        ctypes.py_object,
        [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p],
    )
    name = b"something"
    with pytest.raises(TypeError, match="is no DLPack tensor"):
        runtime.from_dlpack(new(ctypes.c_void_p(1), name, None))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("ndim", 65, "cannot be taken: .* 65 axes; expected 0 to 64"),
        ("shape", None, "cannot be taken: .*lengths at NULL"),
        ("data", None, "cannot be taken: .*at NULL; expected the address of its elements"),
        ("byte_offset", 2**64 - 8, "cannot be taken: .*beyond any memory"),
    ],
)
def test_capsules_that_describe_no_tensor(field, value, message):
    """Say what is wrong with it, which no copy mends; the memory stays who it was."""
    tensor = runtime.tensor(np.arange(6, dtype="int32"))
    capsule = tensor.__dlpack__()
    pointer = ctypes.PyDLL(None).PyCapsule_GetPointer  # whose types are no concern of others
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    record = exchange.DLManagedTensor.from_address(pointer(capsule, b"dltensor")).dl_tensor
    before = getattr(record, field)
    setattr(record, field, value)
    with pytest.raises(ValueError, match=message) as caught:
        runtime.from_dlpack(capsule)
    assert "which copies" not in str(caught.value)
    setattr(record, field, before)
    assert runtime.from_dlpack(capsule).numpy().tolist() == [0, 1, 2, 3, 4, 5]


def test_numpy_method_copies_and_dlpack_does_not():
    """What numpy() returns belongs to the caller."""
    tensor = runtime.tensor(np.zeros(4))
    mine, shown = tensor.numpy(), np.from_dlpack(tensor)
    tensor.copyfrom(np.ones(4))
    assert mine.tolist() == [0] * 4
    assert shown.tolist() == [1] * 4
