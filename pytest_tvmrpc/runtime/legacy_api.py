"""The C API of TVM up to 0.20, as compiled code finds it here: functions, arrays, errors.

Functions in C's form; `context` offers them. `docs/c-api.md` lists them, and those that are not.
"""

from __future__ import annotations

import ctypes
import itertools
import threading
from typing import Any, Dict, List, Optional

from ..data_type import DataType, from_legacy
from ..dlpack import MAX_NDIM
from ..errors import LibraryError
from ..owners import not_copied
from . import legacy, legacy_calling, registry, system_library
from .abi import release, take_error, value_of_cell
from .c_form import INT, POINTER, TEXT, U64, VOID, Functions, guarded, offer
from .device.api import Device
from .foreign import tensor_at
from .function import PackedFunc
from .tensor import Tensor, empty

__all__ = ["FUNCTIONS"]

_PACKED = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_void_p,
)
"""TVMPackedCFunc: values, their codes, their number, where the result goes, a resource."""
_FINALIZER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def _text(name: Optional[bytes]) -> str:
    return (name or b"").decode("utf-8", "replace")


# ----------------------------------------------------------------------------------- functions


@not_copied("load the library there")
class CallbackFunction(PackedFunc):
    """A C function that gives its result by TVMCFuncSetReturn (TVMFuncCreateFromCFunc)."""

    __slots__ = ("_finalizer", "_resource")

    def __init__(self, address: int, resource: Optional[int], finalizer: Optional[int]) -> None:
        super().__init__(_PACKED(address), f"{address:#x}")
        self._resource = resource
        self._finalizer = _FINALIZER(finalizer) if finalizer else None

    def __call__(self, *args: Any) -> Any:
        packed = legacy.pack_arguments(self.name, args)
        place = next(_places)
        try:
            take_error()  # of a function that recorded one, and then succeeded all the same
            code = self.function(packed.values, packed.codes, len(args), place, self._resource)
            if code:
                raise take_error() or LibraryError(
                    f"the C function at {self.name} returned {code} without saying why; "
                    "expected 0, or an error recorded with TVMAPISetLastError"
                )
            return _results.get(place)
        finally:
            _results.pop(place, None)
            for cell in packed.cells:
                release(cell)

    def __del__(self) -> None:
        if self._finalizer is not None:
            self._finalizer(self._resource)


_places = itertools.count(1)  # what C takes for the address of a result
_results: Dict[int, Any] = {}


def _create(function: int, resource: Optional[int], finalizer: Optional[int], out: int) -> int:
    made = CallbackFunction(function, resource, finalizer)
    ctypes.c_void_p.from_address(out).value = legacy.give_function(made)
    return 0


def _set_return(place: int, values: int, codes: int, count: int) -> int:
    if count != 1:
        raise ValueError(f"compiled code returns {count} values; expected one")
    (_results[place],) = legacy.values_at(values, codes, 1)
    return 0


def _register_global(name: Optional[bytes], handle: Optional[int], override: int) -> int:
    function = value_of_cell(handle)
    if not callable(function):
        raise ValueError(
            f"compiled code registers {handle or 0:#x} as {_text(name)!r}, which is no function "
            "of this runtime; expected one that it made or looked up"
        )
    packed = function if isinstance(function, PackedFunc) else PackedFunc(function)
    try:
        registry.register_loaded(_text(name), packed, bool(override))
    except ValueError as error:
        if not system_library.postpone(str(error)):
            raise
    return 0


def _get_global(name: Optional[bytes], out: int) -> int:
    function = registry.get_global_func(_text(name), allow_missing=True)
    place = ctypes.c_void_p.from_address(out)  # NULL, if there is none, is no error
    place.value = legacy.give_function(function) if function is not None else None
    return 0


def _remove_global(name: Optional[bytes]) -> int:
    registry.remove_global_func(_text(name))
    return 0


_here = threading.local()  # names that were listed last, for the thread that asked


def _list_names(size: int, out: int) -> int:
    names = [name.encode() for name in registry.list_global_func_names()]
    _here.names = (ctypes.c_char_p * max(len(names), 1))(*names)
    ctypes.c_int.from_address(size).value = len(names)
    ctypes.c_void_p.from_address(out).value = ctypes.addressof(_here.names)
    return 0


def _free(handle: Optional[int]) -> int:
    legacy_calling.free(handle)
    return 0


# -------------------------------------------------------------------------------------- arrays

_arrays: Dict[int, Tensor] = {}  # that compiled code has, by the address of their description


