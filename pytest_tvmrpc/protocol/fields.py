"""The parts of a packed sequence that are the same in all dialects. No codes, and no order.

Readers take the buffer, the offset and the packet's end, and return the value and the offset
behind it. They may read beyond the end, into what a packet before left in the buffer: who calls
them compares the offset they return with the end.
"""

from __future__ import annotations

import struct
from typing import Any, List, Tuple, Union

from ..data_type import DataType, number_text
from ..dlpack import Device, TensorRecord
from ..errors import LocalProtocolError, RemoteProtocolError
from .values import MAX_VALUES, TensorResult

Buffer = Union[bytes, bytearray, memoryview]

_F64 = struct.Struct("<d")
_DTYPE = struct.Struct("<BBHi")
_DEVICE = struct.Struct("<ii")

INT64 = 1 << 63
UINT64 = (1 << 64) - 1


# What cannot be sent. Errors are returned, not raised: who sends checks in place, without a call


def no_such_int(value: int) -> LocalProtocolError:
    """The error for an integer that is too large for any packet."""
    return LocalProtocolError(
        f"{number_text(value)} does not fit into the 64 bits that the protocol has"
    )


def out_of_range(value: Any) -> LocalProtocolError:
    """The error for a handle, or a part of a device or a type, that its field cannot hold."""
    return LocalProtocolError(
        f"{value!r} is out of range: a handle has 64 bits and is not negative, the numbers of a "
        "device have 32 bits"
    )


def no_such_text(value: str) -> LocalProtocolError:
    """The error for a text of which not every character stands for some bytes."""
    return LocalProtocolError(
        f"{value[:80]!r} cannot be sent: it has a surrogate that stands for no byte"
    )


def nul_in_text(value: str) -> LocalProtocolError:
    """The error for a text that would lose its end at a peer."""
    return LocalProtocolError(
        f"{value[:80]!r} cannot be sent: TVM ends a text at its first NUL; send it as bytes"
    )


def no_such_value(value: Any) -> LocalProtocolError:
    """The error for an argument of a type that no packet can hold."""
    return LocalProtocolError(
        f"a value of type {type(value).__name__} cannot be sent; expected None, bool, int, "
        "float, str, bytes, a data type, a device, or a tensor, function or module of "
        "the same session"
    )


def no_such_result(value: Any) -> LocalProtocolError:
    """The error for a result of a type that no packet can hold."""
    return LocalProtocolError(
        f"a result of type {type(value).__name__} cannot be sent; expected None, bool, int, "
        "float, str, bytes, a data type, a device, a tensor, a function or a module"
    )


# Reading


def lost(offset: int, end: int, wanted: int) -> RemoteProtocolError:
    """The error for a packet that ends within a value."""
    return RemoteProtocolError(
        f"a packet ends early: {wanted} bytes expected at {offset}, {max(end - offset, 0)} there"
    )


def left_over(offset: int, end: int) -> RemoteProtocolError:
    """The error for a packet that goes on behind its last value."""
    return RemoteProtocolError(f"{end - offset} bytes are left over behind a packed sequence")


def no_such_count(count: int) -> RemoteProtocolError:
    """The error for more values than any call has, or for fewer than none."""
    return RemoteProtocolError(f"a packed sequence of {count} values; 0 to {MAX_VALUES} can be")


def take(buffer: Buffer, offset: int, nbytes: int, end: int) -> Buffer:
    """So many bytes, if they are there: held against the packet before any memory is taken."""
    if not 0 <= nbytes <= end - offset:
        raise lost(offset, end, nbytes)
    return buffer[offset : offset + nbytes]


def read_float(buffer: Buffer, offset: int, end: int) -> Tuple[Any, int]:
    return _F64.unpack_from(buffer, offset)[0], offset + 8


def read_dtype(buffer: Buffer, offset: int, end: int) -> Tuple[Any, int]:
    code, bits, lanes, _ = _DTYPE.unpack_from(buffer, offset)
    return DataType.of(code, bits, lanes), offset + 8


def read_device(buffer: Buffer, offset: int, end: int) -> Tuple[Any, int]:
    return Device(*_DEVICE.unpack_from(buffer, offset)), offset + 8


# Results


def no_kind() -> RemoteProtocolError:
    """The error for a result that does not begin with what it is."""
    return RemoteProtocolError("a result without its kind; expected an int as the first value")


def tensor_result(values: List[Any]) -> TensorResult:
    """The tensor of a result, whose handle may be null, 0, or not there."""
    record: TensorRecord = values[1]
    handle = values[2] if len(values) > 2 else None
    if handle is not None and not (isinstance(handle, int) and handle >= 0):
        raise RemoteProtocolError(
            f"a tensor with a handle of type {type(handle).__name__}; expected a pointer"
        )
    return TensorResult(record, int(handle or 0))
