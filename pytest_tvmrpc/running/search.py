"""One test's wait for a device, on any of its keys, and not on one that it may not have.

Starts no tracker and knows no tests; who asks, and where, is the matter of stack.py.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Callable, Mapping, NamedTuple, Sequence

from ..errors import (
    ConnectError,
    ConnectionLostError,
    DeadlineError,
    HandshakeError,
    RPCError,
    UnknownKeyError,
)
from .waiting import Line

if TYPE_CHECKING:
    from ..client.session import RPCSession
    from ..client.tracker import TrackerSession
    from ..protocol.tracker import Granted
    from .selection import Wish
    from .waiting import Answer

    Accepts = Callable[[str, str], bool]
    """Whether a test may have a device: told its key, and its name."""

TURN_S = 2.0
"""How long a device that a test may not have is kept from coming back while others wait for it."""

HEAD_START_S = 0.1
"""How long the key of which a device is free is asked for alone: a free one comes at once."""

FIRST_PAUSE_S, LAST_PAUSE_S = 0.05, 1.0
"""Between attempts at a device that could not be opened."""

LATE_S = 2.0
"""How long handing back a device may take that came too late; then its server notices itself."""


class Given(NamedTuple):
    """A device that a test was given, with a session on it."""

    key: str
    device: str
    session: RPCSession


class Missed(NamedTuple):
    """A device that was given, and on which no session could be opened."""

    key: str
    device: str
    at: float
    """When that was tried, in seconds since the epoch."""
    took_s: float
    error: Exception


class Search:
    """One wait.

    Args:
        tracker: who is asked.
        connect: makes one more connection to it.
        wish: what the test wants.
        accepts: whether the test may have a device.
        wait_s: for how long a device is waited for.
        waits_for_key: whether servers may still be on their way to the tracker.
        missed: gets what could not be opened.
    """

    def __init__(
        self,
        tracker: TrackerSession,
        connect: Callable[[], TrackerSession],
        wish: Wish,
        accepts: Accepts,
        wait_s: float,
        waits_for_key: bool,
        missed: list[Missed],
    ) -> None:
        from ..client.granted import Opener, SessionWish

        self._tracker = tracker
        self._wish = wish
        self._accepts = accepts
        self._wait_s = wait_s
        self._waits_for_key = waits_for_key
        self._missed = missed
        self._started = time.monotonic()
        self._pause_s = FIRST_PAUSE_S
        self._opener = Opener(
            SessionWish(wish.session_s, None, wish.connect_s, wish.connect_s, wish.call_s)
        )
        self._line = Line(connect, self._lease, self._decline)
        self._held: list[Given] = []  # so that they do not come back at once
        self._unknown: dict[str, Exception] = {}

    def run(self) -> Given:
        """The device.

        Raises:
            UnknownKeyError: nobody offers any of the keys.
            DeadlineError: none was given in time.
            HandshakeError: the only ones that were given could not be opened.
            ConnectionLostError, TrackerError: what the tracker said.
        """
        __tracebackhide__ = True
        try:
            while True:
                if self._missed and self._left_s <= 0:
                    raise self._missed_all()
                given = self._open(*self._next())
                if given is None:
                    continue
                self._held.append(given)  # whatever the hook does, it is given back
                if self._takes(given):
                    self._held.remove(given)
                    return given
                self._line.join(given.key)  # before it goes back, so that it goes to somebody else
                self._yield_held()
        finally:
            self._line.close()
            for given in self._held:
                given.session.close()

    @property
    def _left_s(self) -> float:
        return self._started + self._wait_s - time.monotonic()

    # A device of the tracker

    def _next(self) -> tuple[str, Granted]:
        """The next device that the tracker gives."""
        __tracebackhide__ = True
        keys = self._wish.keys
        try:
            if len(keys) == 1 and not (self._held or self._line.keys):
                # As nearly always; this needs no thread.
                return keys[0], self._lease(self._tracker, keys[0])
            return self._next_in_line()
        except UnknownKeyError:
            if not self._missed:
                raise
            failure: Exception = self._missed_all()
        except DeadlineError as error:
            if error.argument != "wait_timeout":
                raise
            failure = self._in_vain(error)
        raise failure

    def _lease(self, tracker: TrackerSession, key: str) -> Granted:
        __tracebackhide__ = True
        wait_s = max(round(self._left_s, 3), 0.001)  # it stands in messages
        wish = self._wish
        try:
            return tracker.lease(
                key,
                wait_s,
                wish.session_s,
                priority=wish.priority,
                wait_for_key=self._waits_for_key,
            )
        except DeadlineError as error:
            error.argument = error.argument or "wait_timeout"
            raise

    def _next_in_line(self) -> tuple[str, Granted]:
        __tracebackhide__ = True
        line, keys = self._line, self._wish.keys
        found = None if line.keys or self._held else self._first_in_line()
        while True:
            if found is None:
                for key in keys:
                    if key not in self._unknown:
                        line.join(key)
                found = line.next(TURN_S)
            if found is None:
                self._unknown.clear()  # somebody may have it by now
                self._yield_held()
                continue
            (key, answer), found = found, None
            if isinstance(answer, UnknownKeyError):
                self._unknown[key] = answer
                if all(key in self._unknown for key in keys):
                    raise self._unknown[keys[0]]
            elif isinstance(answer, Exception):
                raise answer
            else:
                return key, answer

    def _first_in_line(self) -> Answer | None:
        """What comes at once, if a device of one of the keys is free: no other shall be taken."""
        summary = self._tracker.summary()
        key = most_likely(summary, self._wish.keys)
        if not summary["queue_info"].get(key, {"free": 0})["free"]:
            return None
        self._line.join(key)
        return self._line.next(HEAD_START_S)

    def _decline(self, grant: Granted) -> None:
        """Let a device go that came too late; connecting tells its server at once."""
        try:
            self._opener.open(grant, LATE_S).close()
        except RPCError:  # it offers itself anew when nobody comes
            return

    # A session on it

    def _open(self, key: str, grant: Granted) -> Given | None:
        from ..network import format_address

        device = f"{key}@{format_address(grant.host, grant.port)}"
        if self._is_avoided(key, device):
            return None  # nobody comes: its server offers it anew in a while, to somebody else
        granted, at = time.monotonic(), time.time()
        try:
            session = self._opener.open(grant, max(self._left_s, 0) + self._opener.wish.opening_s)
        except (ConnectionLostError, HandshakeError, DeadlineError) as error:
            if not self._opener.learn(grant, error):
                self._missed.append(Missed(key, device, at, time.monotonic() - granted, error))
                self._pause()
            return None
        session.key, session.queued_s = key, granted - self._started
        session.connect_s = time.monotonic() - granted
        return Given(key, device, session)

    def _pause(self) -> None:
        time.sleep(max(min(self._pause_s, self._left_s), 0.0))
        self._pause_s = min(2 * self._pause_s, LAST_PAUSE_S)

    def _is_avoided(self, key: str, device: str) -> bool:
        """Whether a device shall not be tried again now: it failed, and there is a better one."""
        errors = [missed.error for missed in self._missed if missed.device == device]
        if not errors:
            return False
        if len(errors) == 1 and not isinstance(errors[0], (ConnectError, DeadlineError)):
            return False  # it may have been going down for a moment, or be a proxy of TVM
        return not self._has_to_do(key, device)

    # Whether the test may have it

    def _takes(self, given: Given) -> bool:
        if self._accepts(given.key, given.device):
            return True
        return self._has_to_do(given.key, given.device)

    def _has_to_do(self, key: str, device: str) -> bool:
        """Whether a device that is not wanted is better than none."""
        if time.monotonic() > self._started + self._wait_s / 2:
            return True
        unwanted = {device, *(x.device for x in self._held), *(x.device for x in self._missed)}
        return not others(self._tracker.summary(), key, unwanted, self._accepts)

    def _yield_held(self) -> None:
        """Give back what others wait for; what nobody wants would come back at once."""
        if not self._held:
            return
        queues = self._tracker.summary()["queue_info"]
        for given in list(self._held):
            mine = given.key in self._line.keys
            if queues.get(given.key, {"pending": 0})["pending"] > mine:
                self._held.remove(given)
                given.session.close()

    # Why there is none

    def _in_vain(self, error: DeadlineError) -> Exception:
        """What to raise at the end of the wait."""
        if self._missed:
            missed = {one.device for one in self._missed}
            summary = self._tracker.summary()
            if not any(others(summary, key, missed, self._accepts) for key in self._wish.keys):
                return self._missed_all()
            error.args = (f"{error}; {self._missed_words()}",)
        error.args = (f"{error}{self._holders()}",)
        return error

    def _missed_all(self) -> HandshakeError:
        failure = HandshakeError(self._missed_words())
        failure.__cause__ = self._missed[-1].error
        return failure

    def _missed_words(self) -> str:
        last = {missed.device: missed for missed in self._missed}
        counts = {name: sum(one.device == name for one in self._missed) for name in last}
        return "; ".join(
            f"no session could be opened on {name}"
            + (f" ({counts[name]} attempts)" if counts[name] > 1 else "")
            + f": {missed.error}"
            for name, missed in last.items()
        )

    def _holders(self) -> str:
        """Who has the devices that were waited for; empty if the tracker cannot tell."""
        from ..wording import seconds

        try:
            if self._tracker.kind != "tvmrpc":
                return ""
            servers = self._tracker.who().servers
        except RPCError:  # that the wait was in vain is what matters
            return ""
        held = [
            f"{server.key}@{server.address} is held by {server.holder.user} "
            f"for {seconds(server.holder.since_s)}"
            if server.holder
            else f"{server.key}@{server.address} is {server.state.value}"
            for server in servers
            if server.key in self._wish.keys
        ]
        return f"; {'; '.join(held)}" if held else ""


def most_likely(summary: Mapping[str, Any], keys: Sequence[str]) -> str:
    """The key of which a device is to be had first: most free ones, else the shortest queue."""
    from ..client.grants import served_keys

    served = served_keys(dict(summary))

    def rank(key: str) -> tuple[bool, float, float]:
        queue = summary["queue_info"].get(key, {"free": 0, "pending": 0})
        count = served.get(key, 0)
        return (not count, -queue["free"], (queue["pending"] + 1) / max(count, 1))

    return min(keys, key=rank)


def others(summary: Mapping[str, Any], key: str, refused: set[str], accepts: Accepts) -> list[str]:
    """The devices of a key that a test could have instead of those that were refused."""
    from ..network import format_address

    names = [
        f"{key}@{format_address(str(server['addr'][0]), server['addr'][1])}"
        for server in summary["server_info"]
        if server["key"] == f"server:{key}" and isinstance(server["addr"][1], int)
    ]
    return [name for name in names if name not in refused and accepts(key, name)]
