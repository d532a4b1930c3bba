"""An asyncio loop that serves: how it lets connections in, and until when. Knows no protocol.

Connections are not accepted by asyncio's own servers: at the limit of descriptors those try again
without a pause, with a traceback each time.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any, Callable, Iterator, Optional, Tuple

if TYPE_CHECKING:
    import asyncio
    import socket

ACCEPTED_A_TURN = 64
"""After so many new connections, those that are there have their turn."""

ACCEPT_PAUSE_S = 0.2
"""How long to wait for a descriptor to be free again."""


class Acceptor:
    """Lets in whoever connects, and waits when the process can have no more connections.

    Args:
        loop: whose readers it uses.
        listener: a listening socket; stays the caller's.
        let_in: takes each new connection with its address.
        report: takes a line when it has to wait; one, however long that takes.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        let_in: Callable[[socket.socket, Any], object],
        report: Callable[[str], object],
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._let_in = let_in
        self._report = report
        self._is_short = False
        self._retry: Optional[asyncio.TimerHandle] = None
        listener.setblocking(False)
        self._open()

    def _open(self) -> None:
        self._retry = None
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPTED_A_TURN):
            try:
                connection, address = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptors are left, as a rule
                if not self._is_short:
                    self._is_short = True
                    self._report(f"no peer can be accepted now: {error}")
                self.close()  # it is still there: no busy loop
                self._retry = self._loop.call_later(ACCEPT_PAUSE_S, self._open)
                return
            self._is_short = False
            self._let_in(connection, address)

    def close(self) -> None:
        """Let nobody in any more; may be called twice."""
        self._loop.remove_reader(self._listener.fileno())
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None


@contextlib.contextmanager
def stoppable(
    loop: asyncio.AbstractEventLoop, parent_fd: Optional[int]
) -> Iterator[Tuple[asyncio.AbstractEventLoop, asyncio.Future[None], Callable[[], None]]]:
    """A loop, and what it waits for: SIGTERM, SIGINT, or the parent's end if there is a parent.

    Yields:
        The loop, which is closed afterwards; the future that is done then; what ends it as well.
    """
    stopped = loop.create_future()

    def stop() -> None:
        if not stopped.done():
            stopped.set_result(None)

    def watch_parent(parent_fd: int) -> None:
        if not os.read(parent_fd, 1):
            loop.remove_reader(parent_fd)
            stop()

    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        if parent_fd is not None:
            loop.add_reader(parent_fd, watch_parent, parent_fd)
        yield loop, stopped, stop
    finally:
        loop.close()
