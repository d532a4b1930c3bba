"""The dialect of TVM 0.8 to 0.20: in a packed sequence, all type codes stand before the values.

Strategy: as in `ffi`, with the same functions; what is the same in both is in `fields`. The steps
within these versions need no setting, since one form of each value is read by all of them: a
boolean goes out as an integer, which is what it was up to 0.17, and a tensor that is returned as
kind 7.
"""

from __future__ import annotations

import struct
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

from ..data_type import DataType, DataTypeCode, from_legacy
from ..dlpack import Device, OpaquePointer, TensorRecord
from ..errors import RemoteProtocolError
from .codes import LEGACY_OBJECT_REF, ArgTypeCode, RPCCode
from .fields import (
    INT64,
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
    tensor_result,
)
from .records import decode_legacy_record, encode_legacy_record, known_record, legacy_dtype
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
_I64 = struct.Struct("<q")
_U64 = struct.Struct("<Q")
_F64 = struct.Struct("<d")
_DTYPE = struct.Struct("<BBHi")
_DEVICE = struct.Struct("<ii")
_OBJECT = struct.Struct("<IQ")
_FREE = struct.Struct("<QiiiiQq")
_RETURN_HANDLE = struct.Struct("<QiiiQ")
_RETURN_INT = struct.Struct("<Qiiiiqq")
_RETURN_INT_TAIL = struct.Struct("<iiiqq")
_RETURN_BYTES = struct.Struct("<QiiiiqQ")
_RESULT_HEAD = struct.Struct("<iiiq")
_TENSOR_HEAD = struct.Struct("<iiiiq")

_RETURN_NONE_TAIL = struct.pack("<iiiq", 2, 0, 4, 4)
_RETURN_NONE = struct.pack("<Qi", 24, 4) + _RETURN_NONE_TAIL

_CODES = [struct.Struct(f"<{count}i") for count in range(17)]
"""The codes of a sequence of so many values; longer ones are rare."""


# Encoding


def _encode_int(value: int) -> bytes:
    if not -INT64 <= value < INT64:
        raise no_such_int(value)
    return _I64.pack(value)


def _encode_text(value: str) -> bytes:
    try:
        text = value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise no_such_text(value) from None
    if b"\0" in text:
        raise nul_in_text(value)
    return _U64.pack(len(text)) + text


def _encode_bytes(value: Buffer) -> bytes:
    return _U64.pack(len(value)) + value


def _encode_dtype(dtype: DataType) -> bytes:
    dtype = legacy_dtype(dtype)
    return _DTYPE.pack(dtype.code, dtype.bits, dtype.lanes, 0)


_FLOAT8 = {DataTypeCode.BOOL: "e4m3_float8", DataTypeCode.FLOAT8_E3M4: "e5m2_float8"}
"""What these two numbers were called; they mean something else now."""


def _encode_dtype_text(dtype: DataType) -> bytes:
    """As an argument: TVM's own clients sent the text, and functions expect that."""
    dtype = legacy_dtype(dtype)
    name = _FLOAT8.get(DataTypeCode(dtype.code)) if dtype.code in _FLOAT8 else None
    if name is None:
        return _encode_text(str(dtype))
    return _encode_text(name if dtype.lanes == 1 else f"{name}x{dtype.lanes}")


_Encoder = Tuple[bytes, Callable[[Any], bytes]]


def _entry(code: ArgTypeCode, encode: Callable[[Any], bytes]) -> _Encoder:
    return _I32.pack(code), encode


