"""Calling compiled functions of TVM up to 0.20, and being called by them.

Which functions are of that convention, `conventions` says; that of later TVM is `calling`.
"""

from __future__ import annotations

import ctypes
import re
import struct
import threading
from typing import Any, Callable, List, Optional, Tuple

from ..dlpack import ArgTypeCode
from ..errors import LibraryError
from ..owners import not_copied
from .abi import (
    TVMFFIObject,
    TypeIndex,
    error_of_kind,
    raised,
    record_error,
    release,
    take_error,
    value_of_cell,
)
from .calling import OwnedCells
from .function import CompiledLoop, PackedFunc
from .legacy import (
    give_back,
    owned_pair,
    pack_arguments,
    result_value,
    values_at,
)
from .tensor import Tensor
from .words import unsigned

__all__ = ["LegacyFunction"]

CALL = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_void_p,
)
"""TVMBackendPackedCFunc: values, their codes, their number, where the result and its code go, a
resource (NULL); 0 is success."""

_CALL = ctypes.CFUNCTYPE(ctypes.c_int)
"""`CALL` without argument types: it takes ready-made C values, and bytes for their address, and
costs half of a call that converts."""

_int = struct.Struct("<q")
_float = struct.Struct("<d")
_TWO_TENSORS = struct.pack("<ii", ArgTypeCode.DL_TENSOR, ArgTypeCode.DL_TENSOR)

# ------------------------------------------------------------------------- what C code may call


def call_handle(
    handle: Optional[int],
    args: Optional[int],
    codes: Optional[int],
    count: int,
    result: Optional[int],
    result_code: Optional[int],
) -> int:
    """Call a function object (TVMFuncCall): values in C memory, 0 or an error code.

    Raises:
        ValueError: it is none, or there is no place for the result.
        LibraryError: an argument that has no form in Python; whatever the function raises.
    """
    function = value_of_cell(handle)
    if function is None or _kind_of(handle) != TypeIndex.FUNCTION:
        raise ValueError(
            f"compiled code called {handle or 0:#x}, which is no function of this runtime; "
            "expected one that was passed to it or that it looked up"
        )
    if not result or not result_code:
        raise ValueError("compiled code called a function without a place for the result")
    if type(function) is LegacyFunction:  # no way through Python; the types are those of C
        return int(CALL(function.address)(args, codes, count, result, result_code, None))
    pending = take_error()  # the caller may hold an error and clean up before it returns
    code, word = owned_pair(function(*values_at(args, codes, count)))
    ctypes.c_int64.from_address(result).value = word
    ctypes.c_int32.from_address(result_code).value = code
    if pending is not None:
        record_error(pending)
    return 0


def free(handle: Optional[int]) -> None:
    """Take back what compiled code was given for good (TVMFuncFree, TVMModFree).

    Raises:
        ValueError: it was not given that.
    """
    if handle and not give_back(handle):
        raise ValueError(
            f"compiled code frees {handle:#x}, which it does not own; expected the result of a "
            "call: what was passed to it or looked up is not freed"
        )


def _kind_of(handle: Optional[int]) -> int:
    """The type index of an object of ours."""
    return int(TVMFFIObject.from_address(handle or 0).type_index)


# -------------------------------------------------------------------------------------- errors

_here = threading.local()  # the text that C code was told last
_KIND = re.compile(r"([A-Za-z]+Error): (.*)", re.DOTALL)


def set_last_error(text: Optional[bytes]) -> None:
    """Remember what the function that runs will fail with (TVMAPISetLastError)."""
    record_error(error_of_text((text or b"").decode("utf-8", "replace")))


def error_of_text(text: str) -> Exception:
    """An exception of the kind that its text begins with, as TVM's Python makes it."""
    found = _KIND.fullmatch(text)
    return error_of_kind(*found.groups()) if found else RuntimeError(text)


def last_error() -> int:
    """Address of the text that was recorded on this thread (TVMGetLastError)."""
    error = raised.get(threading.get_ident())
    _here.error = ctypes.create_string_buffer(str(error or "").encode("utf-8", "replace"))
    return ctypes.addressof(_here.error)


def _error_left_in_tvm() -> Optional[Exception]:
    """The error that code bound to a TVM of that age in this process left with that TVM."""
    try:
        process: Any = ctypes.CDLL(None)
        get, forget = process.TVMGetLastError, process.TVMAPISetLastError
    except (AttributeError, OSError, TypeError):
        return None
    get.restype, forget.restype, forget.argtypes = ctypes.c_char_p, None, [ctypes.c_char_p]
    text = (get() or b"").decode("utf-8", "replace")
    if not text:
        return None
    forget(b"")
    take_error()  # the text is gone, be that TVM's or ours
    return error_of_text(text)


# ----------------------------------------------------------------------------------- functions

_Result = Tuple["ctypes.Array[ctypes.c_int64]", Any, Any]
"""Where a function leaves its result and the code of it, and both as arguments. The code is that
of None when free."""


def _new_result() -> _Result:
    memory = (ctypes.c_int64 * 2)(0, ArgTypeCode.NULL)
    return memory, ctypes.byref(memory), ctypes.byref(memory, 8)


_free_results: List[_Result] = []


