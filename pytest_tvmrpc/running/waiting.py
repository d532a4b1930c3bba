"""Requests that wait at a tracker at the same time, one for each key. Opens no session on purpose.

A request keeps its place in the queue as long as its connection stands, and a connection carries
one. So each has a connection and a thread of its own.
"""

from __future__ import annotations

import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Callable

if TYPE_CHECKING:
    from ..client.tracker import TrackerSession
    from ..protocol.tracker import Granted

    Answer = tuple[str, Granted | Exception]

LEAVING_S = 2.0
"""How long a thread is waited for that was told to end; it is at most about to connect."""


class Line:
    """What one test waits for, by key.

    Args:
        connect: makes one more connection to the tracker.
        lease: waits there for a device of a key.
        decline: has a device that came too late go back to the tracker.
    """

    def __init__(
        self,
        connect: Callable[[], TrackerSession],
        lease: Callable[[TrackerSession, str], Granted],
        decline: Callable[[Granted], None],
    ) -> None:
        self._connect = connect
        self._lease = lease
        self._decline = decline
        self._places: dict[str, _Place] = {}
        self._answers: SimpleQueue[Answer] = SimpleQueue()

    @property
    def keys(self) -> tuple[str, ...]:
        """Those for which a request waits."""
        return tuple(self._places)

    def join(self, key: str) -> None:
        """Have a request wait for this key, if there is none; it keeps its place until it ends."""
        if key not in self._places:
            self._places[key] = _Place(self, key)

    def next(self, wait_s: float) -> Answer | None:
        """What came of the request that ended next; None if none did in time."""
        try:
            key, answer = self._answers.get(timeout=max(wait_s, 0.001))
        except Empty:
            return None
        del self._places[key]
        return key, answer

    def close(self) -> None:
        """Withdraw all requests; a device that is given at this moment goes back."""
        places = list(self._places.values())
        for place in places:
            place.leave()
        for place in places:
            place.thread.join(LEAVING_S)
        while (ended := self.next(0)) is not None:
            if not isinstance(ended[1], Exception):
                self._decline(ended[1])
        self._places.clear()


class _Place:
    """One request, in a thread."""

    def __init__(self, line: Line, key: str) -> None:
        self._line = line
        self._key = key
        self._tracker: TrackerSession | None = None
        self._is_left = False
        self._changing = threading.Lock()
        self.thread = threading.Thread(target=self._wait, name=f"tvmrpc-wait-{key}", daemon=True)
        self.thread.start()

    def leave(self) -> None:
        """Have the thread end soon."""
        with self._changing:
            self._is_left = True
            tracker = self._tracker
        if tracker is not None:
            tracker.abandon()

    def _wait(self) -> None:
        line = self._line
        try:
            answer: Granted | Exception = self._granted()
        except Exception as error:  # whoever waits for it raises it
            answer = error
        with self._changing:
            if not self._is_left:
                line._answers.put((self._key, answer))
                return
        if not isinstance(answer, Exception):
            line._decline(answer)

    def _granted(self) -> Granted:
        with self._line._connect() as tracker:
            with self._changing:
                self._tracker = tracker
                if self._is_left:
                    tracker.abandon()
            return self._line._lease(tracker, self._key)
