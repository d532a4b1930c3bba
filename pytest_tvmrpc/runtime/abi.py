"""The C ABI of compiled functions: how values lie in memory, what an object and an error are.

Calls nothing and converts nothing; `calling` does. The layouts are those of tvm-ffi
(include/tvm/ffi/c_api.h), TVM 0.22 and later; all are little-endian.
"""

from __future__ import annotations

import atexit
import builtins
import ctypes
import os
import sys
import threading
import weakref
from _thread import get_ident
from typing import TYPE_CHECKING, Any, Callable, Dict, List, NamedTuple, Optional

from ..dlpack import TypeIndex as TypeIndex

if TYPE_CHECKING:
    from types import FrameType

# ------------------------------------------------------------------------------------- layouts


class TVMFFIObject(ctypes.Structure):
    """The header of every object on the heap: strong count in the low half, weak in the high."""

    _fields_ = [
        ("combined_ref_count", ctypes.c_uint64),
        ("type_index", ctypes.c_int32),
        ("padding", ctypes.c_uint32),
        ("deleter", ctypes.c_uint64),  # as wide as this on 32-bit machines, too
    ]


class TVMFFIByteArray(ctypes.Structure):
    """Bytes elsewhere; also what follows the header of str and bytes objects."""

    _fields_ = [("data", ctypes.c_void_p), ("size", ctypes.c_size_t)]


class TVMFFIFunctionCell(ctypes.Structure):
    """What follows the header of a function object."""

    _fields_ = [("safe_call", ctypes.c_void_p), ("cpp_call", ctypes.c_void_p)]


class TVMFFIErrorCell(ctypes.Structure):
    """The beginning of what follows the header of an error object."""

    _fields_ = [("kind", TVMFFIByteArray), ("message", TVMFFIByteArray)]


class DLTensor(ctypes.Structure):
    """DLPack's tensor; also what follows the header of a tensor object."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_uint64),
    ]


HEADER_SIZE = ctypes.sizeof(TVMFFIObject)
ANY_SIZE = 16

SAFE_CALL = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p
)
"""TVMFFISafeCallType: self, arguments, their number, where the result goes; 0 is success."""

_DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int)
_DELETE_STRONG, _DELETE_WEAK = 1, 2  # TVMFFIObjectDeleterFlagBitMask
_BOTH_COUNTS_ONE = (1 << 32) | 1


# -------------------------------------------------------------------------------------- errors

raised: Dict[int, BaseException] = {}  # by thread; empty but for the way up from an error


def record_error(error: BaseException) -> None:
    """Remember what the compiled function that runs on this thread will fail with."""
    raised[get_ident()] = error


def take_error() -> Optional[BaseException]:
    """The error recorded on this thread, which is forgotten."""
    return raised.pop(get_ident(), None) if raised else None


def error_of_kind(kind: str, message: str) -> Exception:
    """An exception as compiled code names it: a builtin one, or a RuntimeError with its kind."""
    found = getattr(builtins, kind, None)
    if not (isinstance(found, type) and issubclass(found, Exception)):
        return RuntimeError(f"{kind}: {message}")
    if issubclass(found, (StopIteration, StopAsyncIteration, SyntaxError, UnicodeError, Warning)):
        return RuntimeError(f"{kind}: {message}")  # control flow, or more than a message
    try:
        return found(message)
    except TypeError:  # such as ExceptionGroup, which takes more than a message
        return RuntimeError(f"{kind}: {message}")


# ------------------------------------------------------------------------------------- objects


class _Cell(NamedTuple):
    """An object of ours that compiled code may hold.

    Attributes:
        value: what it stands for; None when it is read in C's form.
        kept: what its content refers to.
        drop: called with the address when nobody needs the content any more.
    """

    memory: ctypes.Array[ctypes.c_char]
    value: Any
    kept: Any
    drop: Optional[Callable[[int], None]]


_cells: Dict[int, _Cell] = {}  # by address, as long as a count is not zero


def new_cell(
    type_index: int,
    value: Any,
    payload: bytes = bytes(32),
    kept: Any = None,
    drop: Optional[Callable[[int], None]] = None,
) -> int:
    """The address of a new object with one reference, which the caller owns.

    It keeps `value` and `kept` alive until `release`, here or by its deleter in C, takes the last
    reference.
    """
    memory = ctypes.create_string_buffer(HEADER_SIZE + len(payload))
    address = ctypes.addressof(memory)
    header = TVMFFIObject.from_address(address)
    header.combined_ref_count = _BOTH_COUNTS_ONE
    header.type_index = type_index
    header.deleter = _deleter_address
    ctypes.memmove(address + HEADER_SIZE, payload, len(payload))
    _cells[address] = _Cell(memory, value, kept, drop)
    return address


def value_of_cell(address: Optional[int]) -> Any:
    """What an object of ours stands for; None for an address that is none of ours."""
    cell = _cells.get(address) if address else None
    value = cell.value if cell is not None else None
    return value() if type(value) is weakref.ref else value


def kept_by_cell(address: Optional[int]) -> Any:
    """What an object of ours keeps alive; None for an address that is none of ours."""
    cell = _cells.get(address) if address else None
    return cell.kept if cell is not None else None


def set_value_of_cell(address: int, value: Any) -> None:
    """Let an object of ours stand for something else; a weak reference for what it refers to."""
    _cells[address] = _cells[address]._replace(value=value)


_adding = threading.RLock()  # a signal's handler may drop objects, too


def _add_in_turn(address: int, number: int) -> int:
    """Add to a count, and return what was there; for objects that only Python's threads share.

    They take turns, since up to Python 3.9 another one may run between the read and the write.
    """
    count = ctypes.c_uint64.from_address(address)  # may collect garbage, and so count: not below
    with _adding:
        if _counting["add"] is not _add_in_turn:
            return _counting["add"](address, number)
        before = count.value
        count.value = before + number
    return before


_counting: Dict[str, Callable[[int, int], int]] = {"add": _add_in_turn}  # of the process


# Another thread of this process may be within at a fork; it is not in the child.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_adding.acquire, after_in_parent=_adding.release, after_in_child=_adding.release
    )


def count_with(add: Callable[[int, int], int]) -> None:
    """Change counts by a function of machine code, which no thread of C++ can come between.

    Args:
        add: adds to the 64 bits at an address, atomically, and returns what was there.
    """
    with _adding:  # no thread is within the other way
        _counting["add"] = add


def retain(address: int) -> None:
    """Take one more strong reference to an object, ours or foreign."""
    _counting["add"](address, 1)


def release(address: int) -> None:
    """Give one strong reference back; the object's deleter runs when it was the last."""
    before = _counting["add"](address, -1)
    if before == _BOTH_COUNTS_ONE:
        _run_deleter(address, _DELETE_STRONG | _DELETE_WEAK)
    elif before & 0xFFFFFFFF == 1:
        _run_deleter(address, _DELETE_STRONG)
        if _counting["add"](address, -(1 << 32)) >> 32 == 1:
            _run_deleter(address, _DELETE_WEAK)


