"""The scheduler for pytest-xdist: tests go where a device is free. distribution.py decides.

Imported only where pytest-xdist makes its scheduler. In a run without remote tests it is
pytest-xdist's own, to the letter.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from xdist.scheduler import LoadScheduling

from .distribution import LEAST, Waiting, deal, depth

if TYPE_CHECKING:
    import pytest

    from .capacity import Capacity
    from .crashes import Begun
    from .distribution import Keys
    from .workers import Needs


MOST_DEATHS = 3
"""When so many workers died before this test, which was the next of each, it is the test."""


class FarmScheduling(LoadScheduling):  # type: ignore[misc]  # xdist has no types
    """Keeps few tests queued in each worker, and takes those whose keys have devices to spare.

    Args:
        config: of the controller.
        log: of pytest-xdist.
        needs: which tests ask for which devices.
        capacity: how many there are.
        begun: the tests that have begun.
    """

    collection: list[str] | None
    pending: Any  # a list where it is pytest-xdist's turn, `Waiting` where it is ours

    def __init__(
        self, config: pytest.Config, log: Any, needs: Needs, capacity: Capacity, begun: Begun
    ) -> None:
        super().__init__(config, log)
        self._needs = needs
        self._capacity = capacity
        self._begun = begun
        self._keys: list[Keys] = []  # of each test; empty as long as, or if, it is xdist's turn
        self._depths: dict[Any, int] = {}  # of each worker's queue; LEAST until it ran a test
        self._crashed: int | None = None
        self._deaths: Counter[int] = Counter()  # of workers, by the test that was their next

    def schedule(self) -> None:
        """Begin when all workers have collected; later, have a new worker take part."""
        if self.collection is not None or not self._needs.keys:
            super().schedule()
            return
        if not self._check_nodes_have_same_collection():
            return
        self.collection = list(next(iter(self.node2collection.values())))
        self._keys = [tuple(self._needs.keys.get(nodeid, ())) for nodeid in self.collection]
        self.pending = Waiting(self._keys, range(len(self._keys)))
        self._capacity.settle()
        for wanted in range(1, LEAST + 1):  # one for each, then a second one
            for node in self.nodes:
                self._fill(node, wanted)
        for node in self.nodes:
            self.check_schedule(node)

    def mark_test_complete(self, node: Any, item_index: int, duration: float = 0) -> None:
        """A worker is done with a test, which took so many seconds."""
        self._depths[node] = depth(duration)
        super().mark_test_complete(node, item_index, duration)

    def check_schedule(self, node: Any, duration: float = 0) -> None:
        """Fill a worker's queue; let it end if there is nothing left for it."""
        if not self._keys:
            super().check_schedule(node, duration)
            return
        if node.shutting_down:
            return
        self._capacity.refresh()
        self._fill(node, self._depths.get(node, LEAST))
        # Otherwise it would wait for a next test before it runs its last one. With two or more it
        # goes on, and is there if a test has to be run again.
        if not self.pending and len(self.node2pending[node]) < LEAST:
            node.shutdown()

    def mark_test_pending(self, item: str) -> None:
        """Run a test of a crashed worker again."""
        if not self._keys:
            super().mark_test_pending(item)
            return
        assert self.collection is not None
        index = self._crashed
        if index is None or self.collection[index] != item:
            index = self.collection.index(item)
        self.pending.add(index)
        for node in self.nodes:
            self.check_schedule(node)

    def remove_node(self, node: Any) -> str | None:
        """Forget a worker; what it had and did not run is run by others.

        Returns:
            The test that it was running; None if it had begun none of those that it had, unless
            that one has cost other workers, too: with replacements, the run would never end.
        """
        self._depths.pop(node, None)
        if not self._keys:
            crashed: str | None = super().remove_node(node)
            return crashed
        assert self.collection is not None
        queued = self.node2pending.pop(node)
        self._crashed = None
        if queued and (self.collection[queued[0]] in self._begun or self._is_fatal(queued[0])):
            self._crashed = queued.pop(0)
        for index in queued:
            self.pending.add(index)
        for other in self.nodes:
            self.check_schedule(other)
        return None if self._crashed is None else self.collection[self._crashed]

    def _is_fatal(self, index: int) -> bool:
        """One more worker died before it began this test; whether these are too many."""
        self._deaths[index] += 1
        return self._deaths[index] >= MOST_DEATHS

    def _fill(self, node: Any, wanted: int) -> None:
        """Give a worker tests until it has as many as wanted."""
        queued = self.node2pending[node]
        if node.shutting_down or len(queued) >= wanted:
            return
        mine, *others = (
            {key for index in self.node2pending[one] for key in self._keys[index]}
            for one in (node, *(other for other in self.nodes if other is not node))
        )
        taken = deal(self.pending, wanted - len(queued), mine, others, self._capacity.devices)
        if not taken:
            return
        try:
            node.send_runtest_some(taken)
        except OSError:  # it has crashed, and `remove_node` will be told
            for index in taken:
                self.pending.add(index)
        else:
            queued.extend(taken)
