"""Values in the C convention of TVM up to 0.20: eight bytes each, and beside them their kinds.

Calls nothing; `legacy_calling` does.
"""

from __future__ import annotations

import ctypes
import struct
import threading
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Set, Tuple

from ..data_type import DataType, from_legacy, to_legacy
from ..dlpack import ArgTypeCode, OpaquePointer
from ..errors import LibraryError
from .abi import (
    DLTensor,
    TypeIndex,
    new_cell,
    release,
    value_of_cell,
)
from .calling import function_cell
from .foreign import tensor_at
from .function import PackedFunc
from .module import Module
from .object import Object, ObjectConvertible
from .tensor import Tensor
from .words import (
    byte_array,
    bytes_at,
    c_string,
    device_of,
    dtype_of,
    float_of,
    number_word,
    plain_word,
    signed,
    text_at,
    unsigned,
)

_PLAIN_CODES: Dict[int, int] = {
    TypeIndex.NONE: ArgTypeCode.NULL,
    TypeIndex.INT: ArgTypeCode.INT,
    TypeIndex.BOOL: ArgTypeCode.INT,  # what code of every age takes; BOOL is of 0.18
    TypeIndex.FLOAT: ArgTypeCode.FLOAT,
    TypeIndex.OPAQUE_PTR: ArgTypeCode.HANDLE,
    TypeIndex.DATA_TYPE: ArgTypeCode.DATA_TYPE,
    TypeIndex.DEVICE: ArgTypeCode.DEVICE,
}

_NEW_NUMBERS = 6
"""From this data type code on, the numbers were others up to 0.20."""

_OBJECTS = (Object, ObjectConvertible, list, tuple, dict)

_Pair = Tuple[int, int]
"""A value: its code, and its eight bytes as a signed integer."""


# ---------------------------------------------------------------------- values to compiled code


class PackedArguments(NamedTuple):
    """Arguments as a function sees them, what keeps them alive, and the objects made for them."""

    values: bytes
    codes: bytes
    alive: List[Any]
    cells: List[int]


def pack_arguments(function: str, args: Tuple[Any, ...]) -> PackedArguments:
    """Arguments of any kind; whoever packs also releases `cells`, after the call.

    Raises:
        TypeError: a value of a kind that compiled code cannot take.
        ValueError: an int beyond 64 bits, or a str with a NUL inside.
    """
    alive: List[Any] = [args]
    cells: List[int] = []
    pairs: List[_Pair] = []
    try:
        for position, value in enumerate(args):
            pairs.append(_argument(f"argument {position} of {function}", value, alive, cells))
    except BaseException:
        for cell in cells:
            release(cell)
        raise
    values = struct.pack(f"<{len(pairs)}q", *(word for _, word in pairs))
    codes = struct.pack(f"<{len(pairs)}i", *(code for code, _ in pairs))
    return PackedArguments(values, codes, alive, cells)


def _argument(what: str, value: Any, alive: List[Any], cells: List[int]) -> _Pair:
    """One argument: plain values, then borrowed memory, then objects."""
    pair = _plain(what, value)
    if pair is not None:
        return pair
    if isinstance(value, Tensor):
        address = value.dltensor
        if value.data_type.code >= _NEW_NUMBERS:
            record = _renumbered(value)
            alive.append(record)
            address = ctypes.addressof(record)
        return ArgTypeCode.DL_TENSOR, signed(address)
    borrowed = _borrowed(what, value, alive)
    if borrowed is not None:
        return borrowed
    pair = _object(value)
    if pair is None:
        raise TypeError(
            f"{what} is a {type(value).__module__}.{type(value).__qualname__}, which compiled code "
            "cannot take; expected None, a number, text, bytes, a data type, a device, a function, "
            "a module or a tensor; make a tensor of an array with runtime.tensor(array)"
        )
    cells.append(unsigned(pair[1]))
    return pair


def _plain(what: str, value: Any) -> Optional[_Pair]:
    """A value that is all in its eight bytes."""
    if isinstance(value, DataType):
        value = to_legacy(value)
    word = plain_word(value)
    if word is None and not isinstance(value, (Tensor, str, bytes, bytearray, memoryview)):
        word = number_word(what, value)
    return (_PLAIN_CODES[word[0]], word[2]) if word is not None else None


def _borrowed(what: str, value: Any, alive: List[Any]) -> Optional[_Pair]:
    """Text or bytes, in memory that lives as long as `alive`."""
    if isinstance(value, str):
        text = c_string(what, value)
        alive.append(text)
        return ArgTypeCode.STR, signed(ctypes.addressof(text))
    if isinstance(value, (bytes, bytearray, memoryview)):
        array, memory = byte_array(value)
        alive += array, memory
        return ArgTypeCode.BYTES, signed(ctypes.addressof(array))
    return None


def _object(value: Any) -> Optional[_Pair]:
    """A module, function or other object as a new one, which whoever asked has to release.

    Code of that age looks into no object itself: it passes them to functions of its runtime, as
    ``runtime.ArrayGetItem``, which are here. So what it holds may be a cell of any form.
    """
    if isinstance(value, Module):
        return ArgTypeCode.MODULE, signed(new_cell(TypeIndex.MODULE, value))
    if callable(value) and not isinstance(value, type):
        return ArgTypeCode.FUNCTION, signed(function_cell(value))
    if isinstance(value, _OBJECTS) and not isinstance(value, Tensor):
        from .conversion import convert

        return ArgTypeCode.OBJECT, signed(new_cell(TypeIndex.OBJECT, convert(value)))
    return None


