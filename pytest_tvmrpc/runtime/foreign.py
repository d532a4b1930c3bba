"""Memory and objects that belong to compiled code, held from Python. Calls nothing."""

from __future__ import annotations

import ctypes
from typing import Any, Callable, Optional

from ..dlpack import DataType, tensor_nbytes
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
        LibraryError: its elements do not lie in C order without gaps.
    """
    record = DLTensor.from_address(address)
    count = max(record.ndim, 0)
    shape = tuple((ctypes.c_int64 * count).from_address(record.shape)) if count else ()
    if record.strides and count:
        expected = 1
        strides = (ctypes.c_int64 * count).from_address(record.strides)
        for length, stride in zip(reversed(shape), reversed(strides)):
            if length != 1 and stride != expected:
                raise LibraryError(
                    f"a tensor of shape {shape} has strides {tuple(strides)}; "
                    "expected elements in C order without gaps; copy it first"
                )
            expected *= length
    dtype = DataType.of(record.code, record.bits, record.lanes)
    if dtype_from is not None:
        dtype = dtype_from(dtype)
    nbytes = record.byte_offset + tensor_nbytes(shape, dtype)
    memory = _ForeignMemory(record.data or 0, nbytes, owner)
    device = Device(record.device_type, record.device_id)
    return Tensor(memory, shape, dtype, device, record.byte_offset)
