"""TrackerSession: ask a tracker for a device, or for the state of the farm. No threads.

Opens no session itself: what a tracker grants goes to `connect()`.
"""

from __future__ import annotations

import socket
import time
import warnings
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional, Sequence, Tuple, TypeVar

from .. import network
from ..errors import (
    ConnectError,
    ConnectionLostError,
    DeadlineError,
    HandshakeError,
    TrackerError,
    UnknownKeyError,
)
from ..network import Deadline
from ..protocol import tracker as wire

if TYPE_CHECKING:
    from types import TracebackType

    from .session import RPCSession

T = TypeVar("T")

_MAX_REPLY = 64 << 20
"""The longest reply: the summary of a very large farm."""

_RECEIVE = 65536
_QUICKACK = getattr(socket, "TCP_QUICKACK", None)
_PROXY = "proxy["


def connect_tracker(url: str, port: int, *, timeout: float = 10.0) -> TrackerSession:
    """Connect to a tracker.

    Args:
        url: the tracker's host.
        port: its port.
        timeout: seconds that connecting and each answer that needs no device may take.

    Raises:
        ConnectError: nobody answers there.
        TrackerError: somebody does, but is no tracker.
        DeadlineError: the connection was not made in time.
    """
    return TrackerSession((url, port), timeout=timeout)


