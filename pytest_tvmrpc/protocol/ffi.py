"""The dialect of TVM from 0.21: in a packed sequence, each value stands after its own type index.

Strategy: an encoder turns one value into bytes, found by the value's type; a reader is found by
the type index and returns the value and the offset behind it. Readers raise `RemoteProtocolError`
and never allocate what a length claims. The commonest packets have a path of their own, one
``struct`` each: a round trip is 15 us of kernel time, and each step counts.
"""

from __future__ import annotations

import struct
from typing import Any, Callable, Dict, List, NoReturn, Optional, Sequence, Tuple, Union

from ..data_type import DataType
from ..dlpack import Device, OpaquePointer, TensorRecord
from ..errors import RemoteProtocolError
from .codes import RPCCode, TypeIndex
from .fields import (
    INT64,
    UINT64,
    lost,
    no_kind,
    no_such_count,
    no_such_int,
    no_such_result,
    no_such_text,
    no_such_value,
    nul_in_text,
    out_of_range,
    read_device,
    read_dtype,
    read_float,
    take,
    tensor_result,
)
from .records import decode_record, encode_record, known_record
from .sequences import call_encoder, partial_decoder, values_decoder
from .values import (
    LARGE,
    MAX_VALUES,
    ByteSource,
    FunctionHandle,
    ModuleHandle,
    ObjectHandle,
    PendingBytes,
    TensorResult,
)

Buffer = Union[bytes, bytearray, memoryview]
Buffers = List[Buffer]

# Each module makes its own: methods of imported names are called 40 ns slower (Python 3.11).
_FRAME = struct.Struct("<Qi")
_I32 = struct.Struct("<i")
_INT = struct.Struct("<iq")
_FLOAT = struct.Struct("<id")
_HANDLE = struct.Struct("<iQ")
_DTYPE = struct.Struct("<iBBHi")
_DEVICE = struct.Struct("<iii")
_OBJECT = struct.Struct("<iIQ")
_OBJECT_BODY = struct.Struct("<IQ")
_TWO_INDICES = struct.Struct("<ii")
_FREE = struct.Struct("<QiiiQ")
_RETURN_HANDLE = struct.Struct("<QiiiQ")
_RETURN_INT = struct.Struct("<Qiiiqiq")
_RETURN_INT_TAIL = struct.Struct("<iiqiq")
_RETURN_BYTES = struct.Struct("<QiiiqiQ")

_RETURN_NONE_TAIL = b"\2\0\0\0\1\0\0\0" + bytes(12)
_RETURN_NONE = struct.pack("<Qi", 24, 4) + _RETURN_NONE_TAIL


# Encoding


def _encode_none(value: None) -> bytes:
    return b"\0\0\0\0"


def _encode_int(value: int) -> bytes:
    if not -INT64 <= value < INT64:
        raise no_such_int(value)
    return _INT.pack(TypeIndex.INT, value)


def _encode_text(value: str) -> bytes:
    text = _utf8(value)
    if b"\0" in text:  # as an object it would be whole, but TVM 0.21 does not know its index
        raise nul_in_text(value)
    return _HANDLE.pack(TypeIndex.RAW_STR, len(text)) + text


def _utf8(value: str) -> bytes:
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise no_such_text(value) from None


def _encode_bytes(value: Buffer) -> bytes:
    """As 0.21 sends them: of the forms of bytes, the one that the servers of all versions read."""
    return _HANDLE.pack(TypeIndex.BYTE_ARRAY_PTR, len(value)) + value


_ENCODERS: Dict[type, Callable[[Any], bytes]] = {
    type(None): _encode_none,
    bool: lambda value: _INT.pack(2, value),
    int: _encode_int,
    float: lambda value: _FLOAT.pack(3, value),
    OpaquePointer: lambda value: _HANDLE.pack(4, value),
    DataType: lambda value: _DTYPE.pack(5, value.code, value.bits, value.lanes, 0),
    Device: lambda value: _DEVICE.pack(6, *value),
    TensorRecord: lambda value: b"\7\0\0\0" + (value.encoded or encode_record(value)),
    str: _encode_text,
    bytes: _encode_bytes,
    bytearray: _encode_bytes,
    FunctionHandle: lambda value: _HANDLE.pack(68, value),
    ModuleHandle: lambda value: _HANDLE.pack(73, value),
    ObjectHandle: lambda value: _OBJECT.pack(115, 115, value),
}


