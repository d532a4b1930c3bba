"""The server's side of the tracker, without a socket: an offer while no session goes on.

Not the connection. What the tracker says is read during a session, too.
"""

from __future__ import annotations

from typing import Callable, NamedTuple, Optional

from ..protocol import farm
from ..protocol import tracker as wire
from ..protocol.codes import TrackerCode
from ..protocol.offering import Offering

POLL_S = 0.5
"""How often an idle server asks whether its match key was handed out."""

UNUSED_S = 2.0
"""How long a client may take from its grant to its connection; TVM's servers give it 8 s."""


class _Session(NamedTuple):
    """The session that goes on: by which match key it came, from where, since when."""

    match_key: str
    client: str
    since: float


class Registration(Offering):
    """What a server and a tracker have said to each other, and what the server says next.

    Args:
        key: the device key that this server serves.
        port: the port on which it listens.
        custom_addr: the address that clients shall use; None: the one the tracker sees.
        entropy: as in `Offering`.

    Raises:
        LocalProtocolError: the key cannot be one.

    Attributes:
        match_key: the key with which the next client comes; empty while one is served.
    """

    def __init__(
        self,
        key: str,
        port: int,
        custom_addr: Optional[str] = None,
        *,
        entropy: Callable[[int], bytes],
    ) -> None:
        super().__init__(
            wire.check_key(key),
            port,
            custom_addr,
            poll_s=POLL_S,
            unused_s=UNUSED_S,
            entropy=entropy,
        )
        self._session: Optional[_Session] = None

    def accepts(self, match_key: str) -> bool:
        """Whether a client with this match key is the one that this server waits for."""
        return self._is_offered and match_key == self.match_key

    def occupied(self, now: float, client: str = "") -> bytes:
        """A client with the current match key came; nobody else is accepted until `offer`.

        Args:
            client: the client's address, for a tracker that comes back and asks who is here.

        Returns:
            What the tracker is to be told, mostly nothing.
        """
        self._session = _Session(self.match_key, client, now)
        self._is_offered = False
        self.match_key = ""
        return self._say_taken(wire.Serving(client, 0.0), now)

    def offer(self, now: float) -> bytes:
        """The server is idle; offers a new match key, or does when the tracker is connected."""
        self._is_offered = True
        self._session = None
        self._kick = None
        if self._is_open:
            return self._renew(now)
        self.match_key = self._new_match_key()
        return b""

    def _introduce(self, now: float) -> bytes:
        self._owe(TrackerCode.UPDATE_INFO, now)
        introduction = wire.update_info(self.key, self.port, self.custom_addr)
        if self._is_offered:
            introduction += self._renew(now)
        self._owe(TrackerCode.PING, now)
        session, serving = self._session, None
        if session is not None:
            serving = wire.Serving(session.client, max(0.0, now - session.since))
        return introduction + wire.greet(takes_orders=True, serving=serving)

    def _obey(self, order: farm.KickOrder, now: float) -> bytes:
        """Take note of the end of the session it means; one that is over already is not another."""
        if self._session is not None:
            if order.match_key in (None, self._session.match_key):
                self._kick = order.reason
        elif order.match_key == self.match_key:
            return self._renew(now)  # kicked before he came: his key is good no more
        return b""