class TrackerSession:
    """A connection to a tracker, made anew when it was lost.

    Args:
        addr: host and port of the tracker.
        timeout: seconds that connecting and each answer that needs no device may take.

    Raises: as `connect_tracker`.
    """

    def __init__(self, addr: Tuple[str, int], *, timeout: float = 10.0) -> None:
        self._address = (addr[0], addr[1])
        self._name = network.format_address(*self._address)
        self._timeout = timeout
        self._is_closed = False
        self._connection: Optional[socket.socket] = None
        self._reader = wire.FrameReader(_MAX_REPLY)
        self._stale_replies = 0  # to questions that a grant made obsolete
        self._connect()

    def close(self) -> None:
        """Close the connection; sessions that were granted stay open."""
        self._is_closed = True
        self._drop()

    def __enter__(self) -> TrackerSession:
        return self

    def __exit__(
        self,
        exc_type: Optional[type],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_connection", None) is not None:
            warnings.warn(
                f"the connection to the tracker at {self._name} was dropped without close()",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )
            self._drop()

    # --- the state of the farm ----------------------------------------------------------------

    def summary(self) -> Dict[str, Any]:
        """Who is there and who waits: ``queue_info`` by key, and ``server_info``.

        Raises:
            ConnectionLostError: the tracker is gone.
            DeadlineError: it did not answer within the timeout.
        """
        try:
            return self._state()
        except ConnectError:
            raise
        except ConnectionLostError:
            # The tracker was restarted since it was last asked: once more, on a new connection.
            return self._state()

    def text_summary(self) -> str:
        """The summary as a table, in the form that TVM prints."""
        state = self.summary()
        lines = ["Server List", "-" * 30, "server-address           key", "-" * 30]
        totals: Dict[str, int] = {}
        for server in sorted(state["server_info"], key=lambda server: str(server["key"])):
            lines.append(f"{':'.join(map(str, server['addr'])):21s}    {server['key']}")
            key = server["key"].partition(":")[2]
            totals[key] = totals.get(key, 0) + 1
        lines += ["-" * 30, ""]
        queues = state["queue_info"]
        width = max(map(len, queues), default=0)
        title = f"{'key':<{width}s}   total  free  pending"
        # TVM counts the line's end, too.
        rule = "-" * (len(title) + 1)
        lines += ["Queue Status", rule, title, rule]
        for key in sorted(queues):
            total, free, pending = totals.get(key, 0), queues[key]["free"], queues[key]["pending"]
            if total or pending:
                lines.append(f"{key:<{width}}   {total:<5d}  {free:<4d}  {pending:<7d}")
        lines += [rule, ""]
        return "\n".join(lines)

    def _state(self) -> Dict[str, Any]:
        try:
            return wire.parse_summary(self._ask(wire.summary()))
        except BaseException:  # what is left of the reply would be taken for the next one
            self._drop()
            raise

    # --- a device -----------------------------------------------------------------------------

    def request(
        self,
        key: str,
        priority: float = 1,
        session_timeout: float = 0,
        max_retry: int = 5,
        session_constructor_args: Optional[Sequence[Any]] = None,
        *,
        wait_timeout: float = 60.0,
        connect_timeout: float = 10.0,
        call_timeout: float = 600.0,
    ) -> RPCSession:
        """Wait for a device with this key and open a session on it.

        Args:
            key: the device key.
            priority: a higher one is served first; equal ones in the order of arrival.
            session_timeout: seconds after which the server ends the session; 0: never.
            max_retry: how many granted devices to try before giving up.
            session_constructor_args: name and arguments of what serves the session over there.
            wait_timeout: seconds to wait for a device, all attempts together.
            connect_timeout: seconds that one attempt to open a session may take.
            call_timeout: seconds that one call in the session may take.

        Returns:
            The session, with ``queued_s`` and ``connect_s``: how long the device and then the
            connection took.

        Raises:
            UnknownKeyError: no server offers the key; the message lists the keys that exist.
            DeadlineError: no device became free within `wait_timeout`.
            TrackerError: `max_retry` devices were granted, and none could be connected.
        """
        from .connect import connect

        _check_retries(max_retry)
        wire.check_key(key)
        started = time.monotonic()
        deadline = Deadline(wait_timeout, f"waiting for a device {key!r}", "wait_timeout")
        last: Optional[Exception] = None
        for _ in range(max_retry):
            try:
                resource = self._lease(key, priority, deadline)
            except ConnectError:
                raise  # no tracker there any more
            except ConnectionLostError as error:
                last = error
                continue
            except DeadlineError as error:
                raise error from last
            granted = time.monotonic()
            try:
                session = connect(
                    resource.host,
                    resource.port,
                    resource.match_key,
                    session_timeout,
                    session_constructor_args,
                    connect_timeout=connect_timeout,
                    call_timeout=call_timeout,
                )
            except (ConnectionLostError, HandshakeError, DeadlineError) as error:
                last = error
                continue
            session.queued_s = granted - started
            session.connect_s = time.monotonic() - granted
            return session
        raise TrackerError(
            f"no session on a device {key!r} after max_retry={max_retry} attempts, "
            f"the last of which ended with {type(last).__name__}: {last}"
        ) from last

    def request_and_run(
        self,
        key: str,
        func: Callable[[RPCSession], T],
        priority: float = 1,
        session_timeout: float = 0,
        max_retry: int = 2,
        session_constructor_args: Optional[Sequence[Any]] = None,
        *,
        wait_timeout: float = 60.0,
        connect_timeout: float = 10.0,
        call_timeout: float = 600.0,
    ) -> T:
        """Run `func` with a session; when the device drops out, run it again on another one.

        The session is closed afterwards in any case, so the result must not live on the device.
        What the remote function raises is not retried: it would raise again.

        Args: as for `request`, and
            func: called with the session, maybe more than once.
            max_retry: how often to run it before giving up.

        Raises:
            TrackerError: the device dropped out `max_retry` times; the last error is the cause.
            RemoteError: `func` raised it, or RPCSessionTimeoutError: the session's time was up.
        """
        _check_retries(max_retry)
        last: Optional[Exception] = None
        for _ in range(max_retry):
            session = self.request(
                key,
                priority,
                session_timeout,
                session_constructor_args=session_constructor_args,
                wait_timeout=wait_timeout,
                connect_timeout=connect_timeout,
                call_timeout=call_timeout,
            )
            # Closed before the next one is requested: it may be the only device of its kind.
            with session:
                try:
                    return func(session)
                except ConnectionLostError as error:
                    last = error
        raise TrackerError(
            f"the device {key!r} dropped out in each of max_retry={max_retry} runs, "
            f"the last time with {type(last).__name__}: {last}"
        ) from last

    def _lease(self, key: str, priority: float, deadline: Deadline) -> wire.Granted:
        """Wait until the tracker grants a device; on any other end, the request is withdrawn."""
        try:
            # The ping is answered at once: behind the grant, or there is none to be had now.
            reply = self._ask(wire.request(key, priority) + wire.ping())
            if wire.is_granted(reply):
                return wire.parse_granted(reply)
            wire.parse_status(reply)
            reply = self._ask(wire.summary())
            if wire.is_granted(reply):
                return wire.parse_granted(reply)
            self._check_served(key, wire.parse_summary(reply))
            try:
                return wire.parse_granted(self._receive(deadline))
            except DeadlineError:
                return self._last_look(key, deadline)
        except BaseException:  # KeyboardInterrupt, too: with the connection, the request goes
            self._drop()
            raise

    def _check_served(self, key: str, state: Dict[str, Any]) -> None:
        keys = _served_keys(state)
        if key not in keys:
            known = ", ".join(sorted(map(repr, keys))) or "no servers at all"
            raise UnknownKeyError(
                f"no server offers the key {key!r}; the tracker at {self._name} has {known}"
            )

    def _last_look(self, key: str, deadline: Deadline) -> wire.Granted:
        """Find out why there was no device in time; a grant that comes just now is taken.

        Raises:
            DeadlineError: always else, with the state of the queue.
        """
        reply = self._ask(wire.summary())
        if wire.is_granted(reply):
            return wire.parse_granted(reply)
        state = wire.parse_summary(reply)
        queue = state["queue_info"].get(key, {"free": 0, "pending": 0})
        raise DeadlineError(
            f"no device {key!r} became free within wait_timeout={deadline.limit_s:g} s: "
            f"{_served_keys(state).get(key, 0)} registered, {queue['free']} free, "
            f"{queue['pending']} pending (this request included); "
            "wait longer, or register more servers with this key"
        )

    # --- the connection -----------------------------------------------------------------------

    def _ask(self, frame: bytes) -> Any:
        """The reply to what is always answered at once, or a grant that overtook it."""
        deadline = Deadline(
            self._timeout, f"the answer of the tracker at {self._name}", "the tracker's timeout"
        )
        if self._connection is None:
            self._connect()
        assert self._connection is not None
        try:
            _limit(self._connection, deadline)
            self._connection.sendall(frame)
        except BlockingIOError:
            raise deadline.error() from None
        except OSError as error:
            raise self._lost() from error
        reply = self._receive(deadline)
        if wire.is_granted(reply):
            self._stale_replies += 1
        return reply

    def _receive(self, deadline: Deadline) -> Any:
        """The next reply that somebody waits for."""
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
        except BlockingIOError:
            raise deadline.error() from None
        except DeadlineError:
            raise
        except OSError as error:
            raise self._lost() from error
        if not received:
            raise self._lost()
        return received

    def _lost(self) -> ConnectionLostError:
        return ConnectionLostError(f"the tracker at {self._name} closed the connection")

    def _connect(self) -> None:
        if self._is_closed:
            raise TrackerError(f"this session with the tracker at {self._name} was closed")
        deadline = Deadline(
            self._timeout, f"connecting to the tracker at {self._name}", "the tracker's timeout"
        )
        try:
            connection = network.dial(*self._address, deadline)
        except ConnectError as error:
            raise ConnectError(
                f"no RPC tracker at {self._name}: {error}; "
                "start one with python -m pytest_tvmrpc.exec.rpc_tracker, or correct the address"
            ) from error
        try:
            self._greet(connection, deadline)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._reader = wire.FrameReader(_MAX_REPLY)
        self._stale_replies = 0

    def _greet(self, connection: socket.socket, deadline: Deadline) -> None:
        answer = b""
        try:
            connection.sendall(wire.MAGIC)
            while len(answer) < len(wire.MAGIC) and wire.MAGIC.startswith(answer):
                _limit(connection, deadline)
                received = connection.recv(len(wire.MAGIC) - len(answer))
                if not received:
                    raise self._no_tracker("it closed the connection")
                answer += received
        except (BlockingIOError, DeadlineError):
            raise self._no_tracker(
                f"it did not answer within timeout={self._timeout:g} s"
            ) from None
        except OSError as error:
            raise self._no_tracker(f"it closed the connection ({error.strerror})") from error
        if answer != wire.MAGIC:
            raise self._no_tracker(f"it answered {answer!r}")

    def _no_tracker(self, reason: str) -> TrackerError:
        return TrackerError(
            f"{self._name} is not an RPC tracker: {reason}; "
            "check host and port (a tracker's port is 9190 unless it was started with another)"
        )

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _limit(connection: socket.socket, deadline: Deadline) -> None:
    left = deadline.left()
    if left is not None:
        left = max(left, 0.001)  # what rounds to zero would mean "no limit" to the kernel
    network.set_kernel_timeouts(connection, left, left)


def _served_keys(state: Dict[str, Any]) -> Dict[str, int]:
    """How many servers offer each key; those behind a proxy count as one for each key."""
    found: Dict[str, int] = {}
    for server in state["server_info"]:
        name = server["key"].partition(":")[2]
        is_proxy = name.startswith(_PROXY) and name.endswith("]")
        for key in name[len(_PROXY) : -1].split(",") if is_proxy else [name]:
            found[key] = found.get(key, 0) + 1
    for key, queue in state["queue_info"].items():
        if queue["free"]:  # a server that did not introduce itself
            found.setdefault(key, queue["free"])
    return found


def _check_retries(max_retry: int) -> None:
    if max_retry < 1:
        raise ValueError(f"max_retry={max_retry}: at least one attempt is needed")
