"""Accepting connections on an asyncio loop, for every program that has one. Knows no protocol.

Not asyncio's own servers: at the limit of descriptors they try again without a pause, with a
traceback each time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Optional

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
