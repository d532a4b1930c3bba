"""What every dialect does with its packed sequences. How one is written or read, it says itself.

Each function here makes one of a dialect, once, out of those that differ and the codes of an
integer and of a pointer. To be one of an inner function is no slower than to be one of a module.
"""

from __future__ import annotations

import struct
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

from ..dlpack import OpaquePointer
from ..errors import RemoteProtocolError
from .fields import INT64, UINT64, left_over
from .values import PendingBytes

Buffer = Union[bytes, bytearray, memoryview]
Buffers = List[Buffer]

_CALL = struct.Struct("<QiQ")
_CALL_INT = struct.Struct("<QiQiiq")
_ONE_WORD = struct.Struct("<iiq")


def call_encoder(
    encode_values: Callable[..., Buffers], int_code: int
) -> Callable[..., Union[bytes, Buffers]]:
    """`encode_call` of a dialect: the commonest packet of all has a path of its own."""
    code = int(int_code)  # an IntEnum is packed more slowly

    def encode_call(
        handle: int, values: Sequence[Any], translate: Optional[Callable[[Any], Any]] = None
    ) -> Union[bytes, Buffers]:
        """A CallFunc packet; one bytes object, unless a long byte string is in it."""
        __tracebackhide__ = True
        if len(values) == 1 and type(values[0]) is int and -INT64 <= values[0] < INT64:
            return _CALL_INT.pack(28, 3, handle, 1, code, values[0])
        body = encode_values(values, translate)
        if len(body) == 1:
            return _CALL.pack(12 + len(body[0]), 3, handle) + body[0]
        return [_CALL.pack(12 + sum(map(len, body)), 3, handle), *body]

    return encode_call


Decode = Callable[..., Tuple[List[Any], int, Optional[PendingBytes]]]
"""Reads a sequence in a buffer from an offset to an end, in a packet that may end later.

Two more arguments are `known` and `resolve` of `decode_values`. Returns the values, the offset
behind them, and what is yet to come of the last one.
"""


def values_decoder(decode: Decode, int_code: int, pointer_code: int) -> Callable[..., List[Any]]:
    """`decode_values` of a dialect: one integer, or one pointer, is read at once."""
    integer, pointer = int(int_code), int(pointer_code)

    def decode_values(
        buffer: Buffer,
        offset: int,
        end: int,
        known: Optional[Dict[bytes, Any]] = None,
        resolve: Optional[Callable[[Any], Any]] = None,
    ) -> List[Any]:
        """The values of the packed sequence at `offset`, which must fill the packet up to `end`.

        Args:
            known: what came of tensor records before, by their bytes; see `known_record`.
            resolve: makes of a handle, a device or a tensor record what stands in its place.

        Raises:
            RemoteProtocolError: the bytes are no sequence of this dialect.
        """
        if end - offset == 16:
            count, code, word = _ONE_WORD.unpack_from(buffer, offset)
            if count == 1 and code == integer:
                return [word]
            if count == 1 and code == pointer:
                return [OpaquePointer(word & UINT64)]
        values, offset, pending = decode(buffer, offset, end, end, known, resolve)
        if offset != end or pending is not None:
            raise left_over(offset, end)
        return values

    return decode_values


def partial_decoder(
    decode: Decode,
) -> Callable[[Buffer, int, int, int], Tuple[List[Any], Optional[PendingBytes]]]:
    """`decode_values_before` of a dialect."""

    def decode_values_before(
        buffer: Buffer, offset: int, end: int, packet_end: int
    ) -> Tuple[List[Any], Optional[PendingBytes]]:
        """The values of a sequence whose packet has arrived up to `end`, and goes on.

        The second result describes a byte string that is the last value and fills the packet up
        to `packet_end`; None when the sequence has another form, and has to be collected before
        it can be read.
        """
        try:
            values, _, pending = decode(buffer, offset, end, packet_end)
        except RemoteProtocolError:  # cut within a value; if it is worse, the packet shows it
            return [], None
        return values, pending

    return decode_values_before
