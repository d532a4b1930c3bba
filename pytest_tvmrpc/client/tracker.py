"""TrackerSession: ask a tracker for a device, or for the state of the farm. No threads.

Opens no session itself: what a tracker grants goes to `connect()`.
"""

from __future__ import annotations

import sys
import time
import warnings
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    List,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
)

from ..errors import (
    ConnectError,
    ConnectionLostError,
    DeadlineError,
    HandshakeError,
    RemoteError,
    TrackerError,
)
from ..network import Deadline
from ..owners import not_copied
from ..protocol import farm
from ..protocol import tracker as wire
from .grants import PATIENCE_S, Grants, Wanted
from .tracker_link import Links
from .user import default_user

if TYPE_CHECKING:
    from types import TracebackType

    from .granted import Opener
    from .session import RPCSession
    from .tracker_link import TrackerLink

T = TypeVar("T")


def connect_tracker(
    url: str, port: int, *, timeout: float = 10.0, user: Optional[str] = None
) -> TrackerSession:
    """Connect to a tracker.

    Args:
        url: the tracker's host.
        port: its port.
        timeout: seconds that connecting and each answer that needs no device may take.
        user: what `who` calls you; None: what TVMRPC_USER says, or ``user@host pid N``.

    Raises:
        ConnectError: nobody answers there.
        TrackerError: somebody does, but is no tracker.
        DeadlineError: the connection was not made in time.
    """
    return TrackerSession((url, port), timeout=timeout, user=user)