def _run_deleter(address: int, flags: int) -> None:
    deleter = TVMFFIObject.from_address(address).deleter
    if deleter == _deleter_address:
        _delete(address, flags)
    elif deleter:
        _DELETER(deleter)(address, flags)


class _Ending(threading.local):
    """What this thread has yet to end, while it ends an object of ours; else None."""

    addresses: Optional[List[int]] = None


_ending = _Ending()


def _delete(address: int, flags: int) -> None:
    """The deleter of our objects.

    An object that is nested in others by any number of levels ends in a loop: what the end of one
    leaves without references waits until that is over. One that is held by weak references does
    not wait, as they may be given up before.
    """
    if flags != _DELETE_STRONG | _DELETE_WEAK:
        _end(address, flags)
        return
    waiting = _ending.addresses
    if waiting is None:
        waiting = [address]
    else:
        waiting.append(address)
        if _is_within_delete():
            return
    failed: Optional[BaseException] = None
    try:
        _ending.addresses = waiting
        while waiting:
            try:
                _end(waiting.pop(), flags)
            except BaseException as error:  # Ctrl-C: the others have to end all the same
                failed = failed or error
    finally:
        _ending.addresses = None
    if failed is not None:
        raise failed


def _is_within_delete() -> bool:
    """Whether this thread ends an object further out; after Ctrl-C, its list alone says nothing."""
    frame: Optional[FrameType] = sys._getframe(2)
    while frame is not None and frame.f_code is not _delete.__code__:
        frame = frame.f_back
    return frame is not None


def _end(address: int, flags: int) -> None:
    cell = _cells.get(address)
    try:
        if cell is not None and cell.drop is not None and flags & _DELETE_STRONG:
            cell.drop(address)
    finally:
        if flags & _DELETE_WEAK:
            _cells.pop(address, None)
        elif cell is not None:
            _cells[address] = cell._replace(value=None, kept=None, drop=None)


_on_delete = _DELETER(_delete)
_deleter_address = ctypes.cast(_on_delete, ctypes.c_void_p).value or 0


def _outlive_python() -> None:
    """Leave what compiled code still holds in memory, with nothing to be called at its end.

    Static variables of C++ are destroyed after Python is, whose functions cannot run any more.
    """
    for address, cell in list(_cells.items()):
        TVMFFIObject.from_address(address).deleter = 0
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(cell.memory))


atexit.register(_outlive_python)
