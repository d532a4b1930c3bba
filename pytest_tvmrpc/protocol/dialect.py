"""What a dialect is, and how each side tells which one its peer speaks.

The packets are the same in all dialects; the packed sequences within are not. Both ends hold a
`Dialect` value and never ask which one it is. TVM's version text cannot tell them apart: it is
``0.8.0`` in both. Whoever has to tell reads a sequence strictly in both, and keeps the dialect in
which it comes out.
"""

from __future__ import annotations

import struct
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
)

from ..data_type import DataType
from ..dlpack import Device, OpaquePointer, TensorRecord
from ..errors import RemoteProtocolError
from . import ffi, legacy, records
from .codes import ArgTypeCode, RPCCode, TypeIndex
from .requests import REQUESTS, Argument, Body, code_name

if TYPE_CHECKING:
    from .values import PendingBytes

Buffer = Union[bytes, bytearray, memoryview]


class Dialect(NamedTuple):
    """How packed sequences, arguments, results and frees are written and read."""

    name: str
    encode_values: Callable[..., List[Buffer]]
    decode_values: Callable[..., List[Any]]
    decode_values_before: Callable[
        [Buffer, int, int, int], Tuple[List[Any], Optional[PendingBytes]]
    ]
    encode_call: Callable[..., Union[bytes, List[Buffer]]]
    encode_request: Callable[[int, Sequence[Any]], bytes]
    encode_free: Callable[[int, type], bytes]
    """FreeHandle of a handle and its kind, one of the handles of `values`, or TensorResult."""

    encode_return: Callable[[Any], bytes]
    encode_result: Callable[[Any], Union[bytes, List[Buffer]]]
    decode_result: Callable[[Buffer, int, int], Any]
    result_of: Callable[[List[Any]], Any]
    encode_record: Callable[[TensorRecord], bytes]
    """The description of a tensor, which stays in it; copies send it outside of a sequence."""


FFI = Dialect(
    "ffi",
    ffi.encode_values,
    ffi.decode_values,
    ffi.decode_values_before,
    ffi.encode_call,
    ffi.encode_request,
    ffi.encode_free,
    ffi.encode_return,
    ffi.encode_result,
    ffi.decode_result,
    ffi.result_of,
    records.encode_record,
)
"""TVM 0.21 to now."""

LEGACY = Dialect(
    "legacy",
    legacy.encode_values,
    legacy.decode_values,
    legacy.decode_values_before,
    legacy.encode_call,
    legacy.encode_request,
    legacy.encode_free,
    legacy.encode_return,
    legacy.encode_result,
    legacy.decode_result,
    legacy.result_of,
    records.encode_legacy_record,
)
"""TVM 0.8 to 0.20."""


_RAW_STR = b"\x08\0\0\0"


def of_server(reply: Buffer) -> Dialect:
    """The dialect of a server, from the body of its answer to InitServer: Return, or Exception.

    A void answer carries one null, whose code is 0 in the FFI dialect and 4 in the legacy one. An
    answer of no values, which is what our own server says before it knows its client, leaves
    the choice to the client. What else is in an answer counts for nothing, to any client.
    """
    if _read(FFI, reply, 0) is None and _read(LEGACY, reply, 0) is not None:
        return LEGACY
    return FFI


