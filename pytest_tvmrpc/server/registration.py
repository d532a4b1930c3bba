"""The server's side of the tracker, without a socket: offer, watch the match key, offer anew.

Not the connection: whoever owns the socket calls `connected`, `received`, `tick` and `lost`, and
sends the bytes it is given. All times are a monotonic clock's seconds.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Callable, Deque, List, NamedTuple, Optional

from ..errors import RemoteProtocolError
from ..protocol import tracker as wire
from ..protocol.codes import TrackerCode

POLL_S = 0.5
"""How often an idle server asks whether its match key was handed out."""

UNUSED_S = 2.0
"""How long a client may take from its grant to its connection; TVM's servers give it 8 s."""

ANSWER_LIMIT_S = 10.0
"""How long the tracker may take to answer."""

FIRST_PAUSE_S = 0.1
LAST_PAUSE_S = 10.0


class _Owed(NamedTuple):
    """An answer that the tracker owes us: to what, about which match key, by when."""

    code: TrackerCode
    match_key: str
    limit: float


class Registration:
    """What a server and a tracker have said to each other, and what the server says next.

    Args:
        key: the device key that this server serves.
        port: the port on which it listens.
        custom_addr: the address that clients shall use; None: the one the tracker sees.
        entropy: gives so many random bytes, as ``os.urandom`` does. Not `secrets` or `random`,
            which take 5 MB of memory for the same.

    Raises:
        LocalProtocolError: the key cannot be one.

    Attributes:
        match_key: the key with which the next client comes; empty while one is served.
        registered: whether the tracker knows this server, and its offer if there is one.
    """

    def __init__(
        self,
        key: str,
        port: int,
        custom_addr: Optional[str] = None,
        *,
        entropy: Callable[[int], bytes],
    ) -> None:
        self.key = wire.check_key(key)
        self._entropy = entropy
        self.port = port
        self.custom_addr = custom_addr
        self.match_key = self._new_match_key()
        self.registered = False
        self._is_idle = True
        self._reader = wire.FrameReader()
        # What came of the magic; None when all of it did, and when we are not connected.
        self._hello: Optional[bytearray] = None
        self._hello_limit: Optional[float] = None
        self._is_open = False
        self._owed: Deque[_Owed] = deque()
        self._next_poll = 0.0
        self._absent_since: Optional[float] = None
        self._pause_s = FIRST_PAUSE_S

    def accepts(self, match_key: str) -> bool:
        """Whether a client with this match key is the one that this server waits for."""
        return self._is_idle and match_key == self.match_key

    def connected(self, now: float) -> bytes:
        """The connection to the tracker stands; the first words to it."""
        self._reset()
        self._hello = bytearray()
        self._hello_limit = now + ANSWER_LIMIT_S
        return wire.MAGIC

    def received(self, data: bytes, now: float) -> bytes:
        """The tracker said something; what to answer, maybe nothing.

        Raises:
            RemoteProtocolError: the peer is no tracker, or refused us; close and call `lost`.
        """
        answer = b""
        if self._hello is not None:
            # TVM's tracker takes the magic only as a segment of its own: the rest waits for it.
            self._hello += data
            data = bytes(self._hello[len(wire.MAGIC) :])
            if self._hello[:4] != wire.MAGIC[: len(self._hello)]:
                raise RemoteProtocolError("the peer does not answer like an RPC tracker")
            if len(self._hello) < len(wire.MAGIC):
                return b""
            answer = self._introduce(now)
        elif not self._is_open:
            return b""
        self._reader.feed(data)
        while True:
            frame = self._reader.next_frame()
            if frame is None:
                return answer
            answer += self._take(wire.parse_json(frame), now)

    def occupied(self, now: float) -> None:
        """A client with the current match key came; nobody else is accepted until `offer`."""
        self._is_idle = False
        self.match_key = ""
        self._absent_since = None

    def offer(self, now: float) -> bytes:
        """The server is idle; offers a new match key, or does when the tracker is connected."""
        self._is_idle = True
        if self._is_open:
            return self._renew(now)
        self.match_key = self._new_match_key()
        return b""

    def tick(self, now: float) -> bytes:
        """What to say because of the time; call at `next_wakeup`, or more often.

        Raises:
            RemoteProtocolError: the tracker does not answer; close and call `lost`.
        """
        if self._hello_limit is not None and now >= self._hello_limit:
            raise RemoteProtocolError(
                f"the peer did not answer like an RPC tracker within {ANSWER_LIMIT_S:g} s"
            )
        if self._owed and now >= self._owed[0].limit:
            raise RemoteProtocolError(
                f"the tracker did not answer a message within {ANSWER_LIMIT_S:g} s"
            )
        if not (self._is_open and self._is_idle) or now < self._next_poll:
            return b""
        self._next_poll = now + POLL_S
        if any(owed.code == TrackerCode.GET_PENDING_MATCHKEYS for owed in self._owed):
            return b""
        self._owe(TrackerCode.GET_PENDING_MATCHKEYS, now)
        return wire.get_pending_matchkeys()

    def next_wakeup(self, now: float) -> Optional[float]:
        """Seconds until `tick` has something to do, or None when it has not."""
        points: List[float] = []
        if self._hello_limit is not None:
            points.append(self._hello_limit)
        if self._owed:
            points.append(self._owed[0].limit)
        if self._is_open and self._is_idle:
            points.append(self._next_poll)
        return max(0.0, min(points) - now) if points else None

    def lost(self, now: float) -> float:
        """The connection is gone, or there was none to be had; seconds until the next attempt."""
        self._reset()
        pause_s = self._pause_s
        self._pause_s = min(2 * pause_s, LAST_PAUSE_S)
        # Many servers lose their tracker at once, and shall not return at once.
        return pause_s * (0.5 + self._entropy(1)[0] / 512)

    def _reset(self) -> None:
        self.registered = False
        self._reader = wire.FrameReader()
        self._hello = None
        self._hello_limit = None
        self._is_open = False
        self._owed.clear()
        self._absent_since = None

    def _introduce(self, now: float) -> bytes:
        self._hello = None
        self._hello_limit = None
        self._is_open = True
        self._owe(TrackerCode.UPDATE_INFO, now)
        introduction = wire.update_info(self.key, self.port, self.custom_addr)
        return introduction + (self._renew(now) if self._is_idle else b"")

    def _renew(self, now: float) -> bytes:
        self.match_key = self._new_match_key()
        self._absent_since = None
        self._next_poll = now + POLL_S
        self._owe(TrackerCode.PUT, now)
        return wire.put(self.key, self.port, self.match_key, self.custom_addr)

    def _owe(self, code: TrackerCode, now: float) -> None:
        self._owed.append(_Owed(code, self.match_key, now + ANSWER_LIMIT_S))

    def _take(self, value: Any, now: float) -> bytes:
        """An answer; they come in the order of the questions."""
        if not self._owed:
            raise RemoteProtocolError("the tracker answered what it was not asked")
        owed = self._owed.popleft()
        if owed.code != TrackerCode.GET_PENDING_MATCHKEYS:
            wire.parse_status(value)
            if not self.registered and not self._has_introduction_owed():
                self.registered = True
                self._pause_s = FIRST_PAUSE_S
            return b""
        pending = wire.parse_pending(value)
        if not self._is_idle or owed.match_key != self.match_key:
            return b""  # about a key that is over
        if self.match_key in pending:
            self._absent_since = None
        elif self._absent_since is None:
            self._absent_since = now
        elif now - self._absent_since >= UNUSED_S:
            return self._renew(now)
        return b""

    def _has_introduction_owed(self) -> bool:
        return any(owed.code != TrackerCode.GET_PENDING_MATCHKEYS for owed in self._owed)

    def _new_match_key(self) -> str:
        return wire.make_match_key(self.key, self._entropy(8))
