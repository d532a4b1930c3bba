"""Memory and objects that belong to compiled code, held from Python. Calls nothing."""

from __future__ import annotations

import ctypes
import functools
import struct
from typing import Any, Callable, Optional, Tuple

from ..data_type import DataType
from ..dlpack import MAX_NDIM, checked_shape, compact_strides, tensor_nbytes
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


_RECORD = struct.Struct("@PiiiBBHPPQ")
"""A DLTensor, whole: its fields one by one would cost more than the rest of a look at it."""
_Record = ctypes.c_char * _RECORD.size
_NUMBERS = [ctypes.c_int64 * count for count in range(MAX_NDIM + 1)]


def axes_of(record: DLTensor, dtype: DataType) -> Tuple[Tuple[int, ...], Tuple[int, ...]]:
    """The lengths and strides that a DLTensor describes; strides in C order where it has none.

    Args:
        dtype: of the elements, which limits how many there can be.

    Raises:
        LibraryError: there can be no such tensor.
    """
    shape = _lengths(record.shape, record.ndim)
    nbytes, strides = _layout(dtype, shape)
    if (record.data or 0) + record.byte_offset + nbytes > _END:
        raise _beyond(nbytes, record.byte_offset)
    return shape, _numbers(record.strides, len(shape)) if record.strides else strides


_END = 1 << 8 * ctypes.sizeof(ctypes.c_void_p)
"""The number of bytes that addresses can tell from each other."""


def _beyond(nbytes: int, byte_offset: int) -> LibraryError:
    return LibraryError(
        f"compiled code describes a tensor of {nbytes} bytes at an offset of {byte_offset}, which "
        "is beyond any memory; expected elements within one"
    )


def _lengths(address: Optional[int], count: int) -> Tuple[int, ...]:
    """The lengths at an address.

    Raises:
        LibraryError: they are too many, or nowhere.
    """
    if not 0 <= count <= MAX_NDIM:
        raise LibraryError(
            f"compiled code describes a tensor of {count} axes; expected 0 to {MAX_NDIM}"
        )
    if count and not address:
        raise LibraryError(
            f"compiled code describes a tensor of {count} axes with their lengths at NULL; "
            "expected the address of its shape"
        )
    return _numbers(address, count)


@functools.lru_cache(maxsize=256)
def _layout(dtype: DataType, shape: Tuple[int, ...]) -> Tuple[int, Tuple[int, ...]]:
    """The bytes of a tensor and its strides in C order; most have the form of one before.

    Raises:
        LibraryError: there can be no such tensor.
    """
    try:
        checked_shape(shape, dtype)
    except ValueError as error:
        raise LibraryError(f"compiled code describes a tensor that cannot be: {error}") from None
    return tensor_nbytes(shape, dtype), compact_strides(shape)


def is_dense(shape: Tuple[int, ...], strides: Tuple[int, ...]) -> bool:
    """Whether elements lie in C order without gaps; those of an empty tensor always do."""
    return 0 in shape or all(
        length == 1 or stride == wanted
        for length, stride, wanted in zip(shape, strides, compact_strides(shape))
    )


def _numbers(address: Optional[int], count: int) -> Tuple[int, ...]:
    return tuple(_NUMBERS[count].from_address(address)[:]) if address and count else ()


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
    data, kind, number, count, code, bits, lanes, lengths, steps, byte_offset = _RECORD.unpack_from(
        _Record.from_address(address)
    )
    dtype = DataType.of(code, bits, lanes)
    if dtype_from is not None:
        dtype = dtype_from(dtype)
    shape = _lengths(lengths, count)
    nbytes, compact = _layout(dtype, shape)
    strides = _numbers(steps, count) if steps else compact
    if strides != compact and not is_dense(shape, strides):
        raise LibraryError(
            f"a tensor of shape {shape} has strides {strides}; "
            "expected elements in C order without gaps; copy it first"
        )
    if nbytes and not data:
        raise LibraryError(
            f"compiled code describes a tensor of shape {shape} and type {dtype} at NULL; "
            "expected the address of its elements"
        )
    if data + byte_offset + nbytes > _END:
        raise _beyond(nbytes, byte_offset)
    memory = _ForeignMemory(data, byte_offset + nbytes, owner)
    return Tensor(memory, shape, dtype, Device._make((kind, number)), byte_offset)
