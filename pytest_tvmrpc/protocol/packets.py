"""One function for each packet, to buffers and back. Which bytes a value has is the dialect's.

Requests are the asking side's, answers the serving side's. Encoders return lists of buffers for
``sendmsg``; a tensor's bytes are passed through untouched.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

from ..errors import RemoteProtocolError
from .codes import PROTOCOL_VERSION, RPCCode
from .records import encode_record, known_record

if TYPE_CHECKING:
    from ..dlpack import TensorRecord
    from .dialect import Dialect

Buffer = Union[bytes, bytearray, memoryview]
Buffers = List[Buffer]

_FRAME = struct.Struct("<Qi")
_U64 = struct.Struct("<Q")

SHUTDOWN = _FRAME.pack(4, RPCCode.SHUTDOWN)
NO_VALUES = b"\0\0\0\0"
RETURN_NOTHING = _FRAME.pack(8, RPCCode.RETURN) + NO_VALUES
"""Return of no values: what our server answers to InitServer, since every client accepts it."""


def _packet(code: int, body: Buffers) -> Buffers:
    head = _FRAME.pack(4 + sum(map(len, body)), code)
    return [head + body[0], *body[1:]]


# Requests


def init_server(dialect: Dialect, constructor: Sequence[Any] = ()) -> Buffers:
    """InitServer: the version, and which session to construct (its name and arguments)."""
    version = _U64.pack(len(PROTOCOL_VERSION)) + PROTOCOL_VERSION
    return _packet(RPCCode.INIT_SERVER, [version, *dialect.encode_values(constructor)])


def copy_from_remote(record: TensorRecord, nbytes: int) -> bytes:
    """CopyFromRemote: `nbytes` from the record's byte offset."""
    encoded = record.encoded or encode_record(record)
    return _FRAME.pack(12 + len(encoded), 6) + encoded + _U64.pack(nbytes)


def copy_to_remote(record: TensorRecord, content: memoryview) -> Buffers:
    """CopyToRemote: the bytes go to the record's byte offset. `content` is not copied."""
    encoded = record.encoded or encode_record(record)
    nbytes = len(content)
    head = _FRAME.pack(12 + len(encoded) + nbytes, 7) + encoded + _U64.pack(nbytes)
    return [head + content] if nbytes <= 4096 else [head, content]


# Reading requests


class InitServer(NamedTuple):
    """The first request: the protocol's version, and the rest for the dialect to read."""

    version: bytes
    values_at: int


def decode_init_server(buffer: Buffer, start: int, end: int) -> InitServer:
    """The version text, and where the packed sequence begins."""
    (length,) = _U64.unpack(_exactly(buffer, start, end, 8))
    if length > 256:
        raise RemoteProtocolError(f"a protocol version of {length} bytes")
    version = bytes(_exactly(buffer, start + 8, end, length))
    return InitServer(version, start + 8 + length)


def decode_call_handle(buffer: Buffer, start: int, end: int) -> int:
    """The function of a CallFunc; its arguments begin 8 bytes further on."""
    if end - start < 12:
        raise RemoteProtocolError("a call without a function or without arguments")
    handle: int = _U64.unpack_from(buffer, start)[0]
    return handle


def decode_copy(
    buffer: Buffer, start: int, end: int, records: Dict[bytes, Any]
) -> Tuple[TensorRecord, int, int]:
    """Record and size of a copy request, and the offset behind them.

    Args:
        records: tensor records by their bytes, to be found again and added to.

    Raises:
        RemoteProtocolError: the request is cut short.
    """
    record, offset = known_record(buffer, start, end, records)
    if end - offset < 8:
        raise RemoteProtocolError("a copy request that does not say how much")
    return record, _U64.unpack_from(buffer, offset)[0], offset + 8


def _exactly(buffer: Buffer, start: int, end: int, nbytes: int) -> Buffer:
    if end - start < nbytes:
        raise RemoteProtocolError(
            f"a packet ends early: {nbytes} bytes expected, {end - start} there"
        )
    return buffer[start : start + nbytes]


# Answers


def exception(dialect: Dialect, text: str) -> bytes:
    """Exception: one string; clients know no more of an error than it says.

    Whatever the text holds, it arrives: TVM's clients take neither NUL nor what is not UTF-8.
    """
    text = text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
    return dialect.encode_request(RPCCode.EXCEPTION, (text,))


def trailing_exception(content: bytes) -> Optional[bytes]:
    """The body of an exception that ends these bytes, whatever is in front of it.

    A server of ours says in this way why an answer has no end: so much of it is missing that the
    exception cannot be taken for the rest.
    """
    for start in range(len(content) - _FRAME.size, -1, -1):
        nbytes, code = _FRAME.unpack_from(content, start)
        if code == RPCCode.EXCEPTION and start + 8 + nbytes == len(content):
            return content[start + _FRAME.size :]
    return None


def copy_ack(content: memoryview) -> Union[bytes, Buffers]:
    """CopyAck: the bytes that were asked for, and nothing else."""
    head = _FRAME.pack(4 + len(content), 8)
    return head + content if len(content) <= 4096 else [head, content]
