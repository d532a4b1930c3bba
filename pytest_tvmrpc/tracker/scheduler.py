"""Who gets which server: free ones and waiting requests for each key. No socket, no clock.

A connection is whatever hashable name the caller gives it, and `now` a monotonic clock's seconds.
Whatever is known about a connection is gone when it closes, and a queue is gone when nothing is in
it and nobody who offered its key has been there for a while.
"""

from __future__ import annotations

import itertools
import json
from typing import Any, Dict, Hashable, Iterator, List, NamedTuple, Optional, Set, Tuple

from ..errors import RemoteProtocolError
from ..protocol.farm import Farm, FarmServer, Kicked, KickOrder, Outcome, State, Waiting
from ..protocol.tracker import Granted, Ping, check_info
from .connection import Known, Lent, Place
from .queue import Asker, Offer, Pending, Queue

MAX_OFFERS = 1024
"""How many offers, keys and loans one connection may have at a time; a proxy speaks for many."""

MAX_REQUESTS = 64
"""How many requests one connection may have waiting."""

MAX_HELD = 1 << 18
"""How many offers and requests there may be in all."""

MAX_QUEUES = 8192
"""How many queues a summary shows, which is a few megabytes of the longest keys."""

MAX_DESCRIPTIONS = 16 << 20
"""Bytes of the servers' descriptions, as JSON, that a summary shows."""

MAX_SHOWN = 16384
"""How many servers, and how many requests, are shown to who asks for all."""

SILENT_S = 10.0
"""A server that used to ask for its match keys, and has not for so long, is not handed out."""

QUIET_S = 5.0
"""A server that asked for its match keys no longer ago than this lives: nobody takes its place.
What it offers is withheld from the claim of another one until it asks again."""

KEPT_S = 60.0
"""How long a key is shown, with nothing free, when the last server that offered it is gone. TVM
keeps it for ever, and scripts rely on finding it."""

MAX_KEPT = 1024
"""How many such keys are shown."""


class Grant(NamedTuple):
    """An instruction: tell the requester that it has this resource."""

    requester: Hashable
    resource: Granted


class Order(NamedTuple):
    """An instruction: tell the server."""

    server: Hashable
    order: KickOrder


