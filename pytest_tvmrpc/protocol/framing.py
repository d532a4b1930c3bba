"""Cutting the data plane's byte stream into packets; large ones come head first. No I/O.

Strategy: the owner receives into `room()`, says how much came with `received()`, and asks
`next_packet()` until it returns None. A packet that fits the buffer is handed out whole, as
offsets into `buffer`, valid until the next `room()`. Of a larger one only the head is handed out
and `missing` says how many bytes follow: the owner receives those wherever they belong, so that a
tensor is copied once (measured for 64 MB: 1.8 GB/s, through a buffer 0.2).
"""

from __future__ import annotations

import struct
from typing import Optional, Tuple

from ..errors import RemoteProtocolError

CAPACITY = 64 * 1024
"""Bytes of the buffer, and of the largest packet that is handed out whole."""

HEAD = 4096
"""Bytes of a larger packet that are there before its head is handed out."""

MAX_PACKET = 1 << 38
"""Bytes a length field may claim; memory is only taken for what arrives."""

_FRAME = struct.Struct("<Qi")
_LENGTH = struct.Struct("<Q")


class PacketReader:
    """The receiving half of one connection.

    Attributes:
        filled: where the bytes end that were received and not handed out; 0 when there are none.
        buffer: the bytes in which `next_packet` gives offsets.
        view: the whole buffer, for receiving when nothing is left in it.
        missing: how many bytes of the packet handed out last have not been received; the owner
            receives exactly these before it asks for anything else, then sets this to 0.
    """

    __slots__ = ("_start", "buffer", "filled", "missing", "view")

    def __init__(self) -> None:
        self.buffer = bytearray(CAPACITY)
        self.missing = 0
        self.view = memoryview(self.buffer)
        self._start = 0
        self.filled = 0

    def room(self) -> memoryview:
        """Where the next bytes go; invalidates the offsets handed out before."""
        if not self.filled:
            return self.view
        if self._start:
            rest = self.filled - self._start
            self.view[:rest] = bytes(self.view[self._start : self.filled])
            self._start, self.filled = 0, rest
        return self.view[self.filled :]

    def only_packet(self, nbytes: int) -> int:
        """The code of the packet that these bytes, received into an empty buffer, just are.

        -1 if they are more, or less: then call `received`, and `next_packet` as ever. It is for a
        receive into `view` while nothing is `filled`. The body
        is at 12 up to `nbytes`. The usual case, made cheap.
        """
        if nbytes >= 12:
            claimed, code = _FRAME.unpack_from(self.buffer, 0)
            if claimed + 8 == nbytes:
                return code  # type: ignore[no-any-return]
        return -1

    def received(self, nbytes: int) -> None:
        """So many bytes were put into the room."""
        self.filled += nbytes

    @property
    def is_between_packets(self) -> bool:
        """Whether nothing of a next packet has arrived: the only place for a clean end."""
        return not self.filled and not self.missing

    @property
    def unread(self) -> bytes:
        """What was received and not handed out."""
        return bytes(self.view[self._start : self.filled])

    def next_packet(self) -> Optional[Tuple[int, int, int]]:
        """Code, start and end of the next packet's body; None until more bytes are there.

        Raises:
            RemoteProtocolError: the length is one that no packet has.
        """
        start = self._start
        have = self.filled - start
        if have < 12:
            return self._next_after_empty() if have >= 8 else None
        nbytes, code = _FRAME.unpack_from(self.buffer, start)
        if nbytes < 4:
            return self._next_after_empty()
        stop = start + 8 + nbytes
        if stop < self.filled:
            self._start = stop
            return code, start + 12, stop
        if stop == self.filled:
            self._start = self.filled = 0
            return code, start + 12, stop
        if nbytes + 8 <= CAPACITY:
            return None
        if nbytes > MAX_PACKET:
            raise RemoteProtocolError(f"a packet of {nbytes} bytes; at most {MAX_PACKET} can be")
        if have < HEAD:
            return None
        end = self.filled
        self.missing = stop - end
        self._start = self.filled = 0
        return code, start + 12, end

    def _next_after_empty(self) -> Optional[Tuple[int, int, int]]:
        """Packets of no bytes are legal anywhere, and say nothing."""
        while self.filled - self._start >= 8:
            (nbytes,) = _LENGTH.unpack_from(self.buffer, self._start)
            if nbytes >= 4:
                return self.next_packet() if self.filled - self._start >= 12 else None
            if nbytes:
                raise RemoteProtocolError(f"a packet of {nbytes} bytes; at least 4 are its code")
            self._start += 8
            if self._start == self.filled:
                self._start = self.filled = 0
        return None
