from __future__ import annotations

import ctypes
import gc
from array import array
from typing import Any, Dict, Optional, Sequence, Tuple

import pytest

from pytest_tvmrpc import runtime
from pytest_tvmrpc.data_type import DataType
from pytest_tvmrpc.dlpack import compact_strides
from pytest_tvmrpc.errors import LibraryError
from pytest_tvmrpc.runtime import abi, exchange
from pytest_tvmrpc.runtime.foreign import Reference, tensor_at


def described(
    shape: Sequence[int], strides: Optional[Sequence[int]] = None, byte_offset: int = 0
) -> Tuple[abi.DLTensor, Any]:
    """A DLTensor over the floats 0, 1, 2, ..., and what must live as long."""
    elements = (ctypes.c_float * 12)(*range(12))
    sizes = (ctypes.c_int64 * max(len(shape), 1))(*shape)
    steps = (ctypes.c_int64 * len(strides))(*strides) if strides else None
    record = abi.DLTensor(
        ctypes.addressof(elements),
        *(1, 0, len(shape), 2, 32, 1),
        ctypes.addressof(sizes) if shape else None,
        ctypes.addressof(steps) if steps is not None else None,
        byte_offset,
    )
    return record, (elements, sizes, steps)


def content(tensor: Any) -> Sequence[float]:
    """The elements of a tensor of floats."""
    memory = bytearray(tensor.nbytes)
    tensor.device.api.copy_to_host(tensor, memoryview(memory))
    return list(array("f", bytes(memory)))


@pytest.mark.parametrize(
    ("shape", "strides", "byte_offset", "expected"),
    [
        ((2, 2), None, 0, [0, 1, 2, 3]),
        ((2, 2), (2, 1), 8, [2, 3, 4, 5]),
        ((1, 3), (99, 1), 0, [0, 1, 2]),
        ((), None, 4, [1]),
        ((0, 3), None, 0, []),
        ((2, 0, 3), (7, 7, 7), 0, []),
    ],
)
def test_tensors(
    shape: Sequence[int],
    strides: Optional[Sequence[int]],
    byte_offset: int,
    expected: Sequence[float],
) -> None:
    """A tensor reads where the description says; strides may say that there are no gaps."""
    record, alive = described(shape, strides, byte_offset)
    tensor = tensor_at(ctypes.addressof(record))
    assert (tensor.shape, tensor.dtype, tensor.device) == (shape, "float32", runtime.cpu(0))
    assert content(tensor) == expected
    del alive


def test_gaps() -> None:
    """Elements that do not lie one after the other are refused."""
    for strides in ((1, 2), (3, 1), (0, 0)):
        record, alive = described((2, 2), strides)
        with pytest.raises(LibraryError, match="expected elements in C order without gaps"):
            tensor_at(ctypes.addressof(record))
        del alive


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": None}, "at NULL; expected the address of its elements"),
        ({"shape": None}, "with their lengths at NULL"),
        ({"ndim": 1 << 28}, "268435456 axes; expected 0 to 64"),
        ({"ndim": 65}, "65 axes; expected 0 to 64"),
        ({"ndim": -1}, "-1 axes; expected 0 to 64"),
        ({"lanes": 0}, "its elements have no size"),
        ({"byte_offset": 2**64 - 16}, "at an offset of 18446744073709551600, which is beyond"),
        ({"byte_offset": 2**64 - 1, "data": 8, "ndim": 0}, "of 4 bytes at an offset"),
        ({"data": 2**64 - 15}, "of 16 bytes at an offset of 0, which is beyond any memory"),
    ],
)
def test_descriptions_of_no_tensor(change: Dict[str, Any], message: str) -> None:
    """A description that no tensor can have is an error; its memory is not read."""
    record, alive = described((2, 2))
    for name, value in change.items():
        setattr(record, name, value)
    with pytest.raises(LibraryError, match=message):
        tensor_at(ctypes.addressof(record))
    del alive


