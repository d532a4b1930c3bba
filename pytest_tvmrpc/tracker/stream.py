"""Streams of bytes on an asyncio loop. Knows no messages.

Not asyncio's own transports: those make a task for each new connection, and a buffer for each read.
A farm that connects at once is let in twice as fast without, and a match takes two thirds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    import asyncio
    import socket

MAX_UNSENT = 65536
"""A peer that has more than this yet to read is choked: nothing more is read from it."""

CLOSE_LIMIT_S = 10.0
"""How long a peer may take to read the last words when we have closed."""

# What comes is taken at once, so that one buffer does for everybody.
_buffer = memoryview(bytearray(65536))


class Stream:
    """One connection; what it does with what comes is a subclass's.

    Args:
        connection: owned.

    Attributes:
        is_closing: whether nothing more is read or taken.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
        self.is_closing = False
        self._loop = loop
        self._connection = connection
        self._unsent = bytearray()
        self._is_reading = True
        self._is_choked = False
        self._close_limit: Optional[asyncio.TimerHandle] = None
        connection.setblocking(False)
        loop.add_reader(connection.fileno(), self._readable)

    def received(self, received: bytes) -> None:
        """Some bytes came."""
        raise NotImplementedError

    def drained(self) -> None:
        """The peer has read so much that it is no longer choked."""
        raise NotImplementedError

    def ended(self) -> None:
        """The peer, or we, have ended it; called once, and maybe before the last bytes are out."""
        raise NotImplementedError

    @property
    def is_choked(self) -> bool:
        """Whether the peer has too much yet to read."""
        return self._is_choked

    @property
    def unsent_bytes(self) -> int:
        """How much the peer has yet to read, besides what the kernel keeps."""
        return len(self._unsent)

    def write(self, content: bytes) -> None:
        """Send, or keep what the kernel does not take."""
        if self.is_closing:
            return
        sent = 0
        if not self._unsent:
            try:
                sent = self._connection.send(content)
            except BlockingIOError:
                pass
            except OSError:
                self.abort()
                return
            if sent == len(content):
                return
            self._loop.add_writer(self._connection.fileno(), self._writable)
        self._unsent += content[sent:]
        if len(self._unsent) > MAX_UNSENT:
            self._is_choked = True
            self.pause_reading()

    def pause_reading(self) -> None:
        """Read nothing until `resume_reading`."""
        if self._is_reading:
            self._is_reading = False
            self._loop.remove_reader(self._connection.fileno())

    def resume_reading(self) -> None:
        """Read on, unless the peer is choked or the connection closing."""
        if not (self._is_reading or self._is_choked or self.is_closing):
            self._is_reading = True
            self._loop.add_reader(self._connection.fileno(), self._readable)

    def close(self) -> None:
        """Read nothing more; the end comes when the peer has taken what is unsent, or soon."""
        if self.is_closing:
            return
        self.pause_reading()
        self.is_closing = True
        if self._unsent:
            self._close_limit = self._loop.call_later(CLOSE_LIMIT_S, self.abort)
        else:
            self._connection.close()
        self.ended()

    def abort(self) -> None:
        """Cut the connection now; may be called twice."""
        if self._connection.fileno() < 0:
            return
        self.pause_reading()
        self._drop_unsent()
        self._connection.close()
        if self._close_limit is not None:
            self._close_limit.cancel()
        if not self.is_closing:
            self.is_closing = True
            self.ended()

    def _readable(self) -> None:
        try:
            size = self._connection.recv_into(_buffer)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.abort()
            return
        if size:
            self.received(bytes(_buffer[:size]))
        else:
            self.close()

    def _writable(self) -> None:
        try:
            del self._unsent[: self._connection.send(self._unsent)]
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.abort()
            return
        if not self._unsent:
            self._drop_unsent()
            if self.is_closing:
                self.abort()
        if self._is_choked and len(self._unsent) <= MAX_UNSENT // 4:
            self._is_choked = False
            if not self.is_closing:
                self.drained()

    def _drop_unsent(self) -> None:
        self._unsent.clear()
        self._loop.remove_writer(self._connection.fileno())
