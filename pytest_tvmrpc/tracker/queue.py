"""What is free under one key, or who waits for it. Knows no other keys."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from typing import TYPE_CHECKING, Dict, Hashable, List, NamedTuple, Tuple

if TYPE_CHECKING:
    from ..protocol.tracker import Granted


class Asker(NamedTuple):
    """Who makes a request: his name, his address, and how long he wants a session to last."""

    user: str = ""
    peer: str = ""
    limit_s: float = 0


class Offer(NamedTuple):
    """A server that is free: who offered it, under which key, and when."""

    owner: Hashable
    key: str
    resource: Granted
    since: float


class Pending(NamedTuple):
    """A request that waits."""

    requester: Hashable
    asker: Asker
    priority: float
    since: float


class Queue:
    """What is free, in the order of arrival, or who waits; never both.

    Attributes:
        suppliers: how many connections have offered something here.
    """

    __slots__ = ("_order", "free", "pending", "suppliers")

    def __init__(self) -> None:
        self.free: OrderedDict[int, Offer] = OrderedDict()
        self.pending: Dict[int, Pending] = {}
        self.suppliers = 0
        self._order: List[Tuple[float, int]] = []

    def push(self, number: int, request: Pending) -> None:
        """A request that came as the `number`-th of all."""
        self.pending[number] = request
        heapq.heappush(self._order, (-request.priority, number))

    def pop(self) -> Tuple[int, Pending]:
        """The next request: the highest priority, then the lowest number."""
        while True:
            _, number = heapq.heappop(self._order)
            if number in self.pending:
                return number, self.pending.pop(number)

    def drop(self, number: int) -> None:
        """Forget a request; its place in the order goes when half of all places are stale."""
        del self.pending[number]
        if len(self._order) > 2 * len(self.pending) + 16:
            self._order = [place for place in self._order if place[1] in self.pending]
            heapq.heapify(self._order)

    def line(self) -> List[Pending]:
        """All requests, the next one first."""
        places = sorted((-request.priority, number) for number, request in self.pending.items())
        return [self.pending[number] for _, number in places]

    @property
    def is_idle(self) -> bool:
        """Whether nothing is lost when it is forgotten."""
        return not (self.free or self.pending or self.suppliers)

    @property
    def places(self) -> int:
        """How many places the order keeps, stale ones included."""
        return len(self._order)