def of_client(code: int, body: Buffer, missing: int = 0) -> Optional[Dialect]:
    """The dialect of a client, from a request of it; None while nothing can be told.

    The first sequence with a value decides, if it makes sense in one dialect only. In practice it
    is GetGlobalFunc's string, whose code is 8 (FFI) or 11 (legacy). Some requests are the same
    bytes in both: those whose one argument is a device.

    Args:
        missing: bytes of the request that have not arrived; only a last, long byte string may
            have any, such as the program that a session constructor is given.

    Raises:
        RemoteProtocolError: the request makes sense in no dialect; `RemoteProtocolError.dialect`
            is the one in which the client may understand being told.
    """
    start = _sequence_start(code, body)
    if start is None or len(body) - start < 8:
        return None
    if code == RPCCode.GET_GLOBAL_FUNC and body[4:8] == _RAW_STR and not missing:
        candidates: Tuple[Dialect, ...] = (
            FFI,
        )  # nearly always; where no session has begun yet, each step is slow
    else:
        candidates = (FFI, LEGACY)
    readings = [
        (dialect, values)
        for dialect in candidates
        for values in [_read(dialect, body, start, missing)]
        if values is not None
    ]
    if not readings and missing:
        return None
    if not readings:
        raise _in_no_dialect(code, body, start)
    if len(readings) > 1:
        readings = [reading for reading in readings if _names_devices(reading[1])] or readings
    if len(readings) > 1:
        readings = [
            (dialect, values)
            for dialect, values in readings
            if _is_usual(code, values) and (dialect is FFI or _has_legacy_codes(code, body, start))
        ]
    return readings[0][0] if len(readings) == 1 else None


def _sequence_start(code: int, body: Buffer) -> Optional[int]:
    """Where the packed sequence begins in the body of a request; None if it has none."""
    row = REQUESTS.get(code)
    form = Body.VALUES if row is None else row.body
    if form is Body.VERSION:
        return 8 + int.from_bytes(body[:8], "little")
    return _STARTS.get(form)


_STARTS = {Body.VALUES: 0, Body.CALL: 8}


def _arguments(code: int) -> Tuple[Argument, ...]:
    """The first values of a request, as clients of TVM send them."""
    row = REQUESTS.get(code)
    return () if row is None else row.arguments


def _read(dialect: Dialect, body: Buffer, start: int, missing: int = 0) -> Optional[List[Any]]:
    """The values of a sequence; None if it is none in this dialect."""
    if missing:
        end = len(body)
        values, pending = dialect.decode_values_before(body, start, end, end + missing)
        return None if pending is None else values
    try:
        return dialect.decode_values(body, start, len(body))
    except RemoteProtocolError:
        return None


_CODES: Dict[type, int] = {
    str: ArgTypeCode.STR,
    OpaquePointer: ArgTypeCode.HANDLE,
    Device: ArgTypeCode.DEVICE,
    int: ArgTypeCode.INT,
    DataType: ArgTypeCode.DATA_TYPE,
    TensorRecord: ArgTypeCode.DL_TENSOR,
    type(None): ArgTypeCode.NULL,
}


def _names_devices(values: List[Any]) -> bool:
    """Whether all devices are some: the kind of one of them, read in the wrong dialect, is 0."""
    return all(value.device_type > 0 for value in values if type(value) is Device)


def _is_usual(code: int, values: List[Any]) -> bool:
    """Whether the first values are of the types that clients of TVM send."""
    form = _arguments(code)
    return len(values) >= len(form) and all(
        type(value) in argument.types for value, argument in zip(values, form)
    )


def _in_no_dialect(code: int, body: Buffer, start: int) -> RemoteProtocolError:
    error = RemoteProtocolError(
        f"{code_name(code)} makes sense in no dialect, neither in that of TVM 0.8 to 0.20 nor in "
        "that of 0.21 and later; see whether client and network leave the bytes as they are"
    )
    error.dialect = LEGACY if _looks_legacy(code, body, start) else FFI
    return error


def _has_legacy_codes(code: int, body: Buffer, start: int) -> bool:
    """Whether a sequence begins with the codes that a legacy client sends for this request."""
    form = _arguments(code)
    if len(body) - start < 4 + 4 * len(form):
        return False
    words = struct.unpack_from(f"<{len(form)}i", body, start + 4)
    return all(word in map(_CODES.get, argument.types) for word, argument in zip(words, form))


def _looks_legacy(code: int, body: Buffer, start: int) -> bool:
    """Whether a sequence that cannot be read may be one of a legacy client."""
    form = _arguments(code)
    first = struct.unpack_from("<i", body, start + 4)[0]
    if first != ArgTypeCode.STR:
        return len(form) > 1 and _has_legacy_codes(code, body, start)
    behind = int.from_bytes(body[start + 8 : start + 12], "little")
    return behind not in (TypeIndex.STR, TypeIndex.BYTES)
