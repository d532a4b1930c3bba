"""The C API of libtvm_ffi, as compiled code finds it here: objects, functions, errors, types.

Functions in C's form; `context` offers them. `docs/c-api.md` lists them, and those that are not.
"""

from __future__ import annotations

import ctypes
from _thread import get_ident
from typing import Any, Callable, Dict, Optional

from ..data_type import DataType
from ..errors import LibraryError
from ..owners import not_copied
from . import failures, registry, system_library, type_table
from .abi import (
    SAFE_CALL,
    TVMFFIByteArray,
    TVMFFIFunctionCell,
    TypeIndex,
    error_of_kind,
    new_cell,
    record_error,
    release,
    retain,
)
from .c_form import INT, POINTER, TEXT, VOID, Functions, guarded, offer
from .calling import call_function, pack_arguments
from .function import PackedFunc
from .owned import own_any, read_any, text_word, write_any
from .type_layouts import TVMFFIMethodInfo
from .type_table import text_of
from .values import values_at
from .words import signed

__all__ = ["FUNCTIONS", "VERSION", "function_object"]

VERSION = (0, 1, 14)
"""Of tvm-ffi, whose C API this is."""

_DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def text_at(address: Optional[int]) -> str:
    """The text of a TVMFFIByteArray."""
    return text_of(TVMFFIByteArray.from_address(address)) if address else ""


def _set(out: int, address: Optional[int]) -> int:
    ctypes.c_void_p.from_address(out).value = address
    return 0


# ----------------------------------------------------------------------------------- functions


def function_object(function: Any) -> int:
    """The address of a function's object, with a reference that the caller owns."""
    packed = pack_arguments("the look-up of a function", (function,))
    address = int.from_bytes(packed.block[8:16], "little")
    if not packed.cells:  # an object of someone else, lent to us
        retain(address)
    return address


def _call(handle: Optional[int], args: Optional[int], count: int, result: int) -> int:
    if not handle:
        raise ValueError("compiled code called a function that is NULL")
    return call_function(handle, args, count, result)


@not_copied("load the library there")
class _Resource:
    """What a C function is called with, and the C function that ends it."""

    def __init__(self, address: Optional[int], deleter: Optional[int], kept: Any) -> None:
        self.address = address
        self._deleter = _DELETER(deleter) if deleter else None
        self._kept = kept

    def __del__(self) -> None:
        if self._deleter is not None:
            self._deleter(self.address)


def _create_function(resource: Optional[int], call: int, deleter: Optional[int], out: int) -> int:
    inner = SAFE_CALL(call)
    outer = SAFE_CALL(lambda handle, args, count, result: inner(resource, args, count, result))
    cell = TVMFFIFunctionCell(ctypes.cast(outer, ctypes.c_void_p), None)
    value = _Resource(resource, deleter, outer)
    return _set(out, new_cell(TypeIndex.FUNCTION, None, bytes(cell), value))


def _python_function(address: int) -> PackedFunc:
    """A function object that compiled code owns, as one to be called from here."""
    word = ctypes.create_string_buffer(16)
    write_any(ctypes.addressof(word), (TypeIndex.FUNCTION, 0, signed(address)))
    (function,) = values_at(ctypes.addressof(word), 1)
    if not isinstance(function, PackedFunc):
        raise LibraryError(f"compiled code gave a {type(function).__name__}; expected a function")
    return function


def _list_names() -> Callable[[int], Any]:
    names = registry.list_global_func_names()
    return lambda index: len(names) if index < 0 else names[index]


_OF_THE_RUNTIME: Dict[str, Callable[..., Any]] = {
    "ffi.FunctionListGlobalNamesFunctor": lambda: PackedFunc(_list_names()),
    "ffi.FunctionRemoveGlobal": lambda name: _remove(name),
}
"""What the headers of C++ look up instead of calling it in C."""


def _remove(name: str) -> bool:
    if registry.get_global_func(name, allow_missing=True) is None:
        return False
    registry.remove_global_func(name)
    return True


def _get_global(name: Optional[int], out: int) -> int:
    text = text_at(name)
    function: Any = registry.get_global_func(text, allow_missing=True)
    function = function or _OF_THE_RUNTIME.get(text)
    return _set(out, function_object(function) if function is not None else None)