def _array_alloc(
    shape: int,
    ndim: int,
    code: int,
    bits: int,
    lanes: int,
    device_type: int,
    device_id: int,
    out: int,
) -> int:
    if not 0 <= ndim <= MAX_NDIM:
        raise LibraryError(f"an array has {ndim} axes; expected 0 to {MAX_NDIM}")
    lengths: List[int] = list((ctypes.c_int64 * ndim).from_address(shape)) if ndim else []
    dtype = from_legacy(DataType.of(code, bits, lanes))
    tensor = empty(tuple(lengths), dtype, Device(device_type, device_id))
    address = tensor.dltensor
    _arrays[address] = tensor
    ctypes.c_void_p.from_address(out).value = address
    return 0


def _array_free(handle: Optional[int]) -> int:
    if handle and _arrays.pop(handle, None) is None:
        raise ValueError(f"compiled code frees an array at {handle:#x} that it does not have")
    return 0


def _array(handle: Optional[int]) -> Tensor:
    if not handle:
        raise ValueError("compiled code copies an array at NULL; expected a DLTensor")
    return _arrays.get(handle) or tensor_at(handle, dtype_from=from_legacy)


def _check_size(tensor: Tensor, nbytes: int) -> None:
    if nbytes != tensor.nbytes:
        raise ValueError(f"compiled code copies {nbytes} bytes of an array of {tensor.nbytes}")


def _array_from_bytes(handle: Optional[int], data: int, nbytes: int) -> int:
    tensor = _array(handle)
    _check_size(tensor, nbytes)
    if nbytes:
        source = memoryview((ctypes.c_ubyte * nbytes).from_address(data)).cast("B")
        tensor.device.api.copy_from_host(source, tensor)
    return 0


def _array_to_bytes(handle: Optional[int], data: int, nbytes: int) -> int:
    tensor = _array(handle)
    _check_size(tensor, nbytes)
    if nbytes:
        target = memoryview((ctypes.c_ubyte * nbytes).from_address(data)).cast("B")
        tensor.device.api.copy_to_host(tensor, target)
    return 0


def _array_copy(source: Optional[int], target: Optional[int], stream: Optional[int]) -> int:
    _array(source).copyto(_array(target))
    return 0


def _synchronize(device_type: int, device_id: int, stream: Optional[int]) -> int:
    device = Device(device_type, device_id)
    device.api.sync(device, stream or 0)
    return 0


FUNCTIONS: Functions = {
    "TVMFuncCall": offer(
        INT,
        guarded(legacy_calling.call_handle),
        *(POINTER, POINTER, POINTER, INT, POINTER, POINTER),
    ),
    "TVMFuncCreateFromCFunc": offer(INT, guarded(_create), POINTER, POINTER, POINTER, POINTER),
    "TVMCFuncSetReturn": offer(INT, guarded(_set_return), POINTER, POINTER, POINTER, INT),
    "TVMFuncRegisterGlobal": offer(INT, guarded(_register_global), TEXT, POINTER, INT),
    "TVMFuncGetGlobal": offer(INT, guarded(_get_global), TEXT, POINTER),
    "TVMFuncRemoveGlobal": offer(INT, guarded(_remove_global), TEXT),
    "TVMFuncListGlobalNames": offer(INT, guarded(_list_names), POINTER, POINTER),
    "TVMFuncFree": offer(INT, guarded(_free), POINTER),
    "TVMModFree": offer(INT, guarded(_free), POINTER),
    "TVMAPISetLastError": offer(VOID, legacy_calling.set_last_error, TEXT),
    "TVMGetLastError": offer(POINTER, legacy_calling.last_error),
    "TVMArrayAlloc": offer(
        INT, guarded(_array_alloc), POINTER, INT, INT, INT, INT, INT, INT, POINTER
    ),
    "TVMArrayFree": offer(INT, guarded(_array_free), POINTER),
    "TVMArrayCopyFromBytes": offer(INT, guarded(_array_from_bytes), POINTER, POINTER, U64),
    "TVMArrayCopyToBytes": offer(INT, guarded(_array_to_bytes), POINTER, POINTER, U64),
    "TVMArrayCopyFromTo": offer(INT, guarded(_array_copy), POINTER, POINTER, POINTER),
    "TVMSynchronize": offer(INT, guarded(_synchronize), INT, INT, POINTER),
}
"""By their names in TVM (c_runtime_api.h of tvm/runtime, up to 0.20)."""
