"""Opening a session on a server that a tracker granted. Asks no tracker.

A match key is good for one connection, so that what an attempt teaches about a server is of use for
the next grant only: which dialect it speaks, and that its proxy takes one word at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, NamedTuple, Optional, Sequence, Set, Tuple

from ..errors import ConnectError, ConnectionLostError, DialectLearnedError
from ..session.opening import Wanted
from .connect import open_rpc_session

if TYPE_CHECKING:
    from ..protocol.tracker import Granted
    from .session import RPCSession


class SessionWish(NamedTuple):
    """What the session shall be like; as the arguments of `connect`."""

    session_timeout: float
    constructor: Optional[Sequence[Any]]
    connect_timeout: float
    handshake_timeout: float
    call_timeout: float

    @property
    def opening_s(self) -> float:
        """Seconds that opening one may take."""
        return self.connect_timeout + self.handshake_timeout


class Opener:
    """Opens sessions on one grant after the other, until one succeeds.

    Args:
        wish: what the session shall be like.
    """

    def __init__(self, wish: SessionWish) -> None:
        self.wish = wish
        self._dialects: Dict[Tuple[str, int], Any] = {}
        self._slow: Set[Tuple[str, int]] = set()

    def open(self, resource: Granted, left_s: float) -> RPCSession:
        """A session on this server.

        Args:
            left_s: seconds that are left in all; what the wish allows may be less.

        Raises: as `connect`.
        """
        wish, address = self.wish, (resource.host, resource.port)
        wanted = Wanted(
            resource.host,
            resource.port,
            resource.match_key,
            wish.session_timeout,
            min(wish.connect_timeout, left_s),
            min(wish.handshake_timeout, left_s),
            is_early=address not in self._slow,
        )
        return open_rpc_session(
            wanted, wish.constructor, wish.call_timeout, self._dialects.get(address)
        )

    def learn(self, resource: Granted, error: Exception) -> bool:
        """Take a lesson from what `open` raised; False: there is none, or it is known already."""
        address = (resource.host, resource.port)
        if isinstance(error, DialectLearnedError):
            is_new = address not in self._dialects
            self._dialects[address] = error.dialect
            return is_new
        if isinstance(error, ConnectionLostError) and not isinstance(error, ConnectError):
            self._slow.add(address)
        return False
