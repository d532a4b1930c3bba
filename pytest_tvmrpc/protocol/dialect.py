"""What a dialect is, and how each side tells which one its peer speaks.

The packets are the same in all dialects; the packed sequences within are not. Both ends hold a
`Dialect` value and never ask which one it is. TVM's version text cannot tell them apart: it is
``0.8.0`` in both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, List, NamedTuple, Optional, Sequence, Tuple, Union

from ..errors import RemoteProtocolError
from . import ffi
from .codes import RPCCode

if TYPE_CHECKING:
    from .values import PendingBytes

Buffer = Union[bytes, bytearray, memoryview]


class Dialect(NamedTuple):
    """How packed sequences, arguments and results are written and read."""

    name: str
    encode_values: Callable[..., List[Buffer]]
    decode_values: Callable[..., List[Any]]
    decode_values_before: Callable[
        [Buffer, int, int, int], Tuple[List[Any], Optional[PendingBytes]]
    ]
    encode_call: Callable[..., Union[bytes, List[Buffer]]]
    encode_request: Callable[[int, Sequence[Any]], bytes]
    encode_return: Callable[[Any], bytes]
    encode_result: Callable[[Any], Union[bytes, List[Buffer]]]
    decode_result: Callable[[Buffer, int, int], Any]
    result_of: Callable[[List[Any]], Any]


FFI = Dialect(
    "ffi",
    ffi.encode_values,
    ffi.decode_values,
    ffi.decode_values_before,
    ffi.encode_call,
    ffi.encode_request,
    ffi.encode_return,
    ffi.encode_result,
    ffi.decode_result,
    ffi.result_of,
)
"""TVM 0.21 to now."""

_LEGACY_NULL = b"\1\0\0\0\4\0\0\0"
_LEGACY = "the peer speaks the dialect of TVM 0.8 to 0.20, which this version does not speak yet"


def of_server(reply: Buffer) -> Dialect:
    """The dialect of a server, from the body of its answer to InitServer.

    A void answer carries one null, whose code is 0 in the FFI dialect and 4 in the legacy one. An
    answer of no values, which is what our own server says before it knows its client, leaves
    the choice to the client.

    Raises:
        RemoteProtocolError: the server speaks a dialect that is not spoken here.
    """
    if bytes(reply) == _LEGACY_NULL:
        raise RemoteProtocolError(f"{_LEGACY}; use a server of TVM 0.21 or newer, or ours")
    return FFI


def of_client(code: int, body: Buffer) -> Optional[Dialect]:
    """The dialect of a client, from a request of it; None while nothing can be told.

    The first sequence with a value decides: it parses in one dialect only. In practice it is
    GetGlobalFunc's string, whose code is 8 (FFI) or 11 (legacy).

    Raises:
        RemoteProtocolError: the client speaks a dialect that is not spoken here.
    """
    start = _sequence_start(code, body)
    if start is None or len(body) - start < 8:
        return None
    try:
        ffi.decode_values(body, start, len(body))
    except RemoteProtocolError as error:
        if code in (RPCCode.GET_GLOBAL_FUNC, RPCCode.INIT_SERVER):
            first = bytes(body[start + 4 : start + 8])
            if first == b"\x0b\0\0\0":
                raise RemoteProtocolError(f"{_LEGACY}; use a client of TVM 0.21 or newer") from None
        raise RemoteProtocolError(f"no dialect has such a packet: {error}") from None
    return FFI


def _sequence_start(code: int, body: Buffer) -> Optional[int]:
    """Where the packed sequence begins in the body of a request; None if it has none."""
    if code in (RPCCode.COPY_TO_REMOTE, RPCCode.COPY_FROM_REMOTE, RPCCode.SHUTDOWN):
        return None
    if code == RPCCode.CALL_FUNC:
        return 8
    if code == RPCCode.INIT_SERVER:
        return 8 + int.from_bytes(body[:8], "little")
    return 0
