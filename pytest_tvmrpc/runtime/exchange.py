"""Tensors between compiled code and others: made for it, taken over DLPack and given away.

Functions in C's form, with the streams and signals of the environment; `context` offers them.
"""

from __future__ import annotations

import ctypes
import threading
from typing import Any, Callable, Dict, Optional, Tuple

from ..data_type import DataType
from ..errors import LibraryError
from ..owners import not_copied
from .abi import (
    HEADER_SIZE,
    DLTensor,
    TypeIndex,
    error_of_kind,
    new_cell,
    record_error,
    retain,
)
from .c_form import INT, POINTER, TEXT, Functions, guarded, offer
from .device.api import Device
from .foreign import Reference, axes_of, is_dense
from .tensor import Tensor, empty

__all__ = [
    "FUNCTIONS",
    "DLManagedTensor",
    "DLManagedTensorVersioned",
    "Managed",
    "context_symbols",
    "managed_tensor",
]

_DLPACK_VERSION = (1, 1)
_DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class DLManagedTensor(ctypes.Structure):
    """A tensor that belongs to whoever holds it (dlpack.h), of DLPack before 1.0."""

    _fields_ = [
        ("dl_tensor", DLTensor),
        ("manager_ctx", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    ]


class DLManagedTensorVersioned(ctypes.Structure):
    """The same of DLPack 1.0 and later."""

    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("manager_ctx", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("dl_tensor", DLTensor),
    ]


_ALLOCATOR = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p
)
"""DLPackManagedTensorAllocator: prototype, result, context of errors, who takes an error."""
_SET_ERROR = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p)


@not_copied("pickle tensor.numpy()")
class Managed:
    """A managed tensor that is ours now; its deleter is called when this is dropped."""

    def __init__(self, address: int, deleter: Optional[int]) -> None:
        self._address = address
        self._deleter = _DELETER(deleter) if deleter else None

    def __del__(self) -> None:
        if self._deleter is not None:
            self._deleter(self._address)


def _dtype_of(record: DLTensor) -> DataType:
    return DataType.of(record.code, record.bits, record.lanes)


def tensor_object(record: DLTensor, owner: Any, tensor: Optional[Tensor] = None) -> int:
    """The address of a new tensor object over memory that somebody else has.

    Args:
        record: where the memory is; its shape and strides are copied, and made up if NULL.
        owner: what must live as long.
        tensor: the same tensor for Python.

    Raises:
        LibraryError: there can be no such tensor.
    """
    count = record.ndim
    shape, strides = axes_of(record, _dtype_of(record))
    numbers = (ctypes.c_int64 * max(2 * count, 1))(*shape, *strides)
    copy = DLTensor.from_buffer_copy(record)
    copy.shape = ctypes.addressof(numbers)
    copy.strides = ctypes.addressof(numbers) + 8 * count
    return new_cell(TypeIndex.TENSOR, tensor, bytes(copy), (numbers, owner))


# ------------------------------------------------------------------------------- made for code

_here = threading.local()  # allocator, streams
_everywhere: Dict[str, Optional[int]] = {"allocator": None}


def _allocator() -> Optional[int]:
    return getattr(_here, "allocator", None) or _everywhere["allocator"]


def _set_allocator(allocator: Optional[int], for_all: int, out: Optional[int]) -> int:
    if out:
        ctypes.c_void_p.from_address(out).value = getattr(_here, "allocator", None)
    if for_all:
        _everywhere["allocator"] = allocator
    _here.allocator = allocator
    return 0


def _note_error(context: Optional[int], kind: Optional[bytes], text: Optional[bytes]) -> None:
    record_error(
        error_of_kind(
            (kind or b"RuntimeError").decode("utf-8", "replace"),
            (text or b"").decode("utf-8", "replace"),
        )
    )


_on_error = _SET_ERROR(_note_error)


def _allocate(prototype: int, out: int) -> int:
    place = ctypes.c_void_p.from_address(out)
    allocator = _allocator()
    if allocator:
        made = ctypes.c_void_p()
        taker = ctypes.cast(_on_error, ctypes.c_void_p)
        code = int(_ALLOCATOR(allocator)(prototype, ctypes.addressof(made), None, taker))
        if code:
            return code
        if not made.value:
            raise LibraryError("the allocator of tensors gave none; expected one, or an error")
        place.value = _of_managed(made.value, DLManagedTensorVersioned)
        return 0
    record = DLTensor.from_address(prototype)
    dtype = _dtype_of(record)
    shape, _ = axes_of(record, dtype)
    tensor = empty(shape, dtype, Device(record.device_type, record.device_id))
    place.value = tensor_object(DLTensor.from_address(tensor.dltensor), None, tensor)
    return 0


# -------------------------------------------------------------------------------------- DLPack


def _of_managed(address: int, kind: Any) -> int:
    """A tensor object that owns a managed tensor; one that is refused stays the caller's."""
    managed = kind.from_address(address)
    if kind is DLManagedTensorVersioned and managed.major > _DLPACK_VERSION[0]:
        raise LibraryError(
            f"a tensor is of DLPack {managed.major}.{managed.minor}; "
            f"expected {_DLPACK_VERSION[0]}, or an earlier one"
        )
    axes_of(managed.dl_tensor, _dtype_of(managed.dl_tensor))
    return tensor_object(managed.dl_tensor, Managed(address, managed.deleter))


