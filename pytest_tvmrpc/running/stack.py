"""Where a run takes its devices from: a tracker that was named, or one of the run's own.

Nothing is started or connected before a test asks. Which test it is, is leases.py's matter.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Callable, Mapping, NamedTuple, Sequence

from ..errors import (
    ConnectionLostError,
    DeadlineError,
    HandshakeError,
    RPCSessionTimeoutError,
    StartError,
    TrackerError,
    UnknownKeyError,
)
from .farm import Farm

if TYPE_CHECKING:
    from ..client.tracker import TrackerSession
    from ..options import Options
    from .farm import Address, StartServers
    from .search import Accepts, Given, Missed
    from .selection import Wish

LONGEST_USER = 200
"""Characters of what others are told of who has a device; node ids may be of any length."""

OPTIONS = {
    "wait_timeout": "--rpc-queue-timeout",
    "the tracker's timeout": "--rpc-connect-timeout",
    "connect_timeout": "--rpc-connect-timeout",
    "handshake_timeout": "--rpc-connect-timeout",
    "call_timeout": "--rpc-call-timeout",
}
"""What sets a limit, in the words of `DeadlineError.argument`, and how users of pytest set it."""


class TooManyError(TrackerError):
    """A test asks for more devices at once than its run has; it would wait for itself."""


class Reception(NamedTuple):
    """The controller's own tracker, for a worker: where it is, and where its servers' logs are."""

    host: str
    port: int
    logs: str


def name_option(error: BaseException) -> None:
    """Add to the message of a wait that is over the option that sets its limit."""
    wait = error if isinstance(error, DeadlineError) else error.__cause__
    if isinstance(wait, DeadlineError) and wait.argument in OPTIONS:
        name = OPTIONS[wait.argument]
    elif isinstance(error, RPCSessionTimeoutError):
        name = "--rpc-session-timeout"
    else:
        return
    if name not in str(error):
        error.args = (f"{error} (option: {name})",)


def _not_yet(keys: Sequence[str], error: Exception) -> TrackerError:
    return TrackerError(
        f"no server of key {' or '.join(map(repr, keys))} has registered yet; "
        f"pytest_tvmrpc_start_servers was to start one ({error}; option: --rpc-queue-timeout)"
    )


def _shortened(user: str) -> str:
    return user if len(user) <= LONGEST_USER else f"{user[: LONGEST_USER - 3]}..."


def _gone(what: str, error: Exception) -> TrackerError:
    return TrackerError(
        f"the {what} that pytest started for this run is gone; the end of the run's output says "
        f"why ({error})"
    )


class Stack:
    """The way to devices in one process: the controller, a worker, or a run without workers.

    Args:
        options: of the run.
        ask: in a worker, what asks the controller for its own tracker, if it has one.
        start_servers: what starts the servers of a tracker of our own, or returns None.
        has_starter: whether there is such a thing; its servers may take their time.
        was_seen: in a worker, whether the run ever had a device of a key.
    """

    def __init__(
        self,
        options: Options,
        ask: Callable[[], Reception] | None = None,
        start_servers: StartServers = lambda tracker: None,
        has_starter: Callable[[], bool] = lambda: False,
        was_seen: Callable[[str], bool] = lambda key: False,
    ) -> None:
        self.options = options
        self._ask = ask
        self._reception: Reception | None = None  # until a test asks for a device
        self._farm = None if options.tracker or ask else Farm(options, start_servers)
        self._has_starter = has_starter
        self._was_seen = was_seen
        self._tracker: TrackerSession | None = None
        self._user = ""
        self._were_there = False  # all servers of our own
        self._seen: set[str] = set()  # keys that had a device

    @property
    def notes(self) -> list[str]:
        """What the user should read at the end about programs of ours."""
        return self._farm.notes if self._farm else []

    @property
    def is_own(self) -> bool:
        """Whether the tracker is the run's own."""
        return self.options.tracker is None

    @property
    def logs(self) -> str:
        """The folder with the logs of our own servers; empty if there are none."""
        if self._farm:
            return self._farm.folder
        return self._reception.logs if self._reception else ""

    def address(self) -> Address | None:
        """Where the tracker is; None as long as there is none."""
        if self._farm:
            return self._farm.address
        return self.options.tracker or (
            self._reception and (self._reception[0], self._reception[1])
        )

    def reception(self) -> Reception | None:
        """What workers of this controller are given; None if the tracker was named."""
        if self._farm is None:
            return None
        return Reception(*self._farm.start_when_asked(), self._farm.folder)

    def has_seen(self, key: str) -> bool:
        """Whether there was a device of this key before, in whatever process of the run."""
        return key in self._seen or self._was_seen(key)

    def has_free(self, keys: Sequence[str]) -> bool:
        """Whether a device of one of the keys could be had at once, as far as one can tell."""
        try:
            queues = self._connected().summary()["queue_info"]
        except OPENING_ERRORS:  # who asks for one will be told
            return False
        return any(queues[key]["free"] > 0 for key in keys if key in queues)

    def others_wait(self, key: str) -> bool:
        """Whether somebody waits for a device of this key; False if the tracker does not say."""
        if self._tracker is None:
            return False
        try:
            queues = self._tracker.summary()["queue_info"]
        except OPENING_ERRORS:
            self._disconnect()
            return False
        return key in queues and queues[key]["pending"] > 0

    def request(
        self,
        wish: Wish,
        held: Mapping[str, int],
        user: str,
        accepts: Accepts,
        wait_s: float,
        missed: list[Missed],
    ) -> Given:
        """A session on a device, waiting for one if others use them.

        Args:
            wish: what the test wants.
            held: how many devices of each key the same test has already.
            user: what others are told about who has the device.
            accepts: whether the test may have a device.
            wait_s: for how long a device is waited for.
            missed: gets the devices that were given and could not be opened.

        Raises:
            StartError: the run's own tracker or servers did not start.
            UnknownKeyError: nobody offers any of the keys.
            TooManyError: the test asks for more than the run has.
            HandshakeError: the only devices that were given could not be opened.
            TrackerError, ConnectionLostError, DeadlineError: what the tracker said.
        """
        __tracebackhide__ = True
        from .search import Search

        if self.is_own:
            wish = wish._replace(keys=self._with_room(wish.keys, held))
        try:
            tracker = self._connected()
            tracker.user = _shortened(f"{self._own_user()} {user}")
            is_late = self._is_late(wish.keys)
            connect = partial(self._connect, tracker.user)
            given = Search(tracker, connect, wish, accepts, wait_s, is_late, missed).run()
        except ConnectionLostError as error:
            self._disconnect()  # the next test tries anew
            if self.is_own:
                raise _gone("tracker", error) from error
            raise
        except UnknownKeyError as error:
            if self.is_own and is_late:
                raise _not_yet(wish.keys, error) from error
            if self.is_own:
                raise _gone(f"server of key {wish.keys[0]!r}", error) from error
            raise
        except DeadlineError as error:
            if error.argument == "wait_timeout":  # in a queue that there is for served keys only
                self._seen.update(wish.keys)
            raise
        self._seen.add(given.key)
        return given

    def close(self) -> None:
        """Let go of the tracker, and stop it if it is the run's own; may be called twice."""
        self._disconnect()
        if self._farm:
            self._farm.close()

    def _own_user(self) -> str:
        if not self._user:
            from ..client.user import default_user

            self._user = default_user()
        return self._user

    def _connected(self) -> TrackerSession:
        """The connection to the tracker, which knows our servers by then if it is ours."""
        __tracebackhide__ = True
        if self._tracker is None:
            if self._farm:
                self._farm.start()
            elif self._ask and self._reception is None:
                self._reception = self._ask()
            try:
                self._tracker = self._connect(self._own_user())
            except TrackerError as error:
                if self.is_own:  # surely ours, so no advice on its address
                    raise _gone("tracker", error) from error
                raise
        if self.is_own and not self._has_starter():
            self._await_servers(self._tracker)
        return self._tracker

    def _connect(self, user: str) -> TrackerSession:
        """One more connection to the tracker, which is there."""
        from ..client.tracker import connect_tracker

        address = self.address()
        assert address is not None
        tracker = connect_tracker(*address, timeout=self.options.connect_timeout_s, user=user)
        if self.is_own:
            tracker.patience_s = 0  # nobody starts our own one again
        return tracker

    def _is_late(self, keys: Sequence[str]) -> bool:
        """Whether the first server of these keys may still be on its way: others start them."""
        return self.is_own and self._has_starter() and not any(map(self.has_seen, keys))

    def _await_servers(self, tracker: TrackerSession) -> None:
        """Wait until our own tracker knows all our servers, once in a process.

        A worker gets here first: it waits at the tracker's door before there is a tracker. With
        all of them, because a run in which one cannot start shall not begin by chance.
        """
        __tracebackhide__ = True
        building_s = 0.0 if self.options.server_kind == "python" else BUILDING_S
        end = time.monotonic() + self.options.connect_timeout_s + building_s
        ours = [f"server:{key}" for key in self.options.keys]
        while not self._were_there and time.monotonic() < end:
            there = [server["key"] for server in tracker.summary()["server_info"]]
            self._were_there = all(there.count(one) >= self.options.servers for one in ours)
            if not self._were_there:
                time.sleep(0.002)
        self._were_there = True

    def _disconnect(self) -> None:
        if self._tracker is not None:
            self._tracker.close()
            self._tracker = None

    def _with_room(self, wanted: Sequence[str], held: Mapping[str, int]) -> tuple[str, ...]:
        """The keys of which there are more than the test has; to wait for others is in vain."""
        __tracebackhide__ = True
        keys, servers = self.options.keys, self.options.servers
        unknown = [key for key in wanted if key not in keys]
        if unknown:
            raise UnknownKeyError(
                f"this run has no server of key {unknown[0]!r}, only of: {', '.join(keys)}; "
                f"start one with --rpc-key={unknown[0]}"
            )
        room = tuple(key for key in wanted if held.get(key, 0) < servers)
        if not room:
            plural = "s" if servers > 1 else ""
            raise TooManyError(
                f"this test holds all that the run has of key {' or '.join(map(repr, wanted))} "
                f"({servers} server{plural}); start more with --rpc-servers={servers + 1}, or "
                "close a session before asking for the next"
            )
        return room


BUILDING_S = 300.0
"""How much longer servers in C may take, which are compiled once before; else the farm ends."""

OPENING_ERRORS = (HandshakeError, DeadlineError, ConnectionLostError, StartError, TrackerError)
"""What `Stack.request` raises if there is no device, or no session on it."""
