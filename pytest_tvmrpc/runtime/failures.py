"""Errors on their way between compiled code and Python: as exceptions here, as objects there.

Which error a thread has pending, `abi` keeps.
"""

from __future__ import annotations

import ctypes
from typing import Any, Dict, List, Optional

from .abi import (
    HEADER_SIZE,
    TVMFFIByteArray,
    TVMFFIErrorCell,
    TypeIndex,
    error_of_kind,
    kept_by_cell,
    new_cell,
    record_error,
    release,
    retain,
    take_error,
)
from .foreign import Reference
from .type_table import text_of

__all__ = [
    "create",
    "exception_of",
    "new_error",
    "object_of",
    "pending_error",
    "tell_tvm",
    "set_raised",
    "take_raised",
    "where",
]

_UPDATE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32)
_APPEND = 1  # kTVMFFIBacktraceUpdateModeAppend


class TVMFFIErrorRest(ctypes.Structure):
    """What an error object has behind kind and message."""

    _fields_ = [
        ("backtrace", TVMFFIByteArray),
        ("update_backtrace", ctypes.c_void_p),
        ("cause_chain", ctypes.c_void_p),
        ("extra_context", ctypes.c_void_p),
    ]


_REST_AT = HEADER_SIZE + ctypes.sizeof(TVMFFIErrorCell)


class _Content:
    """The texts of an error object of ours, the objects that belong to it, and the exception."""

    def __init__(
        self, kind: bytes, message: bytes, owned: List[int], error: Optional[BaseException]
    ) -> None:
        self.error = error
        self.kind = ctypes.create_string_buffer(kind)
        self.message = ctypes.create_string_buffer(message)
        self.backtraces: List[ctypes.Array[ctypes.c_char]] = []
        self.owned = [Reference(address) for address in owned]

    def set_backtrace(self, text: bytes) -> TVMFFIByteArray:
        """Keep one more text; those before stay, as somebody may be reading them."""
        self.backtraces.append(ctypes.create_string_buffer(text))
        return _bytes_in(self.backtraces[-1])


def new_error(
    kind: bytes,
    message: bytes,
    backtrace: bytes = b"",
    cause: Optional[int] = None,
    context: Optional[int] = None,
    error: Optional[BaseException] = None,
) -> int:
    """The address of a new error object with one reference, which the caller owns.

    Args:
        cause, context: objects that belong to it.
        error: the exception that it is for Python.
    """
    owned = [address for address in (cause, context) if address]
    for address in owned:
        retain(address)
    content = _Content(kind, message, owned, error)
    head = TVMFFIErrorCell(_bytes_in(content.kind), _bytes_in(content.message))
    rest = TVMFFIErrorRest(content.set_backtrace(backtrace), _update_address, cause, context)
    return new_cell(TypeIndex.ERROR, None, bytes(head) + bytes(rest), content)


def _bytes_in(memory: ctypes.Array[ctypes.c_char]) -> TVMFFIByteArray:
    return TVMFFIByteArray(ctypes.addressof(memory), len(memory) - 1)


def _update(error: int, text: Optional[int], mode: int) -> None:
    """Replace an error's backtrace, or go on with it, as it passes through a call."""
    content = kept_by_cell(error)
    if not text or not isinstance(content, _Content):
        return
    array = TVMFFIByteArray.from_address(text)
    added = ctypes.string_at(array.data, array.size) if array.data and array.size else b""
    before = content.backtraces[-1].value if mode == _APPEND else b""
    TVMFFIErrorRest.from_address(error + _REST_AT).backtrace = content.set_backtrace(before + added)


_on_update = _UPDATE(_update)
_update_address = ctypes.cast(_on_update, ctypes.c_void_p).value or 0