def _check(address: int, kind: Any, alignment: int, contiguous: int) -> None:
    record = kind.from_address(address).dl_tensor
    start = (record.data or 0) + record.byte_offset
    if alignment > 1 and start % alignment:
        raise LibraryError(f"a tensor begins at {start:#x}; expected a multiple of {alignment}")
    shape, strides = axes_of(record, _dtype_of(record))
    if contiguous and not is_dense(shape, strides):
        raise LibraryError(f"a tensor of shape {shape} has strides {strides}; expected no gaps")


def _from_dlpack(kind: Any) -> Callable[[int, int, int, int], int]:
    def take(source: int, alignment: int, contiguous: int, out: int) -> int:
        _check(source, kind, alignment, contiguous)
        ctypes.c_void_p.from_address(out).value = _of_managed(source, kind)
        return 0

    return take


_given: Dict[int, Tuple[Any, Any]] = {}  # managed tensors that others hold, by address


def _delete(address: int) -> None:
    _given.pop(address, None)


_on_delete = _DELETER(_delete)


def managed_tensor(record: DLTensor, owner: Any, kind: Any, flags: int = 0) -> int:
    """The address of a managed tensor for others, who call its deleter when they are done.

    Args:
        record: what it describes; with what it points to it is good as long as the owner.
        owner: kept until then.
        kind: `DLManagedTensor` or `DLManagedTensorVersioned`.
        flags: of the latter.
    """
    managed = kind()
    managed.dl_tensor = record
    managed.deleter = ctypes.cast(_on_delete, ctypes.c_void_p).value
    if kind is DLManagedTensorVersioned:
        managed.major, managed.minor = _DLPACK_VERSION
        managed.flags = flags
    _given[ctypes.addressof(managed)] = managed, owner
    return ctypes.addressof(managed)


def _to_dlpack(kind: Any) -> Callable[[int, int], int]:
    def give(source: int, out: int) -> int:
        record = DLTensor.from_address(source + HEADER_SIZE)
        retain(source)
        place = ctypes.c_void_p.from_address(out)
        place.value = managed_tensor(record, Reference(source), kind)
        return 0

    return give


def _view(source: int, prototype: int, out: int) -> int:
    retain(source)
    owner = Reference(source)
    place = ctypes.c_void_p.from_address(out)
    place.value = tensor_object(DLTensor.from_address(prototype), owner)
    return 0


# ----------------------------------------------------------------------- streams and the process


def _streams() -> Dict[Tuple[int, int], int]:
    try:
        return _here.streams  # type: ignore[no-any-return]
    except AttributeError:
        _here.streams = {}
        return _here.streams  # type: ignore[no-any-return]


def _set_stream(kind: int, number: int, stream: Optional[int], out: Optional[int]) -> int:
    if out:
        ctypes.c_void_p.from_address(out).value = _streams().get((kind, number))
    _streams()[kind, number] = stream or 0
    return 0


def _get_stream(kind: int, number: int) -> int:
    return _streams().get((kind, number), 0)


def _check_signals() -> int:
    ctypes.pythonapi.PyErr_CheckSignals()  # raises what a handler of a signal raises
    return 0


context_symbols: Dict[str, int] = {}
"""What libraries that are loaded later find in variables of these names."""


def _register_symbol(name: Optional[bytes], symbol: Optional[int]) -> int:
    context_symbols[(name or b"").decode("utf-8", "replace")] = symbol or 0
    return 0


def _register_c_api(name: Optional[bytes], symbol: Optional[int]) -> int:
    return 0  # functions of an interpreter, which this runtime has itself


FUNCTIONS: Functions = {
    "TVMFFITensorFromDLPack": offer(
        INT, guarded(_from_dlpack(DLManagedTensor)), POINTER, INT, INT, POINTER
    ),
    "TVMFFITensorFromDLPackVersioned": offer(
        INT, guarded(_from_dlpack(DLManagedTensorVersioned)), POINTER, INT, INT, POINTER
    ),
    "TVMFFITensorToDLPack": offer(INT, guarded(_to_dlpack(DLManagedTensor)), POINTER, POINTER),
    "TVMFFITensorToDLPackVersioned": offer(
        INT, guarded(_to_dlpack(DLManagedTensorVersioned)), POINTER, POINTER
    ),
    "TVMFFITensorCreateUnsafeView": offer(INT, guarded(_view), POINTER, POINTER, POINTER),
    "TVMFFIEnvTensorAlloc": offer(INT, guarded(_allocate), POINTER, POINTER),
    "TVMFFIEnvSetDLPackManagedTensorAllocator": offer(
        INT, guarded(_set_allocator), POINTER, INT, POINTER
    ),
    "TVMFFIEnvGetDLPackManagedTensorAllocator": offer(POINTER, _allocator),
    "TVMFFIEnvSetStream": offer(INT, guarded(_set_stream), INT, INT, POINTER, POINTER),
    "TVMFFIEnvGetStream": offer(POINTER, _get_stream, INT, INT),
    "TVMFFIEnvCheckSignals": offer(INT, guarded(_check_signals)),
    "TVMFFIEnvRegisterCAPI": offer(INT, guarded(_register_c_api), TEXT, POINTER),
    "TVMFFIEnvModRegisterContextSymbol": offer(INT, guarded(_register_symbol), TEXT, POINTER),
}
"""By their names in TVM (tvm/ffi/c_api.h and extra/c_env_api.h)."""
