"""Memory and objects that belong to compiled code, held from Python. Calls nothing."""

from __future__ import annotations

import ctypes
from typing import Any, Callable, Optional, Tuple

from ..dlpack import MAX_NDIM, DataType, checked_shape, compact_strides, tensor_nbytes
from ..errors import LibraryError
from ..owners import not_copied
from .abi import DLTensor, release
from .device.api import Device
from .tensor import Tensor


@not_copied("make the object there")
class Reference:
    """A strong reference to a foreign object, given back when this is dropped."""

    __slots__ = ("address",)

    def __init__(self, address: int) -> None:
        self.address = address

    def __del__(self) -> None:
        release(self.address)


@not_copied("pickle tensor.numpy()")
class _ForeignMemory:
    """Memory of a tensor that compiled code owns; valid while its owner is."""

    __slots__ = ("_owner", "data", "nbytes")

    def __init__(self, address: int, nbytes: int, owner: Any) -> None:
        self.data = address
        self.nbytes = nbytes
        self._owner = owner


def axes_of(record: DLTensor, dtype: DataType) -> Tuple[Tuple[int, ...], Tuple[int, ...]]:
    """The lengths and strides that a DLTensor describes; strides in C order where it has none.

    Args:
        dtype: of the elements, which limits how many there can be.

    Raises:
        LibraryError: there can be no such tensor.
    """
    count = record.ndim
    if not 0 <= count <= MAX_NDIM:
        raise LibraryError(
            f"compiled code describes a tensor of {count} axes; expected 0 to {MAX_NDIM}"
        )
    if count and not record.shape:
        raise LibraryError(
            f"compiled code describes a tensor of {count} axes with their lengths at NULL; "
            "expected the address of its shape"
        )
    try:
        shape = checked_shape(_numbers(record.shape, count), dtype)
    except ValueError as error:
        raise LibraryError(f"compiled code describes a tensor that cannot be: {error}") from None
    return shape, _numbers(record.strides, count) or compact_strides(shape)


def is_dense(shape: Tuple[int, ...], strides: Tuple[int, ...]) -> bool:
    """Whether elements lie in C order without gaps; those of an empty tensor always do."""
    return 0 in shape or all(
        length == 1 or stride == wanted
        for length, stride, wanted in zip(shape, strides, compact_strides(shape))
    )


def _numbers(address: Optional[int], count: int) -> Tuple[int, ...]:
    return tuple((ctypes.c_int64 * count).from_address(address)) if address and count else ()


def tensor_at(
    address: int,
    owner: Any = None,
    *,
    dtype_from: Optional[Callable[[DataType], DataType]] = None,
) -> Tensor:
    """A tensor over memory that a DLTensor describes; without an owner valid for a call only.

    Args:
        dtype_from: what makes the data type of the one that is written there.

    Raises:
        LibraryError: there can be no such tensor, it has no memory, or its elements do not lie
            in C order without gaps.
    """
    record = DLTensor.from_address(address)
    dtype = DataType.of(record.code, record.bits, record.lanes)
    if dtype_from is not None:
        dtype = dtype_from(dtype)
    shape, strides = axes_of(record, dtype)
    if not is_dense(shape, strides):
        raise LibraryError(
            f"a tensor of shape {shape} has strides {strides}; "
            "expected elements in C order without gaps; copy it first"
        )
    if not record.data and tensor_nbytes(shape, dtype):
        raise LibraryError(
            f"compiled code describes a tensor of shape {shape} and type {dtype} at NULL; "
            "expected the address of its elements"
        )
    nbytes = record.byte_offset + tensor_nbytes(shape, dtype)
    memory = _ForeignMemory(record.data or 0, nbytes, owner)
    device = Device(record.device_type, record.device_id)
    return Tensor(memory, shape, dtype, device, record.byte_offset)