def exception_of(address: int) -> BaseException:
    """An error object as an exception, which refers to it: passed on, it is the same object.

    One that was made for an exception is that exception.

    Its notes tell where it was thrown (`Exception.add_note`; before Python 3.11, only
    ``__notes__``), as far as the code that threw it says so.
    """
    content = kept_by_cell(address)
    if isinstance(content, _Content) and content.error is not None:
        return content.error
    cell = TVMFFIErrorCell.from_address(address + HEADER_SIZE)
    error = error_of_kind(text_of(cell.kind), text_of(cell.message))
    retain(address)
    error.tvm_error = Reference(address)  # type: ignore[attr-defined]  # what exceptions are for
    backtrace = text_of(TVMFFIErrorRest.from_address(address + _REST_AT).backtrace)
    if backtrace.strip():
        lines = "\n".join(reversed(backtrace.rstrip("\n").split("\n")))
        error.__notes__ = [f"in compiled code, most recent call last:\n{lines}"]  # type: ignore[attr-defined]
    return error


def object_of(error: BaseException) -> int:
    """The address of an error object for an exception, with a reference that the caller owns."""
    known = getattr(error, "tvm_error", None)
    if isinstance(known, Reference):
        retain(known.address)
        return known.address
    kind = getattr(error, "remote_type", None) or type(error).__name__
    message = _text(error).encode("utf-8", "replace")
    return new_error(str(kind).encode("utf-8", "replace"), message, error=error)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as problem:  # the type of the error is a user's, too
        return f"its text cannot be made: {type(problem).__name__}"


def _of_tvm(name: str) -> Any:
    """A function that takes a pointer, of a TVM in this process; None where there is none."""
    function = getattr(ctypes.CDLL(None), name, None)
    if function is not None:
        function.argtypes, function.restype = [ctypes.c_void_p], None
    return function


def tell_tvm(error: BaseException) -> None:
    """Tell a TVM in this process what a function failed with that is called by code bound to it.

    Such code asks its own TVM for the error, and reads what it gets without a check.
    """
    tell = _of_tvm("TVMFFIErrorSetRaised")
    if tell is not None:
        handle = object_of(error)
        tell(handle)
        release(handle)


def pending_error() -> Optional[BaseException]:
    """What the compiled function that just failed said of it, here or to a TVM; it is forgotten."""
    own, move = take_error(), _of_tvm("TVMFFIErrorMoveFromRaised")
    handle = ctypes.c_void_p()
    if move is not None:
        move(ctypes.addressof(handle))
    if not handle.value:
        return own
    theirs = exception_of(handle.value)
    is_ours = isinstance(kept_by_cell(handle.value), _Content)
    release(handle.value)
    return own or theirs if is_ours else theirs


def set_raised(handle: Optional[int]) -> None:
    """Let an error object be what the running function fails with (TVMFFIErrorSetRaised)."""
    if handle:
        record_error(exception_of(handle))


def take_raised(out: int) -> None:
    """Move the pending error to compiled code (TVMFFIErrorMoveFromRaised); NULL if none is."""
    error = take_error()
    place = ctypes.c_void_p.from_address(out)
    place.value = object_of(error) if error is not None else None


def create(
    kind: Optional[int],
    message: Optional[int],
    backtrace: Optional[int],
    cause: Optional[int],
    context: Optional[int],
    out: int,
) -> int:
    """A new error object for compiled code (TVMFFIErrorCreateWithCauseAndExtraContext)."""
    place = ctypes.c_void_p.from_address(out)
    place.value = new_error(
        _bytes_at(kind), _bytes_at(message), _bytes_at(backtrace), cause, context
    )
    return 0


def _bytes_at(address: Optional[int]) -> bytes:
    if not address:
        return b""
    array = TVMFFIByteArray.from_address(address)
    return ctypes.string_at(array.data, array.size) if array.data and array.size else b""


_places: Dict[int, Any] = {}  # by thread: the text that it was given last, and its description


def where(thread: int, file: Optional[bytes], line: int, function: Optional[bytes]) -> int:
    """The address of a text that says where an error is thrown (TVMFFIBacktrace).

    One line: the place itself. TVM's own runtime adds the callers, which it finds by unwinding.
    """
    text = b""
    if file or function:
        named = b", in " + function if function else b""
        text = b'  File "%s", line %d%s\n' % (file or b"<unknown>", line, named)
    memory = ctypes.create_string_buffer(text)
    array = _bytes_in(memory)
    _places[thread] = memory, array
    return ctypes.addressof(array)