@not_copied("load the library there")
class LegacyFunction(PackedFunc):
    """A function in machine code, of a library that TVM up to 0.20 compiled.

    A call of two tensors takes about 1.3 us on top of the function (Python 3.11, one core of a
    2-core machine).

    Args:
        address: of the C function (TVMBackendPackedCFunc).
        name: for messages.
        owner: what must stay alive as long as the function.
    """

    __slots__ = ("_owner", "address")

    def __init__(self, address: int, name: str, owner: Any = None) -> None:
        super().__init__(_CALL(address), name)
        self.address = address
        self._owner = owner

    def __call__(self, *args: Any) -> Any:
        if len(args) == 2:
            first, second = args
            if (
                type(first) is Tensor is type(second)  # most calls; the loop costs 200 ns more
                and first.data_type.code < 6  # _NEW_NUMBERS
                and second.data_type.code < 6
            ):
                words = (first.word or first.argument)[8:] + (second.word or second.argument)[8:]
                return self._invoke(words, _TWO_TENSORS, 2)
        values = b""
        codes = b""
        try:
            for value in args:
                kind = type(value)
                if kind is Tensor and value.data_type.code < 6:  # _NEW_NUMBERS
                    values += (value.word or value.argument)[8:]
                    codes += b"\7\0\0\0"  # DL_TENSOR
                elif kind is int:
                    values += _int.pack(value)
                    codes += b"\0\0\0\0"  # INT
                elif kind is float:
                    values += _float.pack(value)
                    codes += b"\2\0\0\0"  # FLOAT
                else:
                    return self._call_any(*args)
        except struct.error:  # an int beyond 64 bits
            return self._call_any(*args)
        return self._invoke(values, codes, len(args))

    def prepare(self, *args: Any) -> Callable[[], None]:
        """The call of these arguments, to be made many times; the result is dropped."""
        return _prepared(self, args)

    def prepare_loop(self, *args: Any) -> Optional[CompiledLoop]:
        """The same in a loop of machine code."""
        return _prepared_loop(self, args)

    def _call_any(self, *args: Any) -> Any:
        """The call with arguments of any kind."""
        packed = pack_arguments(self.name, args)
        try:
            return self._invoke(packed.values, packed.codes, len(args))
        finally:
            for cell in packed.cells:
                release(cell)

    def _invoke(self, values: bytes, codes: bytes, count: int) -> Any:
        if raised:
            take_error()  # of a function that recorded one, and then succeeded all the same
        try:
            result = _free_results.pop()
        except IndexError:
            result = _new_result()
        memory, place, code_place = result
        failure = self.function(values, codes, count, place, code_place, None)
        if failure:
            raise self.error(failure)
        code = memory[1]
        if code == 4:  # NULL
            _free_results.append(result)
            return None
        number = memory[0]
        memory[0], memory[1] = 0, 4
        _free_results.append(result)
        if code == 0:
            return number
        return result_value(
            ((code & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000, number
        )  # with its sign

    def error(self, code: int) -> BaseException:
        """What a call that returned a code other than 0 raises."""
        error = take_error() or _error_left_in_tvm()
        if error is not None:
            return error
        return LibraryError(
            f"function {self.name or hex(self.address)} returned {code} without saying why; "
            "expected 0, or an error recorded with TVMAPISetLastError"
        )


def _prepared(function: LegacyFunction, args: Tuple[Any, ...]) -> Callable[[], None]:
    packed = pack_arguments(function.name, args)
    memory, *results = _new_result()
    values = ctypes.create_string_buffer(packed.values, max(len(packed.values), 1))
    codes = ctypes.create_string_buffer(packed.codes, max(len(packed.codes), 1))
    call = function.function
    pointers = [ctypes.c_void_p(ctypes.addressof(block)) for block in (values, codes)]
    given = (*pointers, ctypes.c_int(len(args)), *results, None)
    alive = (function, packed, values, codes, OwnedCells(packed.cells))
    take_error()

    def run() -> None:
        code = call(*given)
        if code or memory[1] >= 8:  # OBJECT, MODULE, FUNCTION: perhaps ours to give back
            drop(code, alive)

    def drop(code: int, alive: Any) -> None:
        if code:
            raise function.error(code)
        give_back(unsigned(memory[0]))
        memory[0], memory[1] = 0, ArgTypeCode.NULL

    return run


def _prepared_loop(function: LegacyFunction, args: Tuple[Any, ...]) -> Optional[CompiledLoop]:
    from . import timing_loop

    loops = timing_loop.loops()
    if loops is None:
        return None
    packed = pack_arguments(function.name, args)
    values = ctypes.create_string_buffer(packed.values, max(len(packed.values), 1))
    codes = ctypes.create_string_buffer(packed.codes, max(len(packed.codes), 1))
    alive = (function, packed, values, codes, OwnedCells(packed.cells))
    first = (function.address, ctypes.addressof(values), ctypes.addressof(codes), len(args))
    take_error()
    return timing_loop.prepared(function, loops.time_legacy_calls, first, _drop_result, alive)


def _drop_result(place: int) -> None:
    """Give back the object whose handle a call has returned."""
    give_back(unsigned(_int.unpack(ctypes.string_at(place, 8))[0]))