_ENCODERS: Dict[type, _Encoder] = {
    type(None): _entry(ArgTypeCode.NULL, lambda value: b""),
    bool: _entry(ArgTypeCode.INT, _I64.pack),
    int: _entry(ArgTypeCode.INT, _encode_int),
    float: _entry(ArgTypeCode.FLOAT, _F64.pack),
    OpaquePointer: _entry(ArgTypeCode.HANDLE, _U64.pack),
    DataType: _entry(ArgTypeCode.DATA_TYPE, _encode_dtype),
    Device: _entry(ArgTypeCode.DEVICE, lambda value: _DEVICE.pack(value[0], value[1])),
    TensorRecord: _entry(ArgTypeCode.DL_TENSOR, encode_legacy_record),
    str: _entry(ArgTypeCode.STR, _encode_text),
    bytes: _entry(ArgTypeCode.BYTES, _encode_bytes),
    bytearray: _entry(ArgTypeCode.BYTES, _encode_bytes),
    FunctionHandle: _entry(ArgTypeCode.FUNCTION, _U64.pack),
    ModuleHandle: _entry(ArgTypeCode.MODULE, _U64.pack),
    ObjectHandle: _entry(ArgTypeCode.OBJECT, lambda value: _OBJECT.pack(LEGACY_OBJECT_REF, value)),
}
_ARGUMENTS: Dict[type, _Encoder] = {
    **_ENCODERS,
    DataType: _entry(ArgTypeCode.STR, _encode_dtype_text),
}
_BYTES = _I32.pack(ArgTypeCode.BYTES)


def encode_values(
    values: Sequence[Any], translate: Optional[Callable[[Any], Any]] = None
) -> Buffers:
    """The packed sequence of a call's arguments; long byte strings are passed through, not copied.

    Args:
        translate: asked for what stands for a value of a type that is not the protocol's.

    Raises:
        LocalProtocolError: a value is of a kind that this dialect cannot carry.
    """
    __tracebackhide__ = True
    codes = [_I32.pack(len(values))]
    pieces: List[bytes] = []
    long: List[Tuple[int, memoryview]] = []
    for value in values:
        entry = _ARGUMENTS.get(type(value))
        if entry is None and translate is not None:
            value = translate(value)
            entry = _ARGUMENTS.get(type(value))
        if entry is not None:
            code, encode = entry
            codes.append(code)
            if encode is _encode_bytes and len(value) >= LARGE:
                pieces.append(_U64.pack(len(value)))
                long.append((len(pieces), memoryview(value)))
            else:
                try:
                    pieces.append(encode(value))
                except struct.error:
                    raise out_of_range(value) from None
        elif isinstance(value, memoryview):
            flat = value.cast("B")
            codes.append(_BYTES)
            pieces.append(_U64.pack(len(flat)))
            long.append((len(pieces), flat))
        else:
            raise no_such_value(value)
    if not long:
        return [b"".join(codes + pieces)]
    return _interleaved(codes, pieces, long)


def _interleaved(
    codes: List[bytes], pieces: List[bytes], long: List[Tuple[int, memoryview]]
) -> Buffers:
    """The pieces joined, but for the long ones, each of which stands before the piece it names."""
    buffers: Buffers = []
    start, before = 0, codes
    for place, content in long:
        buffers += (b"".join(before + pieces[start:place]), content)
        start, before = place, []
    if start < len(pieces):
        buffers.append(b"".join(pieces[start:]))
    return buffers


encode_call = call_encoder(encode_values, ArgTypeCode.INT)


def encode_request(code: int, values: Sequence[Any]) -> bytes:
    """A packet of this code whose body is a packed sequence of short values, and nothing else."""
    codes = [_I32.pack(len(values))]
    pieces = []
    for value in values:
        entry = _ENCODERS.get(type(value))
        if entry is None:
            raise no_such_value(value)
        codes.append(entry[0])
        try:
            pieces.append(entry[1](value))
        except struct.error:
            raise out_of_range(value) from None
    body = b"".join(codes + pieces)
    return _FRAME.pack(4 + len(body), code) + body


_KINDS: Dict[type, ArgTypeCode] = {
    FunctionHandle: ArgTypeCode.FUNCTION,
    ModuleHandle: ArgTypeCode.MODULE,
    ObjectHandle: ArgTypeCode.OBJECT,
    TensorResult: ArgTypeCode.NDARRAY,
}


