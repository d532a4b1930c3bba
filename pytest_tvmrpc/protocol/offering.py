"""One device offered to a tracker, without a socket: what a server and a proxy say alike.

Not the connection: whoever owns the socket calls `connected`, `received`, `tick` and `lost`, and
sends the bytes it is given; after `received`, he asks `take_kick` whether the session has to end.
Not when there is something to offer, either: that is what the two registrations know. All times
are a monotonic clock's seconds.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Callable, Deque, List, NamedTuple, Optional

from ..errors import RemoteProtocolError
from . import farm
from . import tracker as wire
from .codes import TrackerCode
from .pause import Pause

ANSWER_LIMIT_S = 10.0
"""How long the tracker may take to answer."""


class _Owed(NamedTuple):
    """An answer that the tracker owes us: to what, about which match key, by when."""

    code: TrackerCode
    match_key: str
    limit: float


class Offering:
    """What has been said on one connection to a tracker after the other, and what comes next.

    Args:
        key: the device key; empty: nothing is ever offered.
        port: where clients come.
        custom_addr: the address that they shall use; None: the one the tracker sees.
        poll_s: how often is asked whether the match key was handed out.
        unused_s: how long a client may take from its grant to its connection.
        entropy: as in `Pause`.

    Raises:
        LocalProtocolError: the key cannot be one.

    Attributes:
        match_key: the key with which the next client comes.
        registered: whether the tracker knows us, and an offer of ours if there is one.
    """

    def __init__(
        self,
        key: str,
        port: int,
        custom_addr: Optional[str] = None,
        *,
        poll_s: float,
        unused_s: float,
        entropy: Callable[[int], bytes],
    ) -> None:
        self.key = wire.check_key(key) if key else ""
        self.port = port
        self.custom_addr = custom_addr
        self.registered = False
        self._poll_s = poll_s
        self._unused_s = unused_s
        self._entropy = entropy
        self._is_offered = bool(key)
        self.match_key = self._new_match_key()
        self._kick: Optional[str] = None
        self._reader = wire.FrameReader()
        # What came of the magic; None when all of it did, and when we are not connected.
        self._hello: Optional[bytearray] = None
        self._hello_limit = 0.0
        self._is_open = False
        self._owed: Deque[_Owed] = deque()
        self._next_poll = 0.0
        self._absent_since: Optional[float] = None
        self._pause = Pause(entropy)

    def take_kick(self) -> Optional[str]:
        """The reason, maybe empty, if the tracker ordered the end of the session; said once."""
        reason, self._kick = self._kick, None
        return reason

    def connected(self, now: float) -> bytes:
        """The connection to the tracker stands; the first words to it."""
        self._reset()
        self._hello = bytearray()
        self._hello_limit = now + ANSWER_LIMIT_S
        return wire.MAGIC

    def received(self, received: bytes, now: float) -> bytes:
        """The tracker said something; what to answer, maybe nothing.

        Raises:
            RemoteProtocolError: the peer is no tracker, or refused us; close and call `lost`.
        """
        answer = b""
        if self._hello is not None:
            # TVM's tracker takes the magic only as a segment of its own: the rest waits for it.
            self._hello += received
            if self._hello[:4] != wire.MAGIC[: len(self._hello)]:
                raise RemoteProtocolError("the peer does not answer like an RPC tracker")
            if len(self._hello) < len(wire.MAGIC):
                return b""
            received = bytes(self._hello[len(wire.MAGIC) :])
            self._hello = None
            self._is_open = True
            answer = self._introduce(now)
        elif not self._is_open:
            return b""
        self._reader.feed(received)
        while True:
            frame = self._reader.next_frame()
            if frame is None:
                return answer
            answer += self._take(wire.parse_json(frame), now)

    def tick(self, now: float) -> bytes:
        """What to say because of the time; call at `next_wakeup`, or more often.

        Raises:
            RemoteProtocolError: the tracker does not answer; close and call `lost`.
        """
        if self._hello is not None and now >= self._hello_limit:
            raise RemoteProtocolError(
                f"the peer did not answer like an RPC tracker within {ANSWER_LIMIT_S:g} s"
            )
        if self._owed and now >= self._owed[0].limit:
            raise RemoteProtocolError(
                f"the tracker did not answer a message within {ANSWER_LIMIT_S:g} s"
            )
        if not self._is_polled or now < self._next_poll:
            return b""
        self._next_poll = now + self._poll_s
        if any(owed.code == TrackerCode.GET_PENDING_MATCHKEYS for owed in self._owed):
            return b""
        self._owe(TrackerCode.GET_PENDING_MATCHKEYS, now)
        return wire.get_pending_matchkeys()

    def next_wakeup(self, now: float) -> Optional[float]:
        """Seconds until `tick` has something to do, or None when it has not."""
        points: List[float] = []
        if self._hello is not None:
            points.append(self._hello_limit)
        if self._owed:
            points.append(self._owed[0].limit)
        if self._is_polled:
            points.append(self._next_poll)
        return max(0.0, min(points) - now) if points else None

    def lost(self, now: float) -> float:
        """The connection is gone, or there was none to be had; seconds until the next attempt."""
        self._reset()
        return self._pause.after_failure()

    def _introduce(self, now: float) -> bytes:
        """The first words behind the magic."""
        raise NotImplementedError

    def _obey(self, order: farm.KickOrder, now: float) -> bytes:
        """Note the end of the session it means, or forget the client whom it means."""
        raise NotImplementedError

    @property
    def _is_polled(self) -> bool:
        return self._is_open and self._is_offered

    def _reset(self) -> None:
        self.registered = False
        self._reader = wire.FrameReader()
        self._hello = None
        self._is_open = False
        self._owed.clear()
        self._absent_since = None

    def _renew(self, now: float) -> bytes:
        self.match_key = self._new_match_key()
        return self._put(now)

    def _put(self, now: float) -> bytes:
        self._absent_since = None
        self._next_poll = now + self._poll_s
        self._owe(TrackerCode.PUT, now)
        return wire.put(self.key, self.port, self.match_key, self.custom_addr)

    def _say_taken(self, session: wire.Serving, now: float) -> bytes:
        """Our client has come; tell the tracker if a question of ours made it believe he has not.

        It is asked only while nobody has come, so that the tracker knows it from our silence
        otherwise: most sessions start without another word.
        """
        is_asked = any(owed.code == TrackerCode.GET_PENDING_MATCHKEYS for owed in self._owed)
        was_absent, self._absent_since = self._absent_since is not None, None
        if not self._is_open or not (is_asked or was_absent):
            return b""
        self._owe(TrackerCode.PING, now)
        return wire.greet(takes_orders=True, serving=session)

    def _owe(self, code: TrackerCode, now: float) -> None:
        self._owed.append(_Owed(code, self.match_key, now + ANSWER_LIMIT_S))

    def _take(self, value: Any, now: float) -> bytes:
        """An order, or an answer; these come in the order of the questions."""
        if farm.is_order(value):
            order = farm.parse_order(value)
            return b"" if order is None else self._obey(order, now)
        if not self._owed:
            raise RemoteProtocolError("the tracker answered what it was not asked")
        owed = self._owed.popleft()
        if owed.code == TrackerCode.GET_PENDING_MATCHKEYS:
            return self._compare(wire.parse_pending(value), owed.match_key, now)
        if owed.code == TrackerCode.PING:
            wire.parse_welcome(value)  # trackers that give no orders answer it, too
            return b""
        wire.parse_status(value)
        # A later offer of ours may be on its way already: clients can be faster than this answer.
        if not self.registered and (owed.code == TrackerCode.PUT or not self._has_offer_owed()):
            self.registered = True
            self._pause.reset()
        return b""

    def _compare(self, pending: List[str], match_key: str, now: float) -> bytes:
        """Offer anew if our key was handed out, and whoever got it has not come."""
        if not self._is_offered or match_key != self.match_key:
            return b""  # about a key that is over
        if self.match_key in pending:
            self._absent_since = None
        elif self._absent_since is None:
            self._absent_since = now
        elif now - self._absent_since >= self._unused_s:
            return self._renew(now)
        return b""

    def _has_offer_owed(self) -> bool:
        return any(owed.code == TrackerCode.PUT for owed in self._owed)

    def _new_match_key(self) -> str:
        return wire.make_match_key(self.key, self._entropy(8)) if self.key else ""