def _renumbered(tensor: Tensor) -> DLTensor:
    """A tensor's description with its data type as code up to 0.20 knows it."""
    record = DLTensor.from_buffer_copy(DLTensor.from_address(tensor.dltensor))
    dtype = to_legacy(tensor.data_type)
    record.code, record.bits, record.lanes = dtype.code, dtype.bits, dtype.lanes
    return record


_here = threading.local()  # text that a call from C gave back stays until the next one
_owned: Set[int] = set()  # objects that compiled code was given for good


def owned_pair(value: Any) -> _Pair:
    """A value handed to compiled code as TVMFuncCall does: text is good until the next call.

    Raises:
        TypeError: a value of another kind.
    """
    alive: List[Any] = []
    pair = _plain("the result", value) or _borrowed("the result", value, alive)
    if pair is not None:
        if alive:
            _here.text = alive
        return pair
    pair = _object(value)
    if pair is None:
        raise TypeError(
            f"a {type(value).__module__}.{type(value).__qualname__} cannot be returned to "
            "compiled code of TVM up to 0.20; return None, a number, text, bytes, "
            "a data type, a device, a function or a module"
        )
    _owned.add(unsigned(pair[1]))
    return pair


# -------------------------------------------------------------------- values from compiled code


def result_value(code: int, number: int) -> Any:
    """The value that a function returned.

    Text is refused, as TVM does: nobody could tell whose memory it is in.

    Raises:
        LibraryError: a kind of value that cannot be returned.
    """
    convert = _conversions.get(code)
    if convert is None:
        raise LibraryError(
            f"compiled code returned a value of type code {_code_name(code)}; expected None, "
            "a number, a data type, a device, or a function or module that it was given; "
            "write text and arrays into a tensor, or pass them to a function"
        )
    value = convert(number)
    if code in (ArgTypeCode.FUNCTION, ArgTypeCode.MODULE, ArgTypeCode.OBJECT):
        give_back(unsigned(number))
    return value


def _passed(code: int, number: int) -> Any:
    """The value that compiled code passes to a function; valid for the call."""
    if code in (ArgTypeCode.DL_TENSOR, ArgTypeCode.NDARRAY) and number:
        return tensor_at(unsigned(number), dtype_from=from_legacy)
    if code == ArgTypeCode.STR:
        return text_at(number)
    if code == ArgTypeCode.BYTES:
        return bytes_at(number)
    convert = _conversions.get(code)
    if convert is None:
        raise LibraryError(
            f"compiled code passed a value of type code {_code_name(code)}; expected None, "
            "a number, text, bytes, a data type, a device, a function, a module or a tensor"
        )
    return convert(number)


def _object_at(number: int) -> Any:
    value = value_of_cell(unsigned(number))
    if value is None:
        raise LibraryError(
            f"compiled code gave an object at {unsigned(number):#x}, which is not one "
            "of this runtime; expected one that was passed to it or that it looked up"
        )
    is_value = isinstance(value, (PackedFunc, Module)) or not callable(value)
    return value if is_value else PackedFunc(value)


_conversions: Dict[int, Callable[[int], Any]] = {
    ArgTypeCode.INT: lambda number: number,
    ArgTypeCode.UINT: unsigned,
    ArgTypeCode.FLOAT: float_of,
    ArgTypeCode.HANDLE: lambda number: OpaquePointer(unsigned(number)),
    ArgTypeCode.NULL: lambda number: None,
    ArgTypeCode.DATA_TYPE: lambda number: from_legacy(dtype_of(number)),
    ArgTypeCode.DEVICE: device_of,
    ArgTypeCode.BOOL: lambda number: number != 0,
    ArgTypeCode.FUNCTION: _object_at,
    ArgTypeCode.MODULE: _object_at,
    ArgTypeCode.OBJECT: _object_at,
}


def _code_name(code: int) -> str:
    try:
        return f"{code} ({ArgTypeCode(code).name})"
    except ValueError:
        return str(code)


def values_at(args: Optional[int], codes: Optional[int], count: int) -> List[Any]:
    """The values that compiled code passes; objects and memory among them stay the caller's.

    Raises:
        LibraryError: a kind of value that has no form in Python.
    """
    if count <= 0 or not args or not codes:
        return []
    words = (ctypes.c_int64 * count).from_address(args)
    kinds = (ctypes.c_int32 * count).from_address(codes)
    return [_passed(kind, word) for kind, word in zip(kinds, words)]


# ------------------------------------------------------------------- what compiled code was given


def give_function(function: PackedFunc) -> int:
    """An object for a function that compiled code gets for good (TVMFuncGetGlobal)."""
    cell = function_cell(function)
    _owned.add(cell)
    return cell


def give_back(address: int) -> bool:
    """Release what compiled code was given for good; False when it was not."""
    if address not in _owned:
        return False
    _owned.discard(address)
    release(address)
    return True