def encode_free(handle: int, kind: type) -> bytes:
    """A FreeHandle packet; the server is told of what kind the handle is, and needs it."""
    return _FREE.pack(32, 10, 2, 3, 0, handle, _KINDS[kind])


def encode_return(value: Any) -> bytes:
    """A Return packet of one short value: the answer to a syscall."""
    if type(value) is OpaquePointer:
        return _RETURN_HANDLE.pack(20, 4, 1, 3, value)
    return encode_request(RPCCode.RETURN, (value,))


def encode_result(value: Any) -> Union[bytes, Buffers]:
    """A Return packet for the result of a function: the result's kind, then the result."""
    if value is None:
        return _RETURN_NONE
    kind = type(value)
    if kind is int and -INT64 <= value < INT64:
        return _RETURN_INT.pack(32, 4, 2, 0, 0, 0, value)
    if kind is bytes or kind is bytearray or kind is ByteSource:
        nbytes = value.nbytes if kind is ByteSource else len(value)
        head = _RETURN_BYTES.pack(32 + nbytes, 4, 2, 0, 12, 12, nbytes)
        if kind is ByteSource:
            return head
        return head + value if nbytes < LARGE else [head, value]
    body = _result_values(value)
    return _FRAME.pack(4 + len(body), 4) + body


def _result_values(value: Any) -> bytes:
    kind = type(value)
    if kind is TensorResult:
        # kind 7 is accepted by clients of every version, of both dialects
        head = _TENSOR_HEAD.pack(3, 0, 7, 3, 7)
        return head + encode_legacy_record(value.record) + _U64.pack(value.handle)
    if kind in _KINDS:
        return _RESULT_HEAD.pack(2, 0, 3, _KINDS[kind]) + _U64.pack(value)
    entry = _ENCODERS.get(kind)
    if entry is None:
        raise no_such_result(value)
    (code,) = _I32.unpack(entry[0])
    return _RESULT_HEAD.pack(2, 0, code, code) + entry[1](value)


# Decoding


def _read_dtype(buffer: Buffer, offset: int, end: int) -> Tuple[Any, int]:
    dtype, offset = read_dtype(buffer, offset, end)
    return from_legacy(dtype), offset


def _read_bool(buffer: Buffer, offset: int, end: int) -> Tuple[Any, int]:
    return _I64.unpack_from(buffer, offset)[0] != 0, offset + 8


def _read_uint(buffer: Buffer, offset: int, end: int) -> Tuple[Any, int]:
    return _I64.unpack_from(buffer, offset)[0], offset + 8


def _read_object(buffer: Buffer, offset: int, end: int) -> Tuple[Any, int]:
    index, handle = _OBJECT.unpack_from(buffer, offset)
    offset += 12
    if offset <= end and index != LEGACY_OBJECT_REF:
        raise RemoteProtocolError(
            f"an object of type index {index} where a reference was announced"
        )
    return ObjectHandle(handle), offset


def _read_function(buffer: Buffer, offset: int, end: int) -> Tuple[Any, int]:
    return FunctionHandle(_U64.unpack_from(buffer, offset)[0]), offset + 8


def _read_module(buffer: Buffer, offset: int, end: int) -> Tuple[Any, int]:
    return ModuleHandle(_U64.unpack_from(buffer, offset)[0]), offset + 8


_READERS: Dict[int, Callable[[Buffer, int, int], Tuple[Any, int]]] = {
    ArgTypeCode.UINT: _read_uint,
    ArgTypeCode.FLOAT: read_float,
    ArgTypeCode.DATA_TYPE: _read_dtype,
    ArgTypeCode.DEVICE: read_device,
    ArgTypeCode.DL_TENSOR: decode_legacy_record,
    ArgTypeCode.OBJECT: _read_object,
    ArgTypeCode.MODULE: _read_module,
    ArgTypeCode.FUNCTION: _read_function,
    ArgTypeCode.BOOL: _read_bool,
}
_RESOLVED = frozenset((6, 7, 8, 9, 10))
"""The codes of devices, tensors, objects, modules and functions."""


