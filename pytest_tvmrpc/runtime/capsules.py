"""DLPack between Python's libraries: tensors as capsules, in both directions, without a copy.

`exchange` does the same between compiled code and others.
"""

from __future__ import annotations

import ctypes
from typing import Any, Optional, Tuple

from ..data_type import DataType
from ..dlpack import tensor_nbytes
from ..errors import LibraryError
from .abi import DLTensor
from .device.cpu import API, borrowed
from .exchange import DLManagedTensor, DLManagedTensorVersioned, Managed, managed_tensor
from .foreign import axes_of, is_dense, tensor_at
from .tensor import Tensor

__all__ = ["given", "taken"]

_READ_ONLY = 1  # DLPACK_FLAG_BITMASK_READ_ONLY
_NAMES = {True: b"dltensor_versioned", False: b"dltensor"}  # a capsule keeps the address only
_USED = {True: b"used_dltensor_versioned", False: b"used_dltensor"}

_capsules = ctypes.pythonapi
_address = ctypes.c_void_p
_capsules.PyCapsule_New.argtypes = [_address, ctypes.c_char_p, _address]
_capsules.PyCapsule_New.restype = ctypes.py_object
_capsules.PyCapsule_IsValid.argtypes = [_address, ctypes.c_char_p]
_capsules.PyCapsule_GetPointer.argtypes = [_address, ctypes.c_char_p]
_capsules.PyCapsule_GetPointer.restype = _address
_capsules.PyCapsule_SetName.argtypes = [_address, ctypes.c_char_p]


def _drop(capsule: int) -> None:
    """What a capsule does at its end, if nobody took what is in it."""
    for is_versioned, name in _NAMES.items():
        if _capsules.PyCapsule_IsValid(capsule, name):
            address = _capsules.PyCapsule_GetPointer(capsule, name)
            kind = DLManagedTensorVersioned if is_versioned else DLManagedTensor
            Managed(address, kind.from_address(address).deleter)  # which it calls when dropped


_on_drop = ctypes.PYFUNCTYPE(None, _address)(_drop)
_drop_address = ctypes.cast(_on_drop, _address).value


def given(
    tensor: Tensor,
    max_version: Optional[Tuple[int, int]],
    dl_device: Optional[Tuple[int, int]],
    copy: Optional[bool],
) -> Any:
    """The capsule of a tensor, as ``__dlpack__`` returns it.

    Args:
        max_version: the newest DLPack that the caller knows; None: one before 1.0.
        dl_device: where the caller wants it; None: where it is.
        copy: whether it has to be a copy; None: where there is no other way.

    Raises:
        BufferError: it cannot be had in this way.
        DeviceError: the memory is not in this process.
        TypeError: an element is less than a byte.
    """
    place = tensor.device
    if dl_device is not None and tuple(dl_device) != tuple(place):
        if tuple(dl_device) != (1, 0) or copy is False:
            raise BufferError(f"a tensor on {place!r} cannot be had on device {dl_device}")
        from .device.names import cpu

        place, copy = cpu(0), True
    if copy:
        tensor = tensor.copyto(place)
    dtype = tensor.data_type
    if (dtype.code, dtype.bits) == (1, 1):  # the bool of old, in a byte
        dtype = DataType.of(6, 8, dtype.lanes)
    if dtype.bits % 8:
        raise TypeError(f"{dtype} cannot be shared; use numpy(), which copies")
    shape = tensor.shape if dtype.lanes == 1 else (*tensor.shape, dtype.lanes)
    shown = Tensor(tensor.memory, shape, dtype.with_lanes(1), tensor.device, tensor.byte_offset)
    described = shown.device.api.describe(shown)
    record = DLTensor.from_address(described[1])
    view = tensor.host_view()
    if view is None:
        tensor.device.sync()  # whoever takes it does not know of the device's streams
    is_read_only = view is not None and view.readonly
    is_versioned = max_version is not None and tuple(max_version) >= (1, 0)
    if is_read_only and not is_versioned:
        raise BufferError(
            "the memory is read-only, which only DLPack from 1.0 on can say; "
            "take a copy, or ask with max_version=(1, 0)"
        )
    kind = DLManagedTensorVersioned if is_versioned else DLManagedTensor
    address = managed_tensor(record, (shown, described), kind, _READ_ONLY if is_read_only else 0)
    return _capsules.PyCapsule_New(address, _NAMES[is_versioned], _drop_address)


def taken(source: Any) -> Tensor:
    """A tensor over the memory of another library's tensor.

    Args:
        source: has ``__dlpack__``, or is a capsule that nobody took yet.

    Raises:
        TypeError: neither, an element is less than a byte, or its library cannot share it.
        ValueError: the elements do not lie in C order without gaps, or there is no such tensor.
    """
    capsule = source if type(source).__name__ == "PyCapsule" else _asked(source)
    place = id(capsule)
    is_versioned = bool(_capsules.PyCapsule_IsValid(place, _NAMES[True]))
    if not is_versioned and not _capsules.PyCapsule_IsValid(place, _NAMES[False]):
        raise TypeError("the capsule is no DLPack tensor, or somebody took it already")
    kind = DLManagedTensorVersioned if is_versioned else DLManagedTensor
    address = _capsules.PyCapsule_GetPointer(place, _NAMES[is_versioned])
    managed = kind.from_address(address)
    if is_versioned and managed.major != 1:
        raise TypeError(f"a tensor is of DLPack {managed.major}.{managed.minor}; expected 1.x")
    dtype = DataType.of(managed.dl_tensor.code, managed.dl_tensor.bits, managed.dl_tensor.lanes)
    if dtype.bits % 8:
        raise TypeError(f"{dtype} cannot be shared, since libraries pack it in different ways")
    try:
        if not is_dense(*axes_of(managed.dl_tensor, dtype)):
            raise ValueError("the tensor is not contiguous; use tensor(), which copies")
        tensor = tensor_at(address + kind.dl_tensor.offset)
    except LibraryError as error:
        raise ValueError(f"the capsule's tensor cannot be taken: {error}") from None
    _capsules.PyCapsule_SetName(place, _USED[is_versioned])
    owner = Managed(address, managed.deleter)
    start, nbytes = tensor.memory.data + tensor.byte_offset, tensor_nbytes(tensor.shape, dtype)
    if tensor.device.device_type != 1 or tensor.device.api is not API:
        return tensor_at(address + kind.dl_tensor.offset, owner)
    is_read_only = bool(is_versioned and managed.flags & _READ_ONLY)
    memory = borrowed(start, nbytes, owner, is_read_only=is_read_only)
    return Tensor(memory, tensor.shape, dtype, tensor.device)


def _asked(source: Any) -> Any:
    if not hasattr(source, "__dlpack__"):
        raise TypeError(
            f"a {type(source).__name__} has no __dlpack__; make a tensor of it with tensor()"
        )
    try:
        try:
            return source.__dlpack__(max_version=(1, 1))
        except TypeError:  # a library from before DLPack 1.0
            return source.__dlpack__()
    except BufferError as error:
        raise TypeError(
            f"a {type(source).__name__} of dtype {getattr(source, 'dtype', None)} cannot be shared "
            f"({error}); expected numbers or truth values in this machine's byte order, in memory "
            "that can be shared; tensor() copies other numbers, and a list can hold texts"
        ) from error