def encode_values(
    values: Sequence[Any], translate: Optional[Callable[[Any], Any]] = None
) -> Buffers:
    """A packed sequence as buffers; long byte strings are passed through, not copied.

    Args:
        translate: asked for what stands for a value of a type that is not the protocol's.

    Raises:
        LocalProtocolError: a value is of a kind that the protocol cannot carry.
    """
    __tracebackhide__ = True
    buffers: Buffers = []
    pieces: List[Buffer] = [_I32.pack(len(values))]
    for value in values:
        encoder = _ENCODERS.get(type(value))
        if encoder is None and translate is not None:
            value = translate(value)
            encoder = _ENCODERS.get(type(value))
        if encoder is not None:
            if encoder is _encode_bytes and len(value) >= LARGE:
                pieces.append(_HANDLE.pack(TypeIndex.BYTE_ARRAY_PTR, len(value)))
                buffers += (b"".join(pieces), memoryview(value))
                pieces = []
            else:
                try:
                    pieces.append(encoder(value))
                except struct.error:
                    raise out_of_range(value) from None
        elif isinstance(value, memoryview):
            flat = value.cast("B")
            pieces.append(_HANDLE.pack(TypeIndex.BYTE_ARRAY_PTR, len(flat)))
            buffers += (b"".join(pieces), flat)
            pieces = []
        else:
            raise no_such_value(value)
    if pieces:
        buffers.append(b"".join(pieces))
    return buffers


encode_call = call_encoder(encode_values, TypeIndex.INT)


def encode_request(code: int, values: Sequence[Any]) -> bytes:
    """A packet of this code whose body is a packed sequence of short values, and nothing else."""
    pieces = [_I32.pack(len(values))]
    for value in values:
        kind = type(value)
        try:
            if kind is Device:
                pieces.append(_DEVICE.pack(6, value[0], value[1]))
            elif kind is OpaquePointer:
                pieces.append(_HANDLE.pack(4, value))
            elif kind in _ENCODERS:
                pieces.append(_ENCODERS[kind](value))
            else:
                encode_values(values)  # which says what cannot be sent
        except struct.error:
            raise out_of_range(value) from None
    body = b"".join(pieces)
    return _FRAME.pack(4 + len(body), code) + body


def encode_free(handle: int, kind: type) -> bytes:
    """A FreeHandle packet; a handle of this dialect does not tell its kind."""
    return _FREE.pack(20, 10, 1, 4, handle)


def encode_return(value: Any) -> bytes:
    """A Return packet of one short value: the answer to a syscall."""
    if type(value) is OpaquePointer:
        return _RETURN_HANDLE.pack(20, 4, 1, 4, value)
    return encode_request(RPCCode.RETURN, (value,))


def encode_result(value: Any) -> Union[bytes, Buffers]:
    """A Return packet for the result of a function: the result's kind, then the result."""
    if value is None:
        return _RETURN_NONE
    kind = type(value)
    if kind is int and -INT64 <= value < INT64:
        return _RETURN_INT.pack(32, 4, 2, 1, 1, 1, value)
    if kind is bytes or kind is bytearray or kind is ByteSource:
        nbytes = value.nbytes if kind is ByteSource else len(value)
        head = _RETURN_BYTES.pack(
            32 + nbytes, 4, 2, 1, 12 if nbytes <= 7 else 66, TypeIndex.BYTE_ARRAY_PTR, nbytes
        )
        if kind is ByteSource:
            return head
        return head + value if nbytes < LARGE else [head, value]
    body = _result_values(value)
    return _FRAME.pack(4 + len(body), RPCCode.RETURN) + body


