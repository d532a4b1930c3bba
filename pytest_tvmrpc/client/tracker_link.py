"""The connection between a client and its tracker: questions, and the answers that belong to them.

Decides nothing about devices, and asks nothing on its own account.
"""

from __future__ import annotations

import contextlib
import math
import socket
import time
from typing import Any, Iterator, List, NoReturn, Optional, Tuple

from .. import network
from ..errors import ConnectError, ConnectionLostError, DeadlineError, TrackerError
from ..network import Deadline
from ..owners import not_copied
from ..protocol import tracker as wire

_MAX_REPLY = 64 << 20
"""The longest reply: the summary of a very large farm."""

_RECEIVE = 65536
_QUICKACK = getattr(socket, "TCP_QUICKACK", None)


@not_copied("pass the address, and connect there")
class TrackerLink:
    """A connection that is made when it is needed, and made anew when it was lost.

    Args:
        address: host and port of the tracker.
        timeout: seconds that connecting and each answer that needs no device may take.

    Attributes:
        name: the address as people write it.
        kind: for the user of the link to note what the tracker is; empty on each new connection.
    """

    def __init__(self, address: Tuple[str, int], timeout: float) -> None:
        self.name = network.format_address(*address)
        self.kind = ""
        self._address = address
        self._timeout = timeout
        self._is_closed = False
        self._connection: Optional[socket.socket] = None
        self._reader = wire.FrameReader(_MAX_REPLY)
        self._was_there = False
        self._lost_at = -math.inf
        self._stale_replies = 0  # to questions that a grant made obsolete
        network.forget_in_forks(self)

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return self._connection is not None

    @property
    def lost_ago_s(self) -> float:
        """How many seconds ago the tracker, or the way to it, ended a connection."""
        return time.monotonic() - self._lost_at

    def close(self) -> None:
        """Close the connection for good; may be called twice."""
        self._is_closed = True
        self.drop()

    def abandon(self) -> None:
        """End what another thread waits for here, and refuse all that is asked later."""
        self._is_closed = True
        connection = self._connection
        if connection is not None:
            with contextlib.suppress(OSError):  # it has just been closed
                connection.shutdown(socket.SHUT_RDWR)

    def forget(self) -> None:
        """This process is a fork: the connection is the parent's, and this one makes its own."""
        self.drop()

    def ask(self, frame: bytes) -> Any:
        """The reply to what is always answered at once, or a grant that overtook it.

        Raises:
            DeadlineError: none came within the timeout.
            ConnectionLostError: the tracker is gone; ConnectError: it cannot be reached.
        """
        deadline = Deadline(
            self._timeout, f"the answer of the tracker at {self.name}", "the tracker's timeout"
        )
        if self._connection is None:
            self.connect()
        assert self._connection is not None
        try:
            _limit(self._connection, deadline)
            self._connection.sendall(frame)
        except OSError as error:
            self._raise_for(error, deadline)
        reply = self.receive(deadline)
        if wire.is_granted(reply):
            self._stale_replies += 1
        return reply

    def receive(self, deadline: Deadline) -> Any:
        """The next reply that somebody waits for.

        Raises:
            DeadlineError: none came in time.
            ConnectionLostError: the tracker is gone.
        """
        while True:
            frame = self._reader.next_frame()
            if frame is None:
                self._reader.feed(self._receive_some(deadline))
                continue
            reply = wire.parse_json(frame)
            if wire.is_granted(reply) or not self._stale_replies:
                return reply
            self._stale_replies -= 1

    def _receive_some(self, deadline: Deadline) -> bytes:
        assert self._connection is not None
        try:
            _limit(self._connection, deadline)
            if _QUICKACK is not None:
                # TVM's tracker sends a frame in two pieces, the second one when the first is
                # acknowledged: 44 ms without this.
                self._connection.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
            received = self._connection.recv(_RECEIVE)
        except OSError as error:
            self._raise_for(error, deadline)
        if not received:
            raise self._lost()
        return received

    def _raise_for(self, error: OSError, deadline: Deadline) -> NoReturn:
        """Raises what an error within a send or receive means."""
        if isinstance(error, DeadlineError) or network.is_interrupt(error):
            raise error
        if isinstance(error, BlockingIOError):
            raise deadline.error() from None
        raise self._lost() from error

    def _lost(self) -> ConnectionLostError:
        self._lost_at = time.monotonic()
        return ConnectionLostError(f"the tracker at {self.name} closed the connection")

    def connect(self) -> None:
        """Connect now.

        Raises: as `connect_tracker`.
        """
        if self._is_closed:
            raise self._over()
        deadline = Deadline(
            self._timeout, f"connecting to the tracker at {self.name}", "the tracker's timeout"
        )
        try:
            connection = network.dial(*self._address, deadline)
        except ConnectError as error:
            raise ConnectError(
                f"no RPC tracker at {self.name}: {error}; "
                "start one with python -m pytest_tvmrpc.exec.rpc_tracker, or correct the address"
            ) from error
        try:
            self._greet(connection, deadline)
        except BaseException:
            connection.close()
            raise
        if self._is_closed:  # meanwhile
            connection.close()
            raise self._over()
        self._was_there = True
        self._connection = connection
        self.kind = ""  # it may be another tracker
        self._reader = wire.FrameReader(_MAX_REPLY)
        self._stale_replies = 0

    def _over(self) -> TrackerError:
        return TrackerError(f"this session with the tracker at {self.name} was closed")

    def _greet(self, connection: socket.socket, deadline: Deadline) -> None:
        answer = b""
        try:
            connection.sendall(wire.MAGIC)
            while len(answer) < len(wire.MAGIC) and wire.MAGIC.startswith(answer):
                _limit(connection, deadline)
                received = connection.recv(len(wire.MAGIC) - len(answer))
                if not received:
                    raise self._closed("it closed the connection")
                answer += received
        except OSError as error:
            if network.is_interrupt(error):
                raise
            if isinstance(error, (BlockingIOError, DeadlineError)):
                late = f"it did not answer within timeout={self._timeout:g} s"
                raise self._no_tracker(late) from None
            raise self._closed(f"it closed the connection ({error.strerror})") from error
        if answer != wire.MAGIC:
            raise self._no_tracker(f"it answered {answer!r}")

    def _closed(self, reason: str) -> Exception:
        """What was a tracker before is one that has just ended."""
        return self._lost() if self._was_there else self._no_tracker(reason)

    def _no_tracker(self, reason: str) -> TrackerError:
        return TrackerError(
            f"{self.name} is not an RPC tracker: {reason}; "
            "check host and port (a tracker's port is 9190 unless it was started with another)"
        )

    def drop(self) -> None:
        """Close the connection; what is asked next is asked on a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class Links:
    """The connections of one session with a tracker: one for each who asks at the same time.

    On one connection, answers are told apart by their order only. So that threads may share a
    session, each has a connection for itself until it has its answer.

    Args:
        address, timeout: as for `TrackerLink`.

    Attributes:
        name: the address as people write it.
        is_closed: whether nothing can be asked any more.
    """

    def __init__(self, address: Tuple[str, int], timeout: float) -> None:
        self.name = network.format_address(*address)
        self.is_closed = False
        self._address = address
        self._timeout = timeout
        self._idle: List[TrackerLink] = []
        self._used: List[TrackerLink] = []

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return any(link.is_open for link in [*self._idle, *self._used])

    @contextlib.contextmanager
    def one(self) -> Iterator[TrackerLink]:
        """A connection that nobody else uses meanwhile; one is kept for later.

        The steps on the lists are such that Python does each of them at once, for all threads.
        """
        try:
            link = self._idle.pop()
        except IndexError:
            link = TrackerLink(self._address, self._timeout)
        self._used.append(link)
        try:
            if self.is_closed:
                link.close()
            yield link
        finally:
            self._used.remove(link)
            if self.is_closed or self._idle:
                link.close()
            else:
                self._idle.append(link)

    def close(self) -> None:
        """Close the connections for good, and end what other threads wait for; may be repeated."""
        self.is_closed = True
        for link in list(self._used):
            link.abandon()
        while self._idle:
            self._idle.pop().close()


def _limit(connection: socket.socket, deadline: Deadline) -> None:
    left = deadline.left()
    if left is not None:
        left = max(left, 0.001)  # what rounds to zero would mean "no limit" to the kernel
    network.set_kernel_timeouts(connection, left, left)
