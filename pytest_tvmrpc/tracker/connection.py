"""What is known about one connection: its description, offers, requests, and what it lent out.

Decides nothing: the scheduler does, and keeps one of these for each connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Iterator, NamedTuple, Optional, Set, Tuple

from ..protocol.farm import FarmServer, Holder, State
from ..protocol.tracker import Granted, Serving

if TYPE_CHECKING:
    from .queue import Asker, Offer

_SERVER = "server:"
_PROXY = "proxy["

UNUSED_S = 5.0
"""Who asked for its match keys no longer ago than this may still wait for its client."""


class Lent(NamedTuple):
    """A server that somebody was given; and whether it said that he has come."""

    key: str
    resource: Granted
    asker: Asker
    since: float
    is_taken_up: bool = False

    def is_offered(self, polled: Optional[float], now: float) -> bool:
        """Whether its client has not come yet, as far as can be told.

        Who serves does not ask for its match keys, and who asks has not seen the client yet. Ours
        say so if he comes after they asked; TVM's just stop asking.

        Args:
            polled: when the server last asked for its match keys.
        """
        if self.is_taken_up or polled is None:
            return False
        return polled > self.since and now - polled < UNUSED_S


class Earlier(NamedTuple):
    """A session that is older than the server's connection to us."""

    peer: str
    since: float


class Place(NamedTuple):
    """Where a server is, by its own account; at most one is there under one key."""

    host: str
    port: int
    key: str


class Known:
    """One connection.

    Attributes:
        fields: its description, as it gave it; `nbytes` of it, as JSON.
        host: the address it comes from.
        since: when it first said something about itself.
        introduced: the keys it introduced itself with; a proxy has some.
        is_proxy: whether it speaks for several servers.
        keys: the keys under which it offered something.
        offers: by match key, what is free: key and number in its queue.
        withheld: by match key, what would be free if it talked.
        lent: by match key, what somebody was given.
        requests: by number, the keys it waits for.
        polled: when it last asked for its match keys; None: never.
        takes_orders: whether it can be told to end a session.
        earlier: the session it had when it introduced itself.
        taken_place: the place that is its own.
    """

    __slots__ = (
        *("earlier", "fields", "host", "introduced", "is_proxy", "keys", "lent", "nbytes"),
        *("offers", "polled", "requests", "since", "taken_place", "takes_orders", "withheld"),
    )

    def __init__(self, since: float) -> None:
        self.fields: Dict[str, Any] = {}
        self.nbytes = 0
        self.host = ""
        self.since = since
        self.introduced: Tuple[str, ...] = ()
        self.is_proxy = False
        self.keys: Set[str] = set()
        self.offers: Dict[str, Tuple[str, int]] = {}
        self.withheld: Dict[str, Offer] = {}
        self.lent: Dict[str, Lent] = {}
        self.requests: Dict[int, str] = {}
        self.polled: Optional[float] = None
        self.takes_orders = False
        self.earlier: Optional[Earlier] = None
        self.taken_place: Optional[Place] = None

    @property
    def place(self) -> Optional[Place]:
        """Its place by its description; None for whoever may share it with others.

        A proxy offers many servers at its own address, and so does whoever gives no port.
        """
        host, port = self.fields.get("addr", (None, 0))
        if self.is_proxy or not (self.is_server and host and int(port)):
            return None
        return Place(host, int(port), "".join(self.introduced))

    @property
    def is_server(self) -> bool:
        """Whether a summary shows it, as TVM's tracker decides that."""
        return str(self.fields.get("key", "")).startswith(_SERVER)

    def introduce(self) -> None:
        """Learn from the description which keys this connection speaks for."""
        name = str(self.fields.get("key", ""))
        if not name.startswith(_SERVER):
            self.introduced, self.is_proxy = (), False
            return
        name = name[len(_SERVER) :]
        self.is_proxy = name.startswith(_PROXY) and name.endswith("]")
        keys = name[len(_PROXY) : -1].split(",") if self.is_proxy else [name]
        self.introduced = tuple(filter(None, keys))  # a proxy that has no servers now has no keys

    def serves(self, session: Serving, now: float) -> None:
        """It has a session: the one whose client we sent, or one that is older than we are."""
        self.earlier = Earlier(session.peer, now - session.since_s)
        for match_key, lent in self.lent.items():
            self.lent[match_key] = lent._replace(is_taken_up=True)

    def take_back(self, key: str) -> None:
        """It offers a server: what of it was lent out is over.

        A server offers one thing at a time. A proxy does so for many, and does not say for which:
        the oldest loan of that key ends.
        """
        self.earlier = None
        if not self.is_proxy:
            self.lent.clear()
            return
        for match_key, lent in self.lent.items():
            if lent.key == key:
                del self.lent[match_key]
                return

    def servers(
        self, free: Iterator[Offer], now: float
    ) -> Iterator[Tuple[FarmServer, Optional[str]]]:
        """The servers of this connection, each with the match key of its session if it has one.

        Args:
            free: its offers.
        """
        for offer in free:
            yield _server(offer.key, offer.resource, State.FREE, now - offer.since), None
        for offer in self.withheld.values():
            silent_s = now - (self.polled or offer.since)
            yield _server(offer.key, offer.resource, State.SILENT, silent_s), None
        for match_key, lent in self.lent.items():
            since_s = max(0.0, now - lent.since)
            holder = Holder(lent.asker.user, lent.asker.peer, since_s, lent.asker.limit_s)
            state = State.OFFERED if lent.is_offered(self.polled, now) else State.BUSY
            server = _server(lent.key, lent.resource, state, since_s)
            yield server._replace(holder=holder), match_key
        if self.is_server and not (self.is_proxy or self.offers or self.withheld or self.lent):
            yield self._reconnected(now), None

    def _reconnected(self, now: float) -> FarmServer:
        """One that is there and offers nothing: it was in a session before we knew it."""
        host, port = self.fields.get("addr", (self.host, 0))
        since_s, holder = now - self.since, None
        if self.earlier is not None:
            since_s = now - self.earlier.since
            holder = Holder("", self.earlier.peer, max(0.0, since_s))
        resource = Granted(host, int(port or 0), "")
        server = _server("".join(self.introduced), resource, State.BUSY, since_s)
        return server._replace(holder=holder)


def _server(key: str, resource: Granted, state: State, since_s: float) -> FarmServer:
    return FarmServer(key, resource.host, resource.port, state, max(0.0, since_s))
