"""The proxy's side of a tracker, without a socket: one conversation about one server behind it.

Not the connection. Each server has one of its own, since a tracker withdraws an offer only when
the connection that made it closes. One more describes the proxy and offers nothing.
"""

from __future__ import annotations

from typing import Callable, List

from ..protocol import farm
from ..protocol import tracker as wire
from ..protocol.codes import TrackerCode
from ..protocol.json_frames import encode
from ..protocol.offering import Offering

POLL_S = 1.0
"""How often is asked whether a match key was handed out."""

UNUSED_S = 3.0
"""How long a client may take from its grant to its connection; TVM's proxy gives it 5 s."""

MAX_LISTED = 8192
"""Characters of keys that a proxy's own description shows; a tracker takes only so many."""


class Registration(Offering):
    """What the proxy and a tracker have said to each other about one server, and what comes next.

    Args:
        description: the name under which the connection is known to the tracker; it is shown to
            everybody if it starts with ``server:``. Empty: the connection has none yet.
        port: the proxy's port.
        key: the server's device key; empty: nothing is offered.
        entropy: as in `Offering`.

    Raises:
        LocalProtocolError: the key cannot be one.

    Attributes:
        match_key: the key with which the server's client comes; empty if nothing is offered.
        is_taken: whether the server has its client.
    """

    def __init__(
        self, description: str, port: int, key: str = "", *, entropy: Callable[[int], bytes]
    ) -> None:
        super().__init__(key, port, poll_s=POLL_S, unused_s=UNUSED_S, entropy=entropy)
        self._description = description
        self.is_taken = False

    def describe(self, description: str, now: float) -> bytes:
        """The connection is to be known under another name."""
        self._description = description
        return self._say_name(now) if self._is_open else b""

    def taken(self, now: float, client: str = "") -> bytes:
        """The server has its client: nothing is offered any more, nor asked.

        Args:
            client: the client's address.

        Returns:
            What the tracker is to be told, mostly nothing.
        """
        self.is_taken = True
        self._is_offered = False
        return self._say_taken(wire.Serving(client, 0.0), now)

    def lost(self, now: float) -> float:
        """As of every offering.

        What was offered has another match key from now on: nobody can still be given the old one.
        """
        if self._is_offered:
            self.match_key = self._new_match_key()
        return super().lost(now)

    def _introduce(self, now: float) -> bytes:
        introduction = self._say_name(now) if self._description else b""
        if self._is_offered:
            introduction += self._put(now)
            self._owe(TrackerCode.PING, now)
            introduction += wire.greet(takes_orders=True)
        return introduction

    def _say_name(self, now: float) -> bytes:
        self._owe(TrackerCode.UPDATE_INFO, now)
        fields = {"key": self._description, "addr": [None, self.port]}
        return encode([TrackerCode.UPDATE_INFO, fields])

    def _obey(self, order: farm.KickOrder, now: float) -> bytes:
        """End the session it means, or have the client who has not come yet not let in."""
        if order.match_key not in (None, self.match_key):
            return b""
        if self.is_taken:
            self._kick = order.reason
        elif self._is_polled and order.match_key is not None:
            return self._renew(now)
        return b""


def describe_proxy(keys: List[str]) -> str:
    """The name of a proxy's own connection: ``server:proxy[KEY0,KEY1]``, as TVM shows it."""
    shown: List[str] = []
    left = MAX_LISTED
    for key in sorted(keys):
        left -= len(key.encode("unicode_escape")) + 1
        if left < 0:
            shown.append("...")
            break
        shown.append(key)
    return f"server:proxy[{','.join(shown)}]"