def _result_values(value: Any) -> bytes:
    kind = type(value)
    if kind is TensorResult:
        # kind 7 is accepted by clients of every version, 70 and 72 are not
        return (
            b"\3\0\0\0" + _INT.pack(1, 7) + _ENCODERS[TensorRecord](value.record)
        ) + _HANDLE.pack(TypeIndex.OPAQUE_PTR, value.handle)
    encoder = _ENCODERS.get(kind)
    if encoder is None:
        raise no_such_result(value)
    if kind is str and "\0" in value:  # which only an object keeps
        text = _utf8(value)
        head = _OBJECT.pack(TypeIndex.STR, TypeIndex.STR, len(text))
        return b"\2\0\0\0" + _INT.pack(1, TypeIndex.STR) + head + text
    encoded = encoder(value)
    if kind is str:
        index = TypeIndex.SMALL_STR if len(encoded) - _HANDLE.size <= 7 else TypeIndex.STR
    elif kind in (FunctionHandle, ModuleHandle, ObjectHandle):
        index = _RESULT_HANDLES[kind]
        encoded = _HANDLE.pack(TypeIndex.OPAQUE_PTR, value)
    else:
        index = TypeIndex(_I32.unpack_from(encoded)[0])
    return b"\2\0\0\0" + _INT.pack(1, index) + encoded


_RESULT_HANDLES = {
    FunctionHandle: TypeIndex.FUNCTION,
    ModuleHandle: TypeIndex.MODULE,
    ObjectHandle: TypeIndex.SHAPE,
}


# Decoding


def _read_object_text(buffer: Buffer, offset: int, end: int) -> Tuple[Any, int]:
    """Strings and bytes that travel as objects: inner type index, length, bytes."""
    inner, nbytes = _OBJECT_BODY.unpack_from(buffer, offset)
    offset += 12
    taken = take(buffer, offset, nbytes, end)
    if inner == TypeIndex.STR:
        return str(taken, "utf-8", "surrogateescape"), offset + nbytes
    if inner == TypeIndex.BYTES:
        return bytes(taken), offset + nbytes
    raise RemoteProtocolError(f"an object of type index {inner} where a string was announced")


def _read_object(buffer: Buffer, offset: int, end: int) -> Tuple[Any, int]:
    inner, handle = _OBJECT_BODY.unpack_from(buffer, offset)
    if inner != TypeIndex.RPC_OBJECT_REF:
        raise RemoteProtocolError(
            f"an object of type index {inner} where a reference was announced"
        )
    return ObjectHandle(handle), offset + 12


def _read_object_of_0_21(buffer: Buffer, offset: int, end: int) -> Tuple[Any, int]:
    """A reference under another index than 115; as with all objects, it stands there twice.

    The index is the fourth behind those of TVM's own objects, of which 0.21 had fewer.
    """
    outer, inner = _TWO_INDICES.unpack_from(buffer, offset - 4)
    if inner != outer:
        raise _unknown(outer)
    return ObjectHandle(_OBJECT_BODY.unpack_from(buffer, offset)[1]), offset + 12


def _read_unknown(buffer: Buffer, offset: int, end: int) -> NoReturn:
    raise _unknown(_I32.unpack_from(buffer, offset - 4)[0])


def _unknown(index: int) -> RemoteProtocolError:
    return RemoteProtocolError(f"a value of unknown type index {index}")


_READERS: Dict[int, Callable[[Buffer, int, int], Tuple[Any, int]]] = {
    TypeIndex.FLOAT: read_float,
    TypeIndex.DATA_TYPE: read_dtype,
    TypeIndex.DEVICE: read_device,
    TypeIndex.DL_TENSOR_PTR: decode_record,
    TypeIndex.SMALL_STR: _read_object_text,
    TypeIndex.SMALL_BYTES: _read_object_text,
    TypeIndex.STR: _read_object_text,
    TypeIndex.BYTES: _read_object_text,
    **dict.fromkeys(range(TypeIndex.MODULE + 1, 128), _read_object_of_0_21),
    TypeIndex.RPC_OBJECT_REF: _read_object,
}
_RESOLVED = frozenset(
    (TypeIndex.DEVICE, TypeIndex.DL_TENSOR_PTR, *range(TypeIndex.MODULE + 1, 128))
)
_HANDLE_KINDS: Dict[int, Callable[[int], Any]] = {
    TypeIndex.OPAQUE_PTR: OpaquePointer,
    TypeIndex.FUNCTION: FunctionHandle,
    TypeIndex.MODULE: ModuleHandle,
}