def _set_global(name: Optional[int], function: int, override: int) -> int:
    return _register_function(text_at(name), _python_function(function), bool(override))


def _set_global_from_method(method: int, override: int) -> int:
    info = TVMFFIMethodInfo.from_address(method)
    (function,) = values_at(method + TVMFFIMethodInfo.method.offset, 1)
    if not isinstance(function, PackedFunc):
        raise LibraryError(f"global function {text_of(info.name)!r} is no function")
    return _register_function(text_of(info.name), function, bool(override))


def _register_function(name: str, function: PackedFunc, override: bool) -> int:
    try:
        registry.register_loaded(name, function, override)
    except ValueError as error:
        if not system_library.postpone(str(error)):
            raise
    return 0


# ------------------------------------------------------------------------------ objects, values


def _change_count(change: Callable[[int], None], handle: Optional[int]) -> int:
    if handle:
        change(handle)
    return 0


def _create_opaque(resource: Optional[int], index: int, deleter: Optional[int], out: int) -> int:
    payload = bytes(ctypes.c_void_p(resource))
    return _set(out, new_cell(index, None, payload, _Resource(resource, deleter, None)))


def _own(view: int, out: int) -> int:
    write_any(out, own_any(read_any(view)))
    return 0


def _text_object(kind: int, small_kind: int, text: Optional[int], out: int) -> int:
    array = TVMFFIByteArray.from_address(text or 0) if text else TVMFFIByteArray()
    content = ctypes.string_at(array.data, array.size) if array.data and array.size else b""
    write_any(out, text_word(kind, small_kind, content))
    return 0


def _dtype_of_text(text: Optional[int], out: int) -> int:
    dtype = DataType(text_at(text))
    number = dtype.code | dtype.bits << 8 | dtype.lanes << 16
    ctypes.c_uint32.from_address(out).value = number
    return 0


def _text_of_dtype(dtype: int, out: int) -> int:
    number = ctypes.c_uint32.from_address(dtype).value
    text = str(DataType.of(number & 0xFF, number >> 8 & 0xFF, number >> 16))
    text = "" if text == "void" else text
    write_any(out, text_word(TypeIndex.STR, TypeIndex.SMALL_STR, text.encode()))
    return 0


def _version(out: int) -> None:
    (ctypes.c_uint32 * 3).from_address(out)[:] = list(VERSION)


# -------------------------------------------------------------------------------------- errors


def _set_raised(kind: Optional[bytes], message: Optional[bytes]) -> None:
    record_error(
        error_of_kind(
            (kind or b"RuntimeError").decode("utf-8", "replace"),
            (message or b"").decode("utf-8", "replace"),
        )
    )


def _set_raised_parts(kind: Optional[bytes], parts: Optional[int], count: int) -> None:
    texts = (TEXT * max(count, 0)).from_address(parts) if parts and count > 0 else ()
    _set_raised(kind, b"".join(part or b"" for part in texts))


def _create_error(
    kind: Optional[int], message: Optional[int], backtrace: Optional[int], out: int
) -> int:
    return failures.create(kind, message, backtrace, None, None, out)


def _where(file: Optional[bytes], line: int, function: Optional[bytes], crossing: int) -> int:
    return failures.where(get_ident(), file, line, function)


# --------------------------------------------------------------------------------------- types


_NO_TYPE = -1


def _type_index(
    key: Optional[int], static: int, depth: int, slots: int, can_overflow: int, parent: int
) -> int:
    """The index of a type; -1, which no object can have, when there is none for it.

    C++ keeps what it gets without a look, mostly while its library is loaded, which fails then.
    """
    try:
        return type_table.allocate(text_at(key), static, slots, bool(can_overflow), parent)
    except Exception as error:  # nothing may pass into C, and it has no code for an error
        if not system_library.postpone(str(error)):
            record_error(error)
        return _NO_TYPE


def _index_of_key(key: Optional[int], out: int) -> int:
    found = type_table.find_key(text_at(key))
    if found is None:
        raise ValueError(f"no type is called {text_at(key)!r}; expected one that was registered")
    ctypes.c_int32.from_address(out).value = found.index
    return 0


