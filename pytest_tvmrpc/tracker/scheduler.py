"""Who gets which server: free ones and waiting requests for each key. No socket, no clock.

A connection is whatever hashable name the caller gives it. Whatever is known about one is gone
when it closes, and a queue is gone when nothing is in it and nobody who offered its key is left.
"""

from __future__ import annotations

import heapq
import itertools
import json
from collections import OrderedDict
from typing import Any, Dict, Hashable, List, NamedTuple, Set, Tuple

from ..errors import RemoteProtocolError
from ..protocol.tracker import Granted, check_info

MAX_HELD = 64
"""How many offers, requests and keys one connection may have at a time."""

MAX_QUEUES = 8192
"""How many queues a summary shows, which is a few megabytes of the longest keys."""

MAX_DESCRIPTIONS = 16 << 20
"""Bytes of the servers' descriptions, as JSON, that a summary shows."""

_SERVER = "server:"


class Grant(NamedTuple):
    """An instruction: tell the requester that it has this resource."""

    requester: Hashable
    resource: Granted


class _Offer(NamedTuple):
    owner: Hashable
    resource: Granted


class _Queue:
    """What is free under one key, in the order of arrival, or who waits; never both."""

    __slots__ = ("free", "order", "pending", "suppliers")

    def __init__(self) -> None:
        self.free: OrderedDict[int, _Offer] = OrderedDict()
        self.pending: Dict[int, Hashable] = {}
        self.order: List[Tuple[float, int]] = []
        self.suppliers = 0

    def push(self, priority: float, number: int, requester: Hashable) -> None:
        self.pending[number] = requester
        heapq.heappush(self.order, (-priority, number))

    def pop(self) -> Tuple[int, Hashable]:
        while True:
            _, number = heapq.heappop(self.order)
            if number in self.pending:
                return number, self.pending.pop(number)

    def drop(self, number: int) -> None:
        """Forget a request; its place in the order goes when half of all places are stale."""
        del self.pending[number]
        if len(self.order) > 2 * len(self.pending) + 16:
            self.order = [place for place in self.order if place[1] in self.pending]
            heapq.heapify(self.order)

    @property
    def is_idle(self) -> bool:
        return not (self.free or self.pending or self.suppliers)


class _Connection:
    """What one connection has going on."""

    __slots__ = ("fields", "host", "keys", "nbytes", "offers", "requests")

    def __init__(self) -> None:
        self.fields: Dict[str, Any] = {}
        self.nbytes = 0
        self.host = ""
        self.keys: Set[str] = set()
        self.offers: Dict[str, Tuple[str, int]] = {}  # match key -> key, number of the offer
        self.requests: Dict[int, str] = {}


class Scheduler:
    """Matches offers with requests: the highest priority first, then whoever came first.

    Attributes:
        version: a number that changes whenever the summary may have changed.
    """

    def __init__(self) -> None:
        self.version = 0
        self._queues: Dict[str, _Queue] = {}
        self._connections: Dict[Hashable, _Connection] = {}
        self._numbers = itertools.count()

    def put(self, connection: Hashable, key: str, resource: Granted) -> List[Grant]:
        """A server offers itself, once, with the resource's match key.

        Raises:
            RemoteProtocolError: the connection has offered more than anybody needs.
        """
        known = self._connection(connection)
        if resource.match_key in known.offers:
            return []  # said twice; to hand it out twice would send two clients to one server
        if len(known.offers) >= MAX_HELD or len(known.keys) >= MAX_HELD:
            raise RemoteProtocolError(f"more than {MAX_HELD} offers on one connection")
        self.version += 1
        queue = self._queues.setdefault(key, _Queue())
        if key not in known.keys:
            known.keys.add(key)
            queue.suppliers += 1
        if queue.pending:
            number, requester = queue.pop()
            del self._connections[requester].requests[number]
            return [Grant(requester, resource)]
        number = next(self._numbers)
        queue.free[number] = _Offer(connection, resource)
        known.offers[resource.match_key] = (key, number)
        return []

    def request(self, connection: Hashable, key: str, priority: float) -> List[Grant]:
        """A client wants a server; without a free one, it waits for its turn.

        Raises:
            RemoteProtocolError: the connection has more requests waiting than anybody needs.
        """
        known = self._connection(connection)
        if len(known.requests) >= MAX_HELD:
            raise RemoteProtocolError(f"more than {MAX_HELD} requests waiting on one connection")
        self.version += 1
        queue = self._queues.setdefault(key, _Queue())
        if queue.free:
            _, offer = queue.free.popitem(last=False)
            del self._connections[offer.owner].offers[offer.resource.match_key]
            return [Grant(connection, offer.resource)]
        number = next(self._numbers)
        queue.push(priority, number, connection)
        known.requests[number] = key
        return []

    def closed(self, connection: Hashable) -> None:
        """The connection is gone, and with it its requests and offers."""
        known = self._connections.pop(connection, None)
        if known is None:
            return
        self.version += 1
        for key, number in known.offers.values():
            del self._queues[key].free[number]
        for number, key in known.requests.items():
            self._queues[key].drop(number)
        for key in known.keys:
            self._queues[key].suppliers -= 1
        for key in known.keys.union(known.requests.values()):
            self._drop_idle(key)

    def update_info(self, connection: Hashable, fields: Dict[str, Any], peer_host: str) -> None:
        """A connection describes itself; the fields join those that it gave before.

        Raises:
            RemoteProtocolError: together they are too much.
        """
        known = self._connection(connection)
        merged = dict(known.fields)
        merged.update(fields)
        if merged.get("addr", (peer_host, 0))[0] is None:
            merged["addr"] = [peer_host, merged["addr"][1]]
        known.fields = check_info(merged)
        known.nbytes = len(json.dumps(merged))
        known.host = peer_host
        self.version += 1

    def pending_match_keys(self, connection: Hashable) -> List[str]:
        """The match keys that the connection offered and that nobody was given yet."""
        known = self._connections.get(connection)
        return [] if known is None else list(known.offers)

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
            if known.fields.get("key", "").startswith(_SERVER) and known.nbytes <= left:
                left -= known.nbytes
                # TVM's client takes it for granted that every server has an address.
                address = known.fields.get("addr", [known.host, None])
                servers.append({**known.fields, "addr": address})
        return {"queue_info": queues, "server_info": servers}

    def _connection(self, connection: Hashable) -> _Connection:
        return self._connections.setdefault(connection, _Connection())

    def _drop_idle(self, key: str) -> None:
        queue = self._queues.get(key)
        if queue is not None and queue.is_idle:
            del self._queues[key]
