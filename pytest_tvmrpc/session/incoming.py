"""Packets as they come in, and the rest of a large one. Both ends receive through this.

Who owns an `Incoming` takes packets from its reader, and receives what is `missing` of one before
anything else. Memory for the rest is the owner's, or taken for what has arrived.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Union

from ..errors import ConnectionLostError
from ..protocol.framing import PacketReader

if TYPE_CHECKING:
    from .channel import SocketChannel

Buffer = Union[bytes, bytearray, memoryview]

_BLOCK = 1 << 20
"""Bytes of one receive and one write of an upload (64 MiB: 1.2 GB/s; with 256 KiB 1.05)."""


LAST_NBYTES = 16 * 1024
"""What is missing of an answer, at least, when a server says at its end why there is no more."""


class Incoming:
    """The receiving half of a connection.

    Args:
        channel: receives the bytes.

    Attributes:
        reader: finds the packets; the flat paths of both ends work on it.
        is_broken: whether a receive failed within a packet: nothing can be told apart any more.
    """

    __slots__ = ("_tail", "channel", "is_broken", "reader")

    def __init__(self, channel: SocketChannel) -> None:
        self.channel = channel
        self.reader = PacketReader()
        self.is_broken = False
        self._tail = b""

    @property
    def last_bytes(self) -> bytes:
        """What came last of a packet that has no end."""
        return self.reader.unread or self._tail

    def body(self, start: int, end: int) -> Buffer:
        """The body whose head has these bounds, with all that is missing of it."""
        reader = self.reader
        if not reader.missing:
            return bytes(reader.buffer[start:end])
        self._tail = bytes(reader.buffer[start:end])
        collected = bytearray(reader.buffer[start:end])
        self.rest_to(collected.extend)
        return memoryview(collected)

    def fill(self, target: memoryview, start: int, end: int) -> None:
        """Fills the target with these bytes of the head and what is missing, which it just fits.

        The rest comes straight from the kernel.
        """
        here = end - start
        reader, progress = self.reader, self.channel.progress
        target[:here] = reader.view[start:end]
        self._tail = bytes(reader.view[start:end]) if reader.missing else b""
        rest, total = target[here:], reader.missing
        while reader.missing:
            received = self._receive(rest)
            self._remember(rest[:received])
            rest = rest[received:]
            if progress is not None:
                progress(total - reader.missing, total)

    def rest_to(self, take: Callable[[memoryview], object]) -> None:
        """Receives what is missing in parts; an error of `take` leaves the count right."""
        reader, progress = self.reader, self.channel.progress
        if not reader.missing:
            return
        total = reader.missing
        block = memoryview(bytearray(min(total, _BLOCK)))
        while reader.missing:
            part = block[: min(reader.missing, len(block))]
            part = part[: self._receive(part)]
            self._remember(part)
            take(part)
            if progress is not None:
                progress(total - reader.missing, total)

    def _remember(self, part: memoryview) -> None:
        """Keeps the last bytes, as an end without the rest may say why."""
        if not self.reader.missing:  # this one has its end
            self._tail = b""
        elif len(part) >= LAST_NBYTES:
            self._tail = bytes(part[-LAST_NBYTES:])
        else:
            self._tail = (self._tail + part)[-LAST_NBYTES:]

    def _receive(self, target: memoryview) -> int:
        """Receives some of what is missing.

        Raises:
            OSError: the connection is gone; `SocketChannel.lost` translates it.
        """
        try:
            received = self.channel.recv_into(target)
        except BaseException:
            self.is_broken = True
            raise
        if not received:
            self.is_broken = True
            raise ConnectionLostError(f"{self.channel.peer} closed the connection within a packet")
        self.reader.missing -= received
        return received
