"""Bytes to and from the other machine over a socket, and their meter. Knows no protocol.

A channel blocks; the kernel's own timeouts bound each wait (see `network.set_kernel_timeouts`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
from typing import Any, Callable, List, Optional, Sequence, Union

from .. import network
from ..errors import ConnectionLostError, DeadlineError

Buffer = Union[bytes, bytearray, memoryview]

_AT_ONCE = 256 * 1024
"""Bytes for one write to a file: what fits the second-level cache is copied from there."""


_QUICKACK: Optional[int] = getattr(socket, "TCP_QUICKACK", None)
_AF_UNIX = getattr(socket, "AF_UNIX", None)

_FOREVER_S = 1_000_000.0

_JOINED = 4096
"""Bytes up to which joining buffers is cheaper than handing the kernel a list of them."""


def _too_slow() -> BlockingIOError:
    """The end of a wait with a limit, as the kernel says it at its own timeouts."""
    return BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


class Meter:
    """What went over one session: its calls, bytes and seconds.

    Attributes:
        calls: requests that were waited for.
        bytes_sent, bytes_received: bytes of packets.
        call_s: seconds spent in requests.
        device_s: seconds that ``time_evaluator`` measured on the device.
        upload_s: the part of `call_s` that uploads and downloads of files took.
        upload_nbytes: bytes of the files that were uploaded.
    """

    __slots__ = (
        *("bytes_received", "bytes_sent", "call_s", "calls", "device_s"),
        *("upload_nbytes", "upload_s"),
    )

    def __init__(self) -> None:
        self.calls = 0
        self.bytes_sent = 0
        self.bytes_received = 0
        self.call_s = 0.0
        self.device_s = 0.0
        self.upload_s = 0.0
        self.upload_nbytes = 0

    def __repr__(self) -> str:
        return (
            f"<Meter {self.calls} calls in {self.call_s:.3g} s, {self.bytes_sent} bytes sent, "
            f"{self.bytes_received} received>"
        )


class SocketChannel:
    """A connected blocking stream socket.

    Args:
        connection: the socket; the channel owns it from here on.
        peer: the other end's address as people write it, for messages.
        timeout_s: how long the peer may make no progress in a send or receive; None: for ever.
        timeout_argument: what sets it, for the message.

    Attributes:
        recv_into: the socket's own method; the hot path calls it without a step between.
        send_once: likewise ``send``; may send a part.
        progress: if set, is told the bytes so far and those in all while long contents go or come.
    """

    def __init__(
        self,
        connection: socket.socket,
        peer: str,
        timeout_s: Optional[float] = None,
        timeout_argument: str = "",
    ) -> None:
        self.connection = connection
        self.peer = peer
        self.recv_into: Callable[[memoryview], int] = connection.recv_into
        self.send_once: Callable[[Buffer], int] = connection.send
        self.progress: Optional[Callable[[int, int], object]] = None
        self.limit(timeout_s, timeout_argument)

    def limit(self, timeout_s: Optional[float], argument: str) -> None:
        """From now on the peer may make no progress for so long; `argument` sets it."""
        self.timeout_s = timeout_s
        self.timeout_argument = argument
        network.set_kernel_timeouts(self.connection, timeout_s, timeout_s)

    def send(self, buffers: Sequence[Buffer]) -> int:
        """Sends all of them, in as few system calls as the kernel allows; returns the bytes.

        Raises:
            OSError: translate it with `lost`.
        """
        total = sum(map(len, buffers))
        if total <= _JOINED or len(buffers) == 1:
            only = buffers[0] if len(buffers) == 1 else b"".join(buffers)
            sent = self.send_once(only)
            if sent != total:
                self.connection.sendall(memoryview(only)[sent:])
            return total
        try:
            if self.progress is not None and total > _AT_ONCE:
                self._send_in_steps(buffers, total, self.progress)
            else:
                self._send_long(buffers, total)
        except OSError as error:
            if error.errno != errno.EFAULT:
                raise
            # The peer waits for the rest, and so has no last words to wait for.
            raise ConnectionLostError(f"a file shrank while it was sent to {self.peer}") from error
        return total

    def _send_long(self, buffers: Sequence[Buffer], total: int) -> None:
        sent = self.connection.sendmsg(buffers)
        if sent == total:
            return
        rest: List[memoryview] = [memoryview(buffer) for buffer in buffers]
        while True:
            while rest and sent >= len(rest[0]):
                sent -= len(rest.pop(0))
            if not rest:
                return
            rest[0] = rest[0][sent:]
            sent = self.connection.sendmsg(rest)

    def _send_in_steps(
        self, buffers: Sequence[Buffer], total: int, progress: Callable[[int, int], object]
    ) -> None:
        sent = 0
        for buffer in buffers:
            content = memoryview(buffer)
            for start in range(0, len(content), _AT_ONCE):
                part = content[start : start + _AT_ONCE]
                self.connection.sendall(part)
                sent += len(part)
                progress(sent, total)

    def send_with_end(
        self, buffers: Sequence[Buffer], reserved: int, is_cut: Callable[[bool], object]
    ) -> None:
        """Sends buffers of which the last is long, and says when it would be cut off if we died.

        Args:
            reserved: bytes that are missing of the last buffer then, at least.
            is_cut: is told when that begins, and when it is over.

        Raises:
            OSError: translate it with `lost`.
        """
        last = memoryview(buffers[-1])
        before = sum(map(len, buffers)) - len(last)
        try:
            sent = self.connection.sendmsg(buffers, (), socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        if sent < before:
            self.connection.sendall(b"".join(buffers[:-1])[sent:])
        last = last[max(sent - before, 0) :]
        if len(last) > reserved:
            is_cut(True)
            self.connection.sendall(last[:-reserved])
            self._wait_for_room()
            is_cut(False)
            last = last[-reserved:]
        if len(last):
            self.connection.sendall(last)

    def _wait_for_room(self) -> None:
        """Waits until some more can be sent at once, as long as a send may take."""
        waiting = select.poll()
        waiting.register(self.connection, select.POLLOUT)
        if not waiting.poll(network.kernel_send_limit_ms(self.connection)):
            raise _too_slow()

    def send_rest(self, packet: bytes, sent: int) -> None:
        """Sends what `send_once` did not take.

        Raises:
            OSError: translate it with `lost`.
        """
        self.connection.sendall(memoryview(packet)[sent:])

    def send_now(self, buffer: Buffer) -> int:
        """Sends what the kernel takes without waiting, maybe nothing; the bytes sent.

        Raises:
            OSError: translate it with `lost`.
        """
        try:
            return self.connection.send(buffer, socket.MSG_DONTWAIT)
        except BlockingIOError as error:
            if network.is_interrupt(error):
                raise
            return 0

    def receive_now(self, target: memoryview) -> Optional[int]:
        """Receives what is there; None if nothing is, 0 if the peer has closed.

        Raises:
            OSError: translate it with `lost`.
        """
        try:
            return self.connection.recv_into(target, 0, socket.MSG_DONTWAIT)
        except BlockingIOError as error:
            if network.is_interrupt(error):
                raise
            return None

    def wait_until_ready(self) -> None:
        """Waits until something can be sent or received.

        Raises:
            OSError: translate it with `lost`.
        """
        waiting = select.poll()
        waiting.register(self.connection, select.POLLIN | select.POLLOUT)
        limit_s = min(self.timeout_s or _FOREVER_S, _FOREVER_S)  # poll() takes an int of C
        if not waiting.poll(limit_s * 1000):
            raise _too_slow()

    def send_file_with_end(
        self, file: Any, nbytes: int, reserved: int, is_cut: Callable[[bool], object]
    ) -> None:
        """Sends so many bytes of an open file; else as `send_with_end`."""
        most = nbytes - reserved
        if most > 0:
            is_cut(True)
            self.send_file(file, most)
            self._wait_for_room()
            is_cut(False)
        self.send_file(file, nbytes, max(most, 0))

    def send_file(self, file: Any, nbytes: int, offset: int = 0) -> None:
        """Sends an open file from there up to so many bytes, by the kernel's own copy."""
        while offset < nbytes:
            sent = os.sendfile(self.connection.fileno(), file.fileno(), offset, nbytes - offset)
            if not sent:
                raise ConnectionLostError(f"a file shrank while it was sent to {self.peer}")
            offset += sent

    def lost(self, error: OSError, doing: str) -> Exception:
        """The error to raise for one of the socket's: out of time, or the peer is gone."""
        if isinstance(error, (ConnectionLostError, DeadlineError)):
            return error
        if isinstance(error, BlockingIOError):
            hint = f"; set {self.timeout_argument} to wait longer" if self.timeout_argument else ""
            late = DeadlineError(
                f"{self.peer} made no progress with {doing} for {self.timeout_s:g} s{hint}"
            )
            late.argument = self.timeout_argument
            return late
        return ConnectionLostError(
            f"the connection to {self.peer} was lost in {doing}: {error.strerror or error}"
        )

    def acknowledge_at_once(self) -> None:
        """Lets the kernel acknowledge what comes next without its usual wait of 40 ms.

        For peers that leave Nagle's algorithm on, and so hold their second answer back.
        """
        if _QUICKACK is not None and self.connection.family != _AF_UNIX:
            self.connection.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    def interrupt(self) -> None:
        """Ends whatever another thread waits for at this connection."""
        with contextlib.suppress(OSError):  # it is closed
            self.connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Closes the socket; may be called twice."""
        self.connection.close()