@not_copied("pass host and port, and connect there")
class TrackerSession:
    """A connection to a tracker, made anew when it was lost. Threads may share it.

    Args:
        addr: host and port of the tracker.
        timeout: seconds that connecting and each answer that needs no device may take.
        user: what `who` calls you; None: what TVMRPC_USER says, or ``user@host pid N``.

    Raises: as `connect_tracker`.

    Attributes:
        user: what `who` calls you.
        patience_s: for how many seconds a tracker that cannot be reached any more is taken for one
            that is being restarted; 30, and 0 for one that is not.
    """

    def __init__(
        self, addr: Tuple[str, int], *, timeout: float = 10.0, user: Optional[str] = None
    ) -> None:
        self.user = default_user() if user is None else user
        self.patience_s = PATIENCE_S
        self._links = Links((addr[0], addr[1]), timeout)
        with self._links.one() as link:
            link.connect()

    def close(self) -> None:
        """Close the connection; sessions that were granted stay open.

        What another thread waits for ends with a `TrackerError`.
        """
        self._links.close()

    def abandon(self) -> None:
        """End, from another thread, what this one waits for; the same as `close`."""
        self._links.close()

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
        links = getattr(self, "_links", None)
        if links is not None and links.is_open:
            if not sys.is_finalizing():
                warnings.warn(
                    f"the connection to the tracker at {links.name} was dropped without close()",
                    ResourceWarning,
                    stacklevel=2,
                    source=self,
                )
            links.close()

    def __repr__(self) -> str:
        state = "closed" if self._links.is_closed else f"user {self.user!r}"
        return f"<TrackerSession {self._links.name}, {state}>"

    # --- the state of the farm ----------------------------------------------------------------

    def summary(self) -> Dict[str, Any]:
        """Who is there and who waits: ``queue_info`` by key, and ``server_info``.

        Raises:
            ConnectionLostError: the tracker is gone.
            DeadlineError: it did not answer within the timeout.
        """
        return self._ask(wire.summary(), wire.parse_summary)

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

    @property
    def kind(self) -> str:
        """``"tvmrpc"``: the tracker is one of ours; ``"tvm"``: it knows TVM's messages only.

        Raises: as `summary`, when it was not asked yet.
        """
        with self._links.one() as link:
            return _kind(link)

    def who(self) -> farm.Farm:
        """The servers with their holders, and the requests that wait with their places.

        Returns:
            ``servers``: of each its key, host, port, ``state`` (free, offered, busy or silent),
            ``since_s``, and ``holder`` (None, or with user, peer, since_s, limit_s);
            ``waiting``: of each its key, user, peer, position, priority, since_s.

        Raises:
            TrackerError: the tracker is TVM's, which does not know.
            ConnectionLostError, DeadlineError: as `summary`.
        """
        instead = ("say who has which device", "call summary() for how many are free")
        return self._ask(farm.who(), farm.parse_farm, instead)

    def kick(self, target: str, reason: str = "") -> List[str]:
        """End the session on a server, whoever has it; its client finds the connection closed.

        Args:
            target: the server's address, HOST:PORT as `who` shows it, or a key: all its servers.
            reason: what the server is told.

        Returns:
            The addresses of the servers whose sessions end now.

        Raises:
            TrackerError: there is no such server, nobody has it, it takes no orders, as TVM's
                servers do not, or the tracker is TVM's.
            ConnectionLostError, DeadlineError: as `summary`.
        """
        instead = (
            "end other people's sessions",
            "restart the server, and give request() a session_timeout the next time",
        )
        results = self._ask(farm.kick(target, reason), farm.parse_kicked, instead)
        kicked = [address for address, outcome in results if outcome == farm.Outcome.KICKED]
        if kicked:
            return kicked
        if not results:
            raise TrackerError(
                f"no server has the key or address {target!r} at the tracker {self._links.name}; "
                "who() shows those that there are"
            )
        deaf = [address for address, outcome in results if outcome == farm.Outcome.DEAF]
        if deaf:
            raise TrackerError(
                f"{', '.join(deaf)} cannot be told to end a session, as TVM's servers and proxies "
                "cannot; restart the server"
            )
        raise TrackerError(f"nobody has {target!r} now: there is no session to end")

    def _ask(
        self,
        frame: bytes,
        parse: Callable[[Any], T],
        of_ours: Optional[Tuple[str, str]] = None,
    ) -> T:
        """What the tracker replies.

        Args:
            frame: the question.
            parse: reads the reply.
            of_ours: for what only a tracker of ours can do: what that is, and what else would do.
        """
        with self._links.one() as link:
            if of_ours is not None and _kind(link) != "tvmrpc":
                what, instead = of_ours
                raise TrackerError(
                    f"the tracker at {link.name} is TVM's and cannot {what}; "
                    f"{instead}, or replace it with a tracker of pytest_tvmrpc"
                )
            return _ask_twice(link, frame, parse)

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
        handshake_timeout: float = 10.0,
        call_timeout: float = 600.0,
        wait_for_key: bool = False,
    ) -> RPCSession:
        """Wait for a device with this key and open a session on it.

        Args:
            key: the device key.
            priority: a higher one is served first; equal ones in the order of arrival.
            session_timeout: seconds after which the server ends the session; 0: never.
            max_retry: how many granted devices to try before giving up.
            session_constructor_args: name and arguments of what serves the session over there.
            wait_timeout: seconds to wait for a device, all attempts together.
            connect_timeout: seconds until a connection stands.
            handshake_timeout: seconds from then on until the session is open. After these three,
                no attempt goes on.
            call_timeout: seconds that one call in the session may take.
            wait_for_key: whether a key that no server has yet is waited for, too.

        Returns:
            The session, with ``queued_s`` and ``connect_s``: how long the device and then the
            connection took.

        Raises:
            UnknownKeyError: no server offers the key, or, with `wait_for_key`, none did within
                `wait_timeout`; the message lists the keys that exist.
            DeadlineError: no device became free within `wait_timeout`, or, as far as devices were
                granted, no session could be opened in time.
            TrackerError: `max_retry` devices were granted, and none could be connected.
            ConnectionLostError: the tracker is gone, and did not come back within `wait_timeout`,
                or within `patience_s`. One that is restarted is asked again.
        """
        from .granted import Opener, SessionWish

        _check_retries(max_retry)
        wire.check_key(key)
        wish = SessionWish(
            session_timeout,
            session_constructor_args,
            connect_timeout,
            handshake_timeout,
            call_timeout,
        )
        wanted = Wanted(key, priority, session_timeout, wait_for_key)
        return self._open(wanted, Opener(wish), wait_timeout, max_retry)

    def _open(
        self, wanted: Wanted, opener: Opener, wait_timeout: float, max_retry: int
    ) -> RPCSession:
        """A session on the first device of those granted with which it can be opened."""
        with self._links.one() as link:
            return self._open_on(link, wanted, opener, wait_timeout, max_retry)

    def _open_on(
        self,
        link: TrackerLink,
        wanted: Wanted,
        opener: Opener,
        wait_timeout: float,
        max_retry: int,
    ) -> RPCSession:
        started = time.monotonic()
        deadline = Deadline(wait_timeout, f"waiting for a device {wanted.key!r}", "wait_timeout")
        grants = Grants(link, self.user, wanted, deadline, self.patience_s)
        attempts = 0
        last: Optional[Exception] = None
        while attempts < max_retry:
            attempts += 1
            try:
                resource = grants.next()
            except DeadlineError as error:
                raise error from last
            granted = time.monotonic()
            left_s = wait_timeout + opener.wish.opening_s - (granted - started)
            try:
                session = opener.open(resource, max(left_s, 0.001))
            except (ConnectionLostError, HandshakeError, DeadlineError) as error:
                last = error
                attempts -= opener.learn(resource, error)
                continue
            session.key, session.queued_s = wanted.key, granted - started
            session.connect_s = time.monotonic() - granted
            return session
        raise TrackerError(
            f"no session on a device {wanted.key!r} after max_retry={max_retry} attempts, "
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
        handshake_timeout: float = 10.0,
        call_timeout: float = 600.0,
        wait_for_key: bool = False,
    ) -> T:
        """Run `func` with a session; when the device drops out, run it again on another one.

        The session is closed afterwards in any case, so the result must not live on the device.
        What the remote function raises is not retried: it would raise again. Behind a session
        constructor, a `ConnectionLostError` that the server raises is the loss of the next one,
        and so a drop-out, too.

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
                handshake_timeout=handshake_timeout,
                call_timeout=call_timeout,
                wait_for_key=wait_for_key,
            )
            # Closed before the next one is requested: it may be the only device of its kind.
            with session:
                try:
                    return func(session)
                except ConnectionLostError as error:
                    if isinstance(error, RemoteError) and not session_constructor_args:
                        raise
                    last = error
        raise TrackerError(
            f"the device {key!r} dropped out in each of max_retry={max_retry} runs, "
            f"the last time with {type(last).__name__}: {last}"
        ) from last

    def lease(
        self,
        key: str,
        wait_timeout: float = 60.0,
        session_timeout: float = 0,
        *,
        priority: float = 1,
        wait_for_key: bool = False,
    ) -> wire.Granted:
        """The address of a device, and the match key for a session on it; for special clients.

        Who does not connect within about two seconds loses the device again.

        Args and Raises: as `request`, as far as the tracker is concerned.
        """
        wire.check_key(key)
        deadline = Deadline(wait_timeout, f"waiting for a device {key!r}", "wait_timeout")
        wanted = Wanted(key, priority, session_timeout, wait_for_key)
        with self._links.one() as link:
            return Grants(link, self.user, wanted, deadline, self.patience_s).next()


def _kind(link: TrackerLink) -> str:
    """Whose tracker is at the other end; asked once for each connection."""
    if not link.kind:
        is_ours, _ = _ask_twice(link, wire.greet(), wire.parse_welcome)
        link.kind = "tvmrpc" if is_ours else "tvm"
    return link.kind


def _ask_twice(link: TrackerLink, frame: bytes, parse: Callable[[Any], T]) -> T:
    """Asks again, on a new connection, if the tracker was restarted since it was last asked."""
    try:
        return _reply(link, frame, parse)
    except ConnectError:
        raise
    except ConnectionLostError:
        return _reply(link, frame, parse)


def _reply(link: TrackerLink, frame: bytes, parse: Callable[[Any], T]) -> T:
    try:
        return parse(link.ask(frame))
    except BaseException:  # what is left of the reply would be taken for the next one
        link.drop()
        raise


def _check_retries(max_retry: int) -> None:
    if max_retry < 1:
        raise ValueError(f"max_retry={max_retry}: at least one attempt is needed")