class Scheduler:
    """Matches offers with requests: the highest priority first, then whoever came first.

    Attributes:
        version: a number that changes whenever the summary may have changed.
    """

    def __init__(self) -> None:
        self.version = 0
        self._queues: Dict[str, Queue] = {}
        self._connections: Dict[Hashable, Known] = {}
        self._introduced: Dict[str, int] = {}
        self._kept: Dict[str, Optional[float]] = {}  # keys without servers, and until when
        self._places: Dict[Place, Hashable] = {}
        self._numbers = itertools.count()
        self._held = 0

    # --- servers ------------------------------------------------------------------------------

    def put(self, connection: Hashable, key: str, resource: Granted, now: float) -> List[Grant]:
        """A server offers itself, once, with the resource's match key; its last loan is over.

        Raises:
            RemoteProtocolError: the connection has offered more than anybody needs.
        """
        known = self._connection(connection, now)
        if resource.match_key in known.offers or resource.match_key in known.withheld:
            return []  # said twice; to hand it out twice would send two clients to one server
        known.take_back(key)
        if len(known.offers) + len(known.withheld) + len(known.lent) >= MAX_OFFERS:
            raise RemoteProtocolError(f"more than {MAX_OFFERS} offers on one connection")
        if known.polled is not None:
            known.polled = now
        queue = self._supplied(known, key)
        self.version += 1
        return self._offer(known, queue, Offer(connection, key, resource, now), now)

    def update_info(
        self, connection: Hashable, fields: Dict[str, Any], peer_host: str, now: float
    ) -> List[Hashable]:
        """A connection describes itself; the fields join those that it gave before.

        Returns:
            Connections of which nothing is known any more, and which are to be closed: the
            server with the same address and key is this one now. One that still talks is none
            of them; it is the `rival`, and keeps its place as long as it does.

        Raises:
            RemoteProtocolError: together they are too much.
        """
        known = self._connection(connection, now)
        merged = dict(known.fields)
        merged.update(fields)
        if merged.get("addr", (peer_host, 0))[0] is None:
            merged["addr"] = [peer_host, merged["addr"][1]]
        known.fields = check_info(merged)
        known.nbytes = len(json.dumps(merged))
        known.host = peer_host
        self._count_introduced(known, -1)
        known.introduce()
        self._count_introduced(known, 1)
        self.version += 1
        closed = self._take_place(connection, known, now)
        rival = self.rival(connection)
        if rival is not None:  # it may be the same server, whose old connection only seems to live
            self._withhold(self._connections[rival])
        return closed

    def rival(self, connection: Hashable) -> Optional[Hashable]:
        """The connection of another server that lives, and is at the same address by its account.

        Neither is closed for the other: it would come back and close the other one, for ever.
        """
        known = self._connections.get(connection)
        place = None if known is None else known.place
        owner = None if place is None else self._places.get(place)
        return None if owner == connection else owner

    def _take_place(self, connection: Hashable, known: Known, now: float) -> List[Hashable]:
        """A server that was started again has its place, although its old connection half lives."""
        self._leave_place(connection, known)
        place = known.place
        if place is None:
            return []
        older = self._places.get(place)
        if older is not None:
            polled = self._connections[older].polled
            if polled is not None and now - polled <= QUIET_S:
                return []
            self.closed(older)
        self._places[place] = connection
        known.taken_place = place
        return [] if older is None else [older]

    def _take_places(self, now: float) -> List[Tuple[Hashable, Hashable]]:
        """Who waits for a place has it if its owner is gone or quiet: the first of those who do.

        An owner that never asked for its match keys waited, too, and may just have come.
        """
        without = [
            (connection, known, known.place)
            for connection, known in self._connections.items()
            if known.taken_place is None and known.place is not None
        ]
        taken: Set[Place] = set()
        replaced: List[Tuple[Hashable, Hashable]] = []
        for connection, known, place in without:
            owner = self._connections.get(self._places.get(place))
            is_new = owner is not None and owner.polled is None and now - owner.since <= QUIET_S
            if place not in taken and not is_new:
                replaced += [
                    (older, connection) for older in self._take_place(connection, known, now)
                ]
                taken.add(place)
        return replaced

    def _withhold(self, known: Known) -> None:
        """Nobody is given what it offers until it asks for its match keys again."""
        if not known.offers:
            return
        for match_key, (key, number) in known.offers.items():
            known.withheld[match_key] = self._queues[key].free.pop(number)
        known.offers = {}
        self.version += 1

    def _leave_place(self, connection: Hashable, known: Known) -> None:
        place, known.taken_place = known.taken_place, None
        if place is not None and self._places.get(place) == connection:
            del self._places[place]

    def greeted(self, connection: Hashable, ping: Ping, now: float) -> None:
        """A peer of ours said what it can, and which session it has."""
        if not (ping.takes_orders or ping.serving):
            return
        known = self._connection(connection, now)
        known.takes_orders = ping.takes_orders
        if ping.serving is not None:
            known.serves(ping.serving, now)
            self.version += 1

    def pending_match_keys(self, connection: Hashable) -> List[str]:
        """The match keys that the connection offered and that nobody was given yet."""
        known = self._connections.get(connection)
        return [] if known is None else [*known.offers, *known.withheld]

    def heard(self, connection: Hashable, now: float) -> List[Grant]:
        """A server asked for its match keys, which shows that it is idle and alive."""
        known = self._connection(connection, now)
        known.polled = now
        if not known.withheld:
            return []
        grants: List[Grant] = []
        offers, known.withheld = list(known.withheld.values()), {}
        self._held -= len(offers)
        self.version += 1
        for offer in offers:
            queue = self._queues[offer.key]
            grants += self._offer(known, queue, offer._replace(since=now), now)
        return grants

    def expire(self, now: float) -> List[Tuple[Hashable, Hashable]]:
        """Withhold the offers of servers that used to talk, and do not; forget keys that are gone.

        Who waited for the place of such a server has it now.

        To be called every second or so.

        Who never asked for its match keys is not judged, nor who offers nothing: a server in a
        session may be silent.

        Returns:
            Connections that are to be closed, each with the one that has its place now.
        """
        for known in self._connections.values():
            if known.polled is not None and now - known.polled > SILENT_S:
                self._withhold(known)
        for key, until in list(self._kept.items()):
            if until is None:
                self._kept[key] = now + KEPT_S
            elif now >= until:
                self._forget(key)
        return self._take_places(now)

    # --- clients ------------------------------------------------------------------------------

    def request(
        self,
        connection: Hashable,
        key: str,
        priority: float,
        now: float,
        asker: Asker = Asker(),  # noqa: B008 -- immutable
    ) -> List[Grant]:
        """A client wants a server; without a free one, it waits for its turn.

        Raises:
            RemoteProtocolError: the connection, or all together, have more requests waiting than
                anybody needs.
        """
        known = self._connection(connection, now)
        if len(known.requests) >= MAX_REQUESTS:
            raise RemoteProtocolError(
                f"more than {MAX_REQUESTS} requests waiting on one connection"
            )
        self.version += 1
        queue = self._queues.get(key)
        if queue is not None and queue.free:
            _, offer = queue.free.popitem(last=False)
            self._held -= 1
            owner = self._connections[offer.owner]
            del owner.offers[offer.resource.match_key]
            return [_lend(owner, offer, connection, asker, now)]
        self._take_room()
        if queue is None:
            queue = self._queues[key] = Queue()
        number = next(self._numbers)
        queue.push(number, Pending(connection, asker, priority, now))
        known.requests[number] = key
        return []

    def is_served(self, key: str) -> bool:
        """Whether any server has this key, free or not."""
        queue = self._queues.get(key)
        return key in self._introduced or (queue is not None and queue.suppliers > 0)

    # --- both ---------------------------------------------------------------------------------

    def closed(self, connection: Hashable) -> None:
        """The connection is gone, and with it its requests, offers and loans."""
        known = self._connections.pop(connection, None)
        if known is None:
            return
        self.version += 1
        self._held -= len(known.offers) + len(known.withheld) + len(known.requests)
        for key, number in known.offers.values():
            del self._queues[key].free[number]
        for number, key in known.requests.items():
            self._queues[key].drop(number)
        for key in known.keys:
            self._queues[key].suppliers -= 1
            self._kept[key] = None
            if len(self._kept) > MAX_KEPT:
                self._forget(next(iter(self._kept)))
        self._leave_place(connection, known)
        self._count_introduced(known, -1)
        for key in known.keys.union(known.requests.values()):
            self._drop_idle(key)

    def summary(self) -> Dict[str, Any]:
        """The state of the farm in the form that TVM's tracker gives it.

        Bounded, whatever keys somebody asks for, as a client takes only so much of an answer.
        Queues with servers come first.
        """
        keys = sorted(self._queues, key=lambda key: not self._queues[key].suppliers)
        queues = {
            key: {"free": len(queue.free), "pending": len(queue.pending)}
            for key in keys[:MAX_QUEUES]
            for queue in [self._queues[key]]
        }
        servers = []
        left = MAX_DESCRIPTIONS
        for known in self._connections.values():
            if known.is_server and known.nbytes <= left:
                left -= known.nbytes
                # TVM's client takes it for granted that every server has an address.
                address = known.fields.get("addr", [known.host, None])
                servers.append({**known.fields, "addr": address})
        return {"queue_info": queues, "server_info": servers}

    def who(self, now: float) -> Farm:
        """All servers with their holders, and all requests in the order of their turns; bounded."""
        servers = (server for _, server, _ in self._servers(now))
        waiting = (
            Waiting(
                key,
                request.asker.user,
                request.asker.peer,
                position,
                request.priority,
                max(0.0, now - request.since),
            )
            for key, queue in self._queues.items()
            for position, request in enumerate(queue.line(), 1)
        )
        return Farm(
            tuple(itertools.islice(servers, MAX_SHOWN)), tuple(itertools.islice(waiting, MAX_SHOWN))
        )

    def kick(self, target: str, reason: str, now: float) -> Tuple[List[Kicked], List[Order]]:
        """Somebody wants the sessions ended of a key's servers, or of the server at an address.

        Returns:
            What comes of it at each server that was meant, and what to tell whom.
        """
        results: List[Kicked] = []
        orders: List[Order] = []
        for connection, server, match_key in self._servers(now):
            if target not in (server.key, server.address) or len(results) >= MAX_SHOWN:
                continue
            known = self._connections[connection]
            outcome = Outcome.KICKED
            if server.state in (State.FREE, State.SILENT):
                outcome = Outcome.IDLE
            elif known.is_proxy or not known.takes_orders:
                outcome = Outcome.DEAF
            else:
                orders.append(Order(connection, KickOrder(reason, match_key)))
            results.append(Kicked(server.address, outcome))
        return results, orders

    # --- details ------------------------------------------------------------------------------

    def _servers(self, now: float) -> Iterator[Tuple[Hashable, FarmServer, Any]]:
        for connection, known in self._connections.items():
            free = (self._queues[key].free[number] for key, number in known.offers.values())
            for server, match_key in known.servers(free, now):
                yield connection, server, match_key

    def _offer(self, known: Known, queue: Queue, offer: Offer, now: float) -> List[Grant]:
        """To the next who waits, or to the end of the line."""
        if queue.pending:
            number, request = queue.pop()
            self._held -= 1
            del self._connections[request.requester].requests[number]
            return [_lend(known, offer, request.requester, request.asker, now)]
        self._take_room()
        number = next(self._numbers)
        queue.free[number] = offer
        known.offers[offer.resource.match_key] = (offer.key, number)
        return []

    def _take_room(self) -> None:
        if self._held >= MAX_HELD:
            raise RemoteProtocolError(f"more than {MAX_HELD} offers and requests in all")
        self._held += 1

    def _supplied(self, known: Known, key: str) -> Queue:
        """The queue of a key that a connection offers something under."""
        if key in known.keys:
            return self._queues[key]
        if len(known.keys) >= MAX_OFFERS:
            self._forget_keys(known)
        queue = self._queues.setdefault(key, Queue())
        known.keys.add(key)
        queue.suppliers += 1
        self._kept.pop(key, None)
        return queue

    def _forget_keys(self, known: Known) -> None:
        """A proxy's servers come and go: keys of which it has nothing now are forgotten."""
        used = {key for key, _ in known.offers.values()}
        used.update(offer.key for offer in known.withheld.values())
        used.update(lent.key for lent in known.lent.values())
        for key in known.keys - used:
            known.keys.discard(key)
            self._queues[key].suppliers -= 1
            self._drop_idle(key)

    def _count_introduced(self, known: Known, step: int) -> None:
        for key in known.introduced:
            count = self._introduced.get(key, 0) + step
            if count:
                self._introduced[key] = count
            else:
                del self._introduced[key]

    def _connection(self, connection: Hashable, now: float) -> Known:
        known = self._connections.get(connection)
        if known is None:
            known = self._connections[connection] = Known(now)
        return known

    def _drop_idle(self, key: str) -> None:
        queue = self._queues.get(key)
        if queue is not None and queue.is_idle and key not in self._kept:
            del self._queues[key]

    def _forget(self, key: str) -> None:
        del self._kept[key]
        self._drop_idle(key)
        self.version += 1


def _lend(owner: Known, offer: Offer, requester: Hashable, asker: Asker, now: float) -> Grant:
    owner.lent[offer.resource.match_key] = Lent(offer.key, offer.resource, asker, now)
    return Grant(requester, offer.resource)