def _pending_object(
    buffer: Buffer, offset: int, end: int, packet_end: int
) -> Optional[PendingBytes]:
    """The bytes that travel as an object, if they fill the packet, which has not arrived yet."""
    inner, nbytes = _OBJECT_BODY.unpack_from(buffer, offset)
    start = offset + 12
    if start > end:  # what was read are stale bytes
        return None
    is_last = inner == TypeIndex.BYTES and start + nbytes == packet_end
    return PendingBytes(start, nbytes) if is_last else None


def _decode(
    buffer: Buffer,
    offset: int,
    end: int,
    packet_end: int,
    known: Optional[Dict[bytes, Any]] = None,
    resolve: Optional[Callable[[Any], Any]] = None,
) -> Tuple[List[Any], int, Optional[PendingBytes]]:
    values: List[Any] = []
    try:  # in one function, however long: a call costs as much as a value
        (count,) = _I32.unpack_from(buffer, offset)
        if not 0 <= count <= MAX_VALUES:
            raise no_such_count(count)
        offset += 4
        for position in range(count):
            if end - offset < 12:
                if end - offset < 4 or _I32.unpack_from(buffer, offset)[0]:
                    raise lost(offset, end, 12)
                values.append(None)
                offset += 4
                continue
            index, word = _INT.unpack_from(buffer, offset)
            if index == 1:
                values.append(word)
                offset += 12
            elif index == 8 or index == 9:
                offset += 12
                if index == 9 and position == count - 1 and end < packet_end == offset + word:
                    return values, offset, PendingBytes(offset, word)
                taken = take(buffer, offset, word, end)
                value = str(taken, "utf-8", "surrogateescape") if index == 8 else bytes(taken)
                values.append(value)
                offset += word
            elif index == 7 and known is not None:
                value, offset = known_record(buffer, offset + 4, end, known, resolve)
                values.append(value)
            elif index == 0:
                values.append(None)
                offset += 4
            elif index == 2:
                values.append(word != 0)
                offset += 12
            elif index in _HANDLE_KINDS:
                value = _HANDLE_KINDS[index](word & UINT64)
                values.append(value if resolve is None or index == 4 else resolve(value))
                offset += 12
            else:
                reader = _READERS.get(index, _read_unknown)
                if packet_end > end and position == count - 1 and reader is _read_object_text:
                    pending = _pending_object(buffer, offset + 4, end, packet_end)
                    if pending is not None:
                        return values, pending.offset, pending
                value, offset = reader(buffer, offset + 4, end)
                if offset > end:
                    raise lost(offset, end, 8)
                values.append(resolve(value) if resolve and index in _RESOLVED else value)
    except struct.error:
        raise lost(offset, end, 12) from None
    return values, offset, None


decode_values = values_decoder(_decode, TypeIndex.INT, TypeIndex.OPAQUE_PTR)
decode_values_before = partial_decoder(_decode)


def decode_result(buffer: Buffer, offset: int, end: int) -> Any:
    """The result in a Return packet that answers CallFunc.

    Raises:
        RemoteProtocolError: the body is no result.
    """
    if end - offset == 28:
        count, _, kind, index, word = _RETURN_INT_TAIL.unpack_from(buffer, offset)
        if kind == 1 and index == 1 and count == 2:
            return word
    elif end - offset == 20 and buffer[offset:end] == _RETURN_NONE_TAIL:
        return None
    return result_of(decode_values(buffer, offset, end))


def result_of(values: List[Any]) -> Any:
    """The result that these values of a Return packet stand for."""
    if not values or type(values[0]) is not int:
        raise no_kind()
    kind = values[0]
    if len(values) == 1 or kind == TypeIndex.NONE:
        return None
    value = values[1]
    if kind in (TypeIndex.TENSOR, TypeIndex.DL_TENSOR_PTR, 72) and type(value) is TensorRecord:
        return tensor_result(values)
    if type(value) is OpaquePointer:
        if kind == TypeIndex.FUNCTION:
            return FunctionHandle(value)
        if kind == TypeIndex.MODULE:
            return ModuleHandle(value)
        if kind >= TypeIndex.OBJECT:
            return ObjectHandle(value)
    return value