def _register(register: Callable[[int, int], None], index: int, info: int) -> int:
    register(index, info)
    return 0


def _register_attribute(index: int, name: Optional[int], value: int) -> int:
    type_table.register_attribute(index, text_at(name), value)
    return 0


def _registering(register: Callable[[int, int], None]) -> Any:
    return offer(INT, guarded(lambda index, info: _register(register, index, info)), INT, POINTER)


def _text_making(kind: int, small_kind: int) -> Any:
    def make(text: Optional[int], out: int) -> int:
        return _text_object(kind, small_kind, text, out)

    return offer(INT, guarded(make), POINTER, POINTER)


FUNCTIONS: Functions = {
    "TVMFFIGetVersion": offer(VOID, _version, POINTER),
    "TVMFFIObjectIncRef": offer(
        INT, guarded(lambda handle: _change_count(retain, handle)), POINTER
    ),
    "TVMFFIObjectDecRef": offer(
        INT, guarded(lambda handle: _change_count(release, handle)), POINTER
    ),
    "TVMFFIObjectCreateOpaque": offer(INT, guarded(_create_opaque), POINTER, INT, POINTER, POINTER),
    "TVMFFIAnyViewToOwnedAny": offer(INT, guarded(_own), POINTER, POINTER),
    "TVMFFIFunctionCreate": offer(
        INT, guarded(_create_function), POINTER, POINTER, POINTER, POINTER
    ),
    "TVMFFIFunctionCall": offer(INT, guarded(_call), POINTER, POINTER, INT, POINTER),
    "TVMFFIFunctionGetGlobal": offer(INT, guarded(_get_global), POINTER, POINTER),
    "TVMFFIFunctionSetGlobal": offer(INT, guarded(_set_global), POINTER, POINTER, INT),
    "TVMFFIFunctionSetGlobalFromMethodInfo": offer(
        INT, guarded(_set_global_from_method), POINTER, INT
    ),
    "TVMFFIErrorSetRaised": offer(VOID, failures.set_raised, POINTER),
    "TVMFFIErrorSetRaisedFromCStr": offer(VOID, _set_raised, TEXT, TEXT),
    "TVMFFIErrorSetRaisedFromCStrParts": offer(VOID, _set_raised_parts, TEXT, POINTER, INT),
    "TVMFFIErrorMoveFromRaised": offer(VOID, failures.take_raised, POINTER),
    "TVMFFIErrorCreate": offer(INT, guarded(_create_error), POINTER, POINTER, POINTER, POINTER),
    "TVMFFIErrorCreateWithCauseAndExtraContext": offer(
        INT, guarded(failures.create), POINTER, POINTER, POINTER, POINTER, POINTER, POINTER
    ),
    "TVMFFIBacktrace": offer(POINTER, _where, TEXT, INT, TEXT, INT),
    "TVMFFIStringFromByteArray": _text_making(TypeIndex.STR, TypeIndex.SMALL_STR),
    "TVMFFIBytesFromByteArray": _text_making(TypeIndex.BYTES, TypeIndex.SMALL_BYTES),
    "TVMFFIDataTypeFromString": offer(INT, guarded(_dtype_of_text), POINTER, POINTER),
    "TVMFFIDataTypeToString": offer(INT, guarded(_text_of_dtype), POINTER, POINTER),
    "TVMFFITypeKeyToIndex": offer(INT, guarded(_index_of_key), POINTER, POINTER),
    "TVMFFITypeGetOrAllocIndex": offer(INT, _type_index, POINTER, INT, INT, INT, INT, INT),
    "TVMFFIGetTypeInfo": offer(POINTER, type_table.describe, INT),
    "TVMFFITypeRegisterField": _registering(type_table.register_field),
    "TVMFFITypeRegisterMethod": _registering(type_table.register_method),
    "TVMFFITypeRegisterMetadata": _registering(type_table.register_metadata),
    "TVMFFITypeRegisterAttr": offer(INT, guarded(_register_attribute), INT, POINTER, POINTER),
    "TVMFFIGetTypeAttrColumn": offer(
        POINTER, lambda name: type_table.column(text_at(name)), POINTER
    ),
}
"""By their names in TVM (tvm/ffi/c_api.h)."""