def _read_codes(buffer: Buffer, offset: int, end: int) -> Tuple[Tuple[int, ...], int]:
    (count,) = _I32.unpack_from(buffer, offset)
    if not 0 <= count <= MAX_VALUES:
        raise no_such_count(count)
    offset += 4
    after = offset + 4 * count
    if after > end:
        raise lost(offset, end, 4 * count)
    form = _CODES[count] if count < 17 else struct.Struct(f"<{count}i")
    return form.unpack_from(buffer, offset), after


def _decode(
    buffer: Buffer,
    offset: int,
    end: int,
    packet_end: int,
    known: Optional[Dict[bytes, Any]] = None,
    resolve: Optional[Callable[[Any], Any]] = None,
) -> Tuple[List[Any], int, Optional[PendingBytes]]:
    values: List[Any] = []
    value: Any
    try:  # in one function, however long: a call costs as much as a value
        codes, offset = _read_codes(buffer, offset, end)
        for code in codes:
            if code == 7 and known is not None:
                value, offset = known_record(
                    buffer, offset, end, known, resolve, decode_legacy_record
                )
            elif code == 0:
                (value,) = _I64.unpack_from(buffer, offset)
                offset += 8
            elif code == 11 or code == 12:
                (nbytes,) = _U64.unpack_from(buffer, offset)
                offset += 8
                if nbytes > end - offset:
                    is_last = code == 12 and len(values) + 1 == len(codes)
                    if is_last and offset <= end and offset + nbytes == packet_end:
                        return values, offset, PendingBytes(offset, nbytes)
                    raise lost(offset, end, nbytes)
                taken = buffer[offset : offset + nbytes]
                offset += nbytes
                value = str(taken, "utf-8", "surrogateescape") if code == 11 else bytes(taken)
            elif code == 4:
                value = None
            elif code == 3:
                value = OpaquePointer(_U64.unpack_from(buffer, offset)[0])
                offset += 8
            else:
                reader = _READERS.get(code)
                if reader is None:
                    raise RemoteProtocolError(f"a value of unknown type code {code}")
                value, offset = reader(buffer, offset, end)
                if offset <= end and resolve is not None and code in _RESOLVED:
                    value = resolve(value)
            if offset > end:
                raise lost(offset - 8, end, 8)
            values.append(value)
    except struct.error:
        raise lost(offset, end, 8) from None
    return values, offset, None


decode_values = values_decoder(_decode, ArgTypeCode.INT, ArgTypeCode.HANDLE)
decode_values_before = partial_decoder(_decode)


def decode_result(buffer: Buffer, offset: int, end: int) -> Any:
    """The result in a Return packet that answers CallFunc.

    Raises:
        RemoteProtocolError: the body is no result.
    """
    if end - offset == 28:
        count, first, second, kind, word = _RETURN_INT_TAIL.unpack_from(buffer, offset)
        if not kind and not first and not second and count == 2:
            return word
    elif end - offset == 20 and buffer[offset:end] == _RETURN_NONE_TAIL:
        return None
    return result_of(decode_values(buffer, offset, end))


_RESULTS: Dict[int, Callable[[int], Any]] = {
    ArgTypeCode.FUNCTION: FunctionHandle,
    ArgTypeCode.MODULE: ModuleHandle,
    ArgTypeCode.OBJECT: ObjectHandle,
}


def result_of(values: List[Any]) -> Any:
    """The result that these values of a Return packet stand for."""
    if not values or type(values[0]) is not int:
        raise no_kind()
    kind = values[0]
    if len(values) == 1 or kind == ArgTypeCode.NULL:
        return None
    value = values[1]
    if kind in (ArgTypeCode.NDARRAY, ArgTypeCode.DL_TENSOR) and type(value) is TensorRecord:
        return tensor_result(values)
    if type(value) is OpaquePointer and kind in _RESULTS:
        return _RESULTS[kind](value)
    if kind == ArgTypeCode.BOOL and type(value) is int:
        return value != 0
    return value
