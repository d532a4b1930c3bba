"""Descriptors of a loop, and whom it concerns what happens there. What they do is theirs."""

from __future__ import annotations

import select
from typing import Callable, Dict, Iterator, Optional, Tuple

_ALWAYS = select.POLLHUP | select.POLLERR | select.POLLNVAL
"""What poll() tells without being asked."""


class Watching:
    """What is waited for, and who is called back."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._watches: Dict[int, Tuple[int, Callable[[int], None]]] = {}

    def __iter__(self) -> Iterator[int]:
        return iter(self._watches)

    def __contains__(self, descriptor: int) -> bool:
        return descriptor in self._watches

    def watch(self, descriptor: int, events: int, happened: Callable[[int], None]) -> None:
        """Calls back when something of `events` happens at the descriptor."""
        self._watches[descriptor] = (events, happened)
        self._poll.register(descriptor, events)

    def forget(self, descriptor: int) -> None:
        """No more calls for it; before it is closed."""
        if self._watches.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def turn(self, wait_ms: Optional[int]) -> None:
        """Waits until something happens, and calls who wanted to know.

        One of those may close a descriptor for which there is another event, and the next may
        watch a new one of the same number, or the same for something else: that event is none of
        its business.
        """
        before = dict(self._watches)
        for descriptor, events in self._poll.poll(wait_ms):
            watch = self._watches.get(descriptor)
            if watch is not None and watch is before.get(descriptor):
                wanted, happened = watch
                if events & (wanted | _ALWAYS):
                    happened(events)

    def wait(self, wait_ms: int) -> None:
        """Waits until something happens, and calls nobody."""
        self._poll.poll(wait_ms)
