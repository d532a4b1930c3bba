"""The keys that a proxy says it has servers of. No socket, no clock.

A server that is between two sessions is gone for a moment, so that a key stays for a while.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import List, Optional

STAYS_S = 15.0
"""So long after its last server, a key is listed: they try again at least every ten seconds."""


class Listing:
    """Which keys are listed. All times are a monotonic clock's seconds."""

    def __init__(self) -> None:
        self._servers: Counter[str] = Counter()
        # In the order in which they are to be forgotten, as all stay equally long.
        self._until: OrderedDict[str, float] = OrderedDict()

    @property
    def keys(self) -> List[str]:
        """The keys, in no order."""
        return [*self._servers, *self._until]

    def came(self, key: str) -> bool:
        """A server has this key; whether that is new."""
        is_new = self._until.pop(key, None) is None and key not in self._servers
        self._servers[key] += 1
        return is_new

    def left(self, key: str, now: float) -> None:
        """A server with this key is gone."""
        self._servers[key] -= 1
        if not self._servers[key]:
            del self._servers[key]
            self._until[key] = now + STAYS_S

    def expire(self, now: float) -> bool:
        """Forget what has been gone for long; whether there was any. Call it at `next_wakeup`."""
        before = len(self._until)
        while self._until and next(iter(self._until.values())) <= now:
            self._until.popitem(last=False)
        return len(self._until) < before

    def next_wakeup(self, now: float) -> Optional[float]:
        """Seconds until the next key is to be forgotten; None: there is none."""
        return max(0.0, next(iter(self._until.values())) - now) if self._until else None
