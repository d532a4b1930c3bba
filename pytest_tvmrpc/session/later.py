"""What can wait, requests and answers: frees, small copies, calls in a pipeline. Sends nothing.

A server of TVM sends each answer by itself, and holds the second back until we have acknowledged
the first: a round trip. So what may stand behind a request does. Our own server sends the answers
together. The order of what waits is never changed: a copy to memory comes before its free.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Callable, Deque, List, NamedTuple, Optional, Tuple, Union

from ..errors import (
    ConnectionLostError,
    RPCError,
    RPCSessionTimeoutError,
    SessionCrashedError,
    SessionKickedError,
)

MOST = 64
"""Requests that wait, or answers that are owed: 64 of 20 bytes fit any socket's buffer."""


ENDS = (RPCSessionTimeoutError, SessionCrashedError, SessionKickedError)
"""What ends a session by its own name, and is told to every call that waits."""


class Owed(NamedTuple):
    """A void answer that nobody waits for: whether its error matters to anybody."""

    matters: bool


FREEING = Owed(False)
COPYING = Owed(True)
ALLOCATING = Owed(True)


class Pending:
    """A call whose answer somebody will want, but not yet.

    Args:
        read: makes the result of the bounds of its answer.
        drop: lets go of what the result of an abandoned call holds.

    Attributes:
        name: what is called, for messages.
        is_done: whether the answer has been taken.
        value: the result, handles as they are.
        error: what was raised instead.
        is_abandoned: whether nobody will ask for it any more.
    """

    __slots__ = ("drop", "error", "is_abandoned", "is_done", "name", "read", "value")

    def __init__(
        self,
        name: str,
        read: Callable[[int, int], Any],
        drop: Callable[[Pending], object],
    ) -> None:
        self.name = name
        self.read = read
        self.drop = drop
        self.is_done = False
        self.is_abandoned = False
        self.value: Any = None
        self.error: Optional[Exception] = None

    def fail(self, error: Exception) -> None:
        """There will be no result."""
        self.error = error
        self.is_done = True


class Later:
    """The queue of what waits. Any thread may add, destructors among them; one takes.

    Attributes:
        queue: what waits, oldest first; for a look at whether there is anything.
    """

    def __init__(self) -> None:
        self.queue: Deque[Tuple[bytes, Owed]] = deque()

    def __len__(self) -> int:
        return len(self.queue)

    def add(self, packet: bytes, owed: Owed) -> None:
        """One more; never blocks."""
        self.queue.append((packet, owed))

    @property
    def has_copies(self) -> bool:
        """Whether something waits that has to be done, even if nothing is asked for any more."""
        return any(owed is COPYING for _, owed in list(self.queue))

    def clear(self) -> None:
        """Nothing waits any more."""
        self.queue.clear()

    def take(self) -> Tuple[List[bytes], List[Owed]]:
        """The oldest `MOST`, and what will be owed for them."""
        packets: List[bytes] = []
        owed: List[Owed] = []
        while self.queue and len(packets) < MOST:
            packet, kind = self.queue.popleft()
            packets.append(packet)
            owed.append(kind)
        return packets, owed


class Owing:
    """The answers that are owed, in the order of their requests.

    Attributes:
        queue: what each is owed to.
        pipelined: how many of them are calls.
        late: the first error of one that nobody waits for, and that matters to somebody.
    """

    def __init__(self) -> None:
        self.queue: Deque[Union[Owed, Pending]] = deque()
        self.pipelined = 0
        self.late: Optional[RPCError] = None

    def add(self, pending: Pending) -> None:
        """One more call."""
        self.queue.append(pending)
        self.pipelined += 1

    def settled(self) -> None:
        """The first answer has been taken."""
        owed = self.queue.popleft()
        if isinstance(owed, Pending):
            self.pipelined -= 1
            if owed.is_abandoned:
                owed.drop(owed)  # whose answer has come now

    def keep(self, error: RPCError) -> None:
        """Keeps an error until it can be raised, unless there is an earlier one."""
        self.late = self.late or error

    def end(self, peer: str, because: str, error: Optional[BaseException]) -> None:
        """No answer will come any more; the calls are told what ended the session."""
        self.pipelined = 0
        for owed in self.queue:
            if isinstance(owed, Pending) and not owed.is_done:
                if isinstance(error, ENDS):
                    owed.fail(type(error)(str(error)))
                else:
                    owed.fail(
                        ConnectionLostError(
                            f"the session with {peer} ended before {owed.name} was answered: "
                            f"{because}"
                        )
                    )
        self.queue.clear()


def goes_behind(owed: List[Owed], is_alloc: bool) -> bool:
    """Whether all of these may stand behind a request.

    An allocation may need the memory of a free, and no copy; any other request may need the
    content of a copy, and no free.
    """
    return (FREEING if is_alloc else COPYING) not in owed
