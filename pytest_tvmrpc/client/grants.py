"""Waiting at a tracker until it grants a device, across its restarts. Opens no session on it."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Dict, NamedTuple, Optional

from ..errors import ConnectError, ConnectionLostError, DeadlineError, UnknownKeyError
from ..network import Deadline
from ..protocol import tracker as wire
from ..protocol.pause import Pause

if TYPE_CHECKING:
    from .tracker_link import TrackerLink

SETTLING_S = 15.0
"""So long after a tracker was lost, servers are on their way back to it: no key is unknown."""

PATIENCE_S = 30.0
"""A tracker that cannot be reached for so long is not being restarted: the wait is over."""

_LAST_PAUSE_S = 2.0
_ASK_AGAIN_S = 1.0
_PROXY = "proxy["


class Wanted(NamedTuple):
    """What is asked of the tracker."""

    key: str
    priority: float
    session_timeout: float
    waits_for_key: bool


class Grants:
    """One device after the other, as the tracker grants them.

    Args:
        link: the connection to the tracker.
        user: who asks.
        wanted: what for.
        deadline: the end of the wait for all of them.
        patience_s: how long a tracker that cannot be reached may be on its way back.
    """

    def __init__(
        self,
        link: TrackerLink,
        user: str,
        wanted: Wanted,
        deadline: Deadline,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._link = link
        self._wanted = wanted
        self._deadline = deadline
        self._patience_s = patience_s
        self._request = wire.request(
            wanted.key, wanted.priority, user, session_timeout=wanted.session_timeout
        )
        self._question = wire.greet(key=wanted.key)

    def next(self) -> wire.Granted:
        """The next one; a tracker that is restarted meanwhile is asked again.

        Raises:
            UnknownKeyError: no server offers the key.
            DeadlineError: no device became free in time.
            ConnectionLostError: the tracker is gone, and did not come back in time.
        """
        pause, pause_s = Pause(os.urandom, _LAST_PAUSE_S), 0.0
        gone_since: Optional[float] = None
        while True:
            try:
                return self._lease()
            except ConnectionLostError as error:
                now = time.monotonic()
                if not isinstance(error, ConnectError):
                    gone_since = None
                elif gone_since is None:
                    gone_since = now
                is_gone = gone_since is not None and now - gone_since + pause_s > self._patience_s
                at = self._deadline.at
                if is_gone or (at is not None and now + pause_s >= at):
                    raise
            time.sleep(pause_s)
            pause_s = pause.after_failure()

    def _lease(self) -> wire.Granted:
        """Wait until the tracker grants a device; on any other end, the request is withdrawn."""
        try:
            # The greeting is answered at once: behind the grant, or there is none to be had now.
            reply = self._link.ask(self._request + self._question)
            while not wire.is_granted(reply):
                reply = self._wait(*wire.parse_welcome(reply))
            return wire.parse_granted(reply)
        except BaseException:  # KeyboardInterrupt, too: with the connection, the request goes
            self._link.drop()
            raise

    def _wait(self, is_ours: bool, is_served: Optional[bool]) -> Any:
        """The tracker has said whether a server has the key; the grant, or it is asked once more.

        Args:
            is_ours: whether it is a tracker of ours.
            is_served: None: it does not know, or not yet.
        """
        if not (self._wanted.waits_for_key or is_served):
            if (is_ours and is_served is None) or self._link.lost_ago_s < SETTLING_S:
                return self._ask_again()
            reply = self._link.ask(wire.summary())
            if wire.is_granted(reply):
                return reply
            self._check_served(wire.parse_summary(reply))
        try:
            return self._link.receive(self._deadline)
        except DeadlineError:
            return self._last_look(names_key=self._wanted.waits_for_key)

    def _ask_again(self) -> Any:
        """Wait a moment for a grant, then ask again whether a server has the key."""
        at = self._deadline.at
        left_s = _ASK_AGAIN_S if at is None else max(at - time.monotonic(), 0.001)
        try:
            return self._link.receive(Deadline(min(left_s, _ASK_AGAIN_S), self._deadline.what))
        except DeadlineError:
            if left_s <= _ASK_AGAIN_S:
                return self._last_look(names_key=True)
            return self._link.ask(self._question)

    def _check_served(self, state: Dict[str, Any], when: str = "") -> None:
        key, keys = self._wanted.key, served_keys(state)
        if key not in keys:
            known = ", ".join(sorted(map(repr, keys))) or "no servers at all"
            raise UnknownKeyError(
                f"no server offers the key {key!r}{when}; "
                f"the tracker at {self._link.name} has {known}"
            )

    def _last_look(self, *, names_key: bool) -> Any:
        """Find out why there was no device in time; a grant that comes just now is taken.

        Args:
            names_key: whether it is worth a word that no server has the key.

        Raises:
            UnknownKeyError: no server has this key.
            DeadlineError: always else, with the state of the queue.
        """
        key, deadline = self._wanted.key, self._deadline
        reply = self._link.ask(wire.summary())
        if wire.is_granted(reply):
            return reply
        state = wire.parse_summary(reply)
        if names_key:
            limit = f"wait_timeout={deadline.limit_s:g} s"
            self._check_served(state, f", and none came within {limit}")
        queue = state["queue_info"].get(key, {"free": 0, "pending": 0})
        raise DeadlineError(
            f"no device {key!r} became free within wait_timeout={deadline.limit_s:g} s: "
            f"{served_keys(state).get(key, 0)} registered, {queue['free']} free, "
            f"{queue['pending']} pending (this request included); "
            "wait longer, or register more servers with this key"
        )


def served_keys(state: Dict[str, Any]) -> Dict[str, int]:
    """How many servers offer each key; those behind a proxy count as one for each key."""
    found: Dict[str, int] = {}
    for server in state["server_info"]:
        name = server["key"].partition(":")[2]
        is_proxy = name.startswith(_PROXY) and name.endswith("]")
        # A proxy that has no servers now has no keys.
        for key in filter(None, name[len(_PROXY) : -1].split(",")) if is_proxy else [name]:
            found[key] = found.get(key, 0) + 1
    for key, queue in state["queue_info"].items():
        if queue["free"]:  # a server that did not introduce itself
            found.setdefault(key, queue["free"])
    return found