@pytest.mark.parametrize(
    ("shape", "message"),
    [((-1,), "lengths are 0 or more"), ((-2, -2), "0 or more"), ((1 << 40, 1 << 41), "any memory")],
)
def test_lengths_of_no_tensor(shape: Sequence[int], message: str) -> None:
    """No tensor has a negative length, or more elements than any memory holds."""
    record, alive = described(shape)
    with pytest.raises(LibraryError, match=message):
        tensor_at(ctypes.addressof(record))
    del alive


def test_empty_tensors_without_memory() -> None:
    """A tensor of no elements needs no memory."""
    record, alive = described((0, 3))
    record.data = None
    assert content(tensor_at(ctypes.addressof(record))) == []
    del alive


@pytest.mark.parametrize("kind", [exchange.DLManagedTensor, exchange.DLManagedTensorVersioned])
@pytest.mark.parametrize(
    "change", [{"ndim": 65}, {"shape": None}, {"ndim": -1}, {"byte_offset": 2**64 - 16}]
)
def test_managed_tensors_that_are_refused(kind: Any, change: Dict[str, Any]) -> None:
    """They stay the caller's, whose deleter is not called; one that is taken is deleted once."""
    deleted = []
    deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(deleted.append)
    record, alive = described((2, 2))
    managed = kind()
    managed.deleter = ctypes.cast(deleter, ctypes.c_void_p).value
    managed.dl_tensor = record
    take = exchange.FUNCTIONS[
        "TVMFFITensorFromDLPack" + ("Versioned" if hasattr(managed, "flags") else "")
    ].function
    out = ctypes.c_void_p()
    for name, value in change.items():
        setattr(managed.dl_tensor, name, value)
    assert take(ctypes.addressof(managed), 0, 0, ctypes.addressof(out)) == -1
    assert isinstance(abi.take_error(), LibraryError)
    gc.collect()
    assert deleted == []
    managed.dl_tensor = record
    assert take(ctypes.addressof(managed), 0, 0, ctypes.addressof(out)) == 0
    abi.release(out.value or 0)
    gc.collect()
    assert deleted == [ctypes.addressof(managed)]
    del alive


@pytest.mark.parametrize("shape", [(2, 0, 3), (0,), (2, 3), (1, 4), ()])
def test_strides_of_managed_tensors(shape: Sequence[int]) -> None:
    """Strides that are made up are those that a tensor of ours has, and are taken back as dense."""
    record, alive = described(shape)
    address = exchange.tensor_object(record, None)
    made = abi.DLTensor.from_address(address + abi.HEADER_SIZE)
    strides = list((ctypes.c_int64 * len(shape)).from_address(made.strides)) if shape else []
    assert strides == list(compact_strides(tuple(shape)))
    managed = exchange.managed_tensor(made, None, exchange.DLManagedTensor)
    take = exchange.FUNCTIONS["TVMFFITensorFromDLPack"].function
    out = ctypes.c_void_p()
    assert take(managed, 0, 1, ctypes.addressof(out)) == 0, abi.take_error()
    for object_ in (out.value or 0, address):
        abi.release(object_)
    del alive


def test_data_types_of_another_age() -> None:
    """Whoever asks may say what the data type in the description means."""
    record, alive = described((4,))
    tensor = tensor_at(ctypes.addressof(record), dtype_from=lambda dtype: DataType("int32"))
    assert tensor.dtype == "int32"
    del alive


def test_owners() -> None:
    """The object that owns the memory is given back with the last tensor over it."""
    record, alive = described((4,))
    owner = abi.new_cell(abi.TypeIndex.TENSOR, record)
    tensor = tensor_at(ctypes.addressof(record), Reference(owner))
    view = tensor._create_view((2, 2))
    del tensor
    gc.collect()
    assert abi.value_of_cell(owner) is record
    assert content(view) == [0, 1, 2, 3]
    del view
    gc.collect()
    assert abi.value_of_cell(owner) is None
    del alive
