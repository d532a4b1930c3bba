"""The checks of a tracker: that it is one, what it has, and that it gives a device."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, Optional

from ..client.grants import served_keys
from ..client.tracker import TrackerSession
from ..client.user import default_user
from ..errors import DeadlineError, TrackerError
from ..network import Deadline
from ..protocol.farm import State
from .asking import duration
from .checks import Check, FailedCheckError, Found, Hop
from .probing import identify

if TYPE_CHECKING:
    from ..protocol.tracker import Granted

_SHOWN = 8
"""Keys in one line."""

_GRACE_S = 1.0
"""A server behind a proxy is not there for a moment between two sessions."""

_POLL_S = 0.02


class _Count(NamedTuple):
    servers: int
    free: int


class TrackerChecks:
    """A tracker, as far as the checks have come; to be closed.

    Args:
        host, port: its address.
        key: the key of the device that is wanted; empty: any.
        limit_s: seconds for each check.
        wait_s: seconds to wait for a device.
        session_s: for how long the device is wanted at most.

    Attributes:
        granted: the device that it gave.
    """

    def __init__(
        self, host: str, port: int, key: str, limit_s: float, wait_s: float, session_s: int
    ) -> None:
        self.hop = Hop("the tracker (tvmrpc tracker)", host, port, limit_s)
        self.granted: Optional[Granted] = None
        self._key = key
        self._wait_s = wait_s
        self._session_s = session_s
        self._user = f"{default_user()} (doctor)"
        self._session: Optional[TrackerSession] = None

    def checks(self) -> List[Check]:
        """In order."""
        return [
            Check("tracker name", self.hop.find),
            Check("tracker port", self._port),
            Check("tracker", self._tracker, "restart the tracker"),
            Check("servers", self._servers, "restart the tracker"),
            Check("device", self._device, "look at the tracker's output"),
        ]

    def close(self) -> None:
        """A device that nobody connected to goes back to the tracker."""
        if self._session is not None:
            self._session.close()

    @property
    def _tracker_session(self) -> TrackerSession:
        assert self._session is not None
        return self._session

    def _port(self) -> Found:
        self.hop.connect().close()
        return self.hop.reached()

    def _tracker(self) -> Found:
        assert self.hop.place is not None
        host, port = self.hop.place[1][:2]
        try:
            self._session = TrackerSession((host, port), timeout=self.hop.limit_s, user=self._user)
        except TrackerError as error:
            raise self._no_tracker(error) from None
        kind = self._session.kind
        names = {"tvmrpc": "a tracker of pytest-tvmrpc", "tvm": "a tracker of TVM"}
        return Found(names[kind], {"kind": kind})

    def _no_tracker(self, error: TrackerError) -> FailedCheckError:
        assert self.hop.place is not None
        peer = identify(self.hop.place, self.hop.limit_s)
        if peer.kind == "server":
            return FailedCheckError(
                f"{self.hop.name} is a server or proxy, not a tracker",
                f"run `tvmrpc doctor {self.hop.name}` to check that, or give the tracker's port, "
                "which is 9190 unless it was started with another",
                peer=peer.kind,
            )
        if peer.kind == "tracker":
            return FailedCheckError(str(error), "it is a tracker that hangs: restart it")
        return FailedCheckError(
            f"{self.hop.name} is {peer.text}, not a tracker",
            "correct the port: a tracker's is 9190 unless it was started with another",
            peer=peer.kind,
        )

    # --- what it has --------------------------------------------------------------------------

    def _servers(self) -> Found:
        counts = self._counts()
        grace = time.monotonic() + min(_GRACE_S, self.hop.limit_s)
        while (self._key not in counts if self._key else not counts) and time.monotonic() < grace:
            time.sleep(_POLL_S)
            counts = self._counts()
        if not counts:
            raise FailedCheckError(
                "no server is registered",
                f"start one: tvmrpc server --host 0.0.0.0 --tracker {self.hop.name} --key KEY. If "
                "it runs already, its output says why it does not reach the tracker",
            )
        shown = ", ".join(
            f"{key!r} {count.free} of {count.servers} free"
            for key, count in sorted(counts.items())[:_SHOWN]
        )
        shown += f" and {len(counts) - _SHOWN} more keys" if len(counts) > _SHOWN else ""
        if self._key and self._key not in counts:
            raise FailedCheckError(
                f"no server has the key {self._key!r}; there are {shown}",
                f"correct the key, or start a server with it: tvmrpc server --host 0.0.0.0 "
                f"--tracker {self.hop.name} --key {self._key}",
            )
        self._key = self._key or max(counts, key=lambda key: (counts[key].free > 0, key))
        return Found(shown, {"keys": {key: count._asdict() for key, count in counts.items()}})

    def _counts(self) -> Dict[str, _Count]:
        tracker = self._tracker_session
        counts: Dict[str, _Count] = {}
        if tracker.kind == "tvmrpc":
            for server in tracker.who().servers:
                count = counts.get(server.key, _Count(0, 0))
                is_free = server.state is State.FREE
                counts[server.key] = _Count(count.servers + 1, count.free + is_free)
            return counts
        summary = tracker.summary()
        for key, servers in served_keys(summary).items():
            queue: Dict[str, Any] = summary["queue_info"].get(key, {"free": 0})
            counts[key] = _Count(max(servers, queue["free"]), queue["free"])
        return counts

    # --- the device ---------------------------------------------------------------------------

    def _device(self) -> Found:
        try:
            self.granted = self._tracker_session.lease(self._key, self._wait_s, self._session_s)
        except DeadlineError as error:
            raise self._no_device(error) from None
        address = f"{self._key}@{self.granted.host}:{self.granted.port}"
        return Found(
            f"the tracker gave {address}",
            {"key": self._key, "host": self.granted.host, "port": self.granted.port},
        )

    def _no_device(self, error: DeadlineError) -> FailedCheckError:
        tracker = self._tracker_session
        if tracker.kind != "tvmrpc":
            return FailedCheckError(
                str(error),
                "wait longer with --wait, or find out who uses it: a tracker of TVM does not know. "
                "A server of TVM whose session crashed never comes back: restart it",
            )
        states = [
            f"{server.key}@{server.address} is {server.state.value}"
            + (
                f", {server.holder.user} has had it for {duration(server.holder.since_s)}"
                if server.holder
                else f" for {duration(server.since_s)}"
            )
            for server in tracker.who().servers
            if server.key == self._key
        ]
        return FailedCheckError(
            f"none became free within {self._wait_s:g} s: {'; '.join(states)}",
            f"wait longer with --wait, talk to the holder, or end the session: tvmrpc kick "
            f"--host {self.hop.host} --port {self.hop.port} {self._key}. A device that is silent "
            "has lost its network or hangs: see to it",
        )

    def await_release(self) -> str:
        """Waits until the device is no longer ours; what the tracker says of it."""
        assert self.granted is not None
        tracker = self._tracker_session
        deadline = Deadline(self.hop.limit_s, "the server's next offer to the tracker", "--timeout")
        while True:
            if tracker.kind == "tvmrpc":
                holders = [server.holder for server in tracker.who().servers]
                is_free = all(holder is None or holder.user != self._user for holder in holders)
            else:
                queue = tracker.summary()["queue_info"].get(self._key, {"free": 0, "pending": 0})
                is_free = queue["free"] > 0 or queue["pending"] > 0
            if is_free:
                return "the tracker has the device again"
            deadline.left()
            time.sleep(_POLL_S)
