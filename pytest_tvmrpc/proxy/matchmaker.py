"""Who is paired with whom: clients and servers that wait for one another. No socket, no clock.

A peer is whatever hashable name the caller gives it. All times are a monotonic clock's seconds.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Dict, Hashable, List, NamedTuple, Optional, Tuple, Union

from ..protocol.codes import HandshakeReply

MAX_WAITING = 2048
"""How many peers wait at a time; one more is refused."""


class Pair(NamedTuple):
    """An instruction: connect these two; the one who waited is answered first."""

    first: Hashable
    second: Hashable


class Refuse(NamedTuple):
    """An instruction: give the peer this reply and close. The reason is for our own log."""

    peer: Hashable
    reply: HandshakeReply
    reason: str


Decision = Union[Pair, Refuse]


class _Place(NamedTuple):
    """The key with which a peer waits, and until when."""

    match_key: str
    until: float


class Matchmaker:
    """Pairs a server with a client of the same match key, whoever comes first.

    Args:
        timeout_client_s: how long a client waits for its server.
        timeout_server_s: how long a server waits for its client.
        max_waiting: how many peers may wait at a time.
    """

    def __init__(
        self, timeout_client_s: float, timeout_server_s: float, max_waiting: int = MAX_WAITING
    ) -> None:
        self._timeouts_s = {False: timeout_client_s, True: timeout_server_s}
        self._max_waiting = max_waiting
        self._peers: Dict[Tuple[bool, str], Hashable] = {}
        # By side, and in the order of their time limits, as those of one side are equally long.
        self._places: Dict[bool, OrderedDict[Hashable, _Place]] = {
            False: OrderedDict(),
            True: OrderedDict(),
        }

    def arrived(
        self, peer: Hashable, is_server: bool, match_key: str, now: float, *, waits: bool = True
    ) -> List[Decision]:
        """A peer has said its key; it waits for its partner, or is refused if it may not."""
        partner = self._peers.get((not is_server, match_key))
        if partner is not None:
            self.left(partner)
            return [Pair(partner, peer)]
        if not waits:
            return [Refuse(peer, HandshakeReply.MISMATCH, "no server waits with this match key")]
        if (is_server, match_key) in self._peers:
            return [Refuse(peer, HandshakeReply.DUPLICATE, "another one waits with the same key")]
        if len(self._peers) >= self._max_waiting:
            reason = f"{self._max_waiting} peers are waiting already"
            return [Refuse(peer, HandshakeReply.MISMATCH, reason)]
        self._peers[is_server, match_key] = peer
        self._places[is_server][peer] = _Place(match_key, now + self._timeouts_s[is_server])
        return []

    def rename(self, server: Hashable, match_key: str) -> None:
        """A waiting server goes by another match key from now on; not its time limit's business."""
        place = self._places[True].get(server)
        if place is not None:
            del self._peers[True, place.match_key]
            self._peers[True, match_key] = server
            self._places[True][server] = place._replace(match_key=match_key)

    def left(self, peer: Hashable) -> None:
        """A peer is gone; forgets it if it waited."""
        for is_server, places in self._places.items():
            place = places.pop(peer, None)
            if place is not None:
                del self._peers[is_server, place.match_key]

    def tick(self, now: float) -> List[Decision]:
        """Whose wait is over; call at `next_wakeup`, or more often."""
        decisions: List[Decision] = []
        for is_server, places in self._places.items():
            while places and next(iter(places.values())).until <= now:
                peer = next(iter(places))
                self.left(peer)
                reason = f"no partner within {self._timeouts_s[is_server]:g} s"
                decisions.append(Refuse(peer, HandshakeReply.MISMATCH, reason))
        return decisions

    def next_wakeup(self, now: float) -> Optional[float]:
        """Seconds until the next wait is over, or None when nobody waits."""
        firsts = [next(iter(places.values())).until for places in self._places.values() if places]
        return max(0.0, min(firsts) - now) if firsts else None
