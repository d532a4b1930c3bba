from __future__ import annotations

import ctypes
import gc
from array import array
from typing import Any, Optional, Sequence, Tuple

import pytest

from pytest_tvmrpc import runtime
from pytest_tvmrpc.dlpack import DataType
from pytest_tvmrpc.errors import LibraryError
from pytest_tvmrpc.runtime import abi
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
