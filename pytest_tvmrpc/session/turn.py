"""One thread at a time is within a request of a session, and within one only."""

from __future__ import annotations

import threading
from typing import Callable, NoReturn

from ..errors import LocalProtocolError


class Turn:
    """What a thread holds from a request to the end of its answer.

    Attributes:
        lock: to be held; a request checks `is_mine` before, as `of` does.
        is_mine: whether this thread holds it.
    """

    __slots__ = ("is_mine", "lock")

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Forget who holds it: in a fork, a thread that is not here may have."""
        self.lock = threading.RLock()
        # So `threading.Condition` asks, and nothing public tells.
        self.is_mine: Callable[[], bool] = self.lock._is_owned  # type: ignore[attr-defined]

    def of(self, doing: str) -> threading.RLock:
        """The lock, for a ``with`` statement.

        Raises:
            LocalProtocolError: this thread is within a request of this session already, and came
                here from a signal handler or a finalizer.
        """
        __tracebackhide__ = True
        if self.is_mine():
            self.refuse(doing)
        return self.lock

    def refuse(self, doing: str) -> NoReturn:
        """Raise the error of a request within another one."""
        __tracebackhide__ = True
        raise LocalProtocolError(
            f"{doing} was asked for within another request of this session, by the same "
            "thread: in a signal handler or a finalizer. The answer to that comes first; make "
            "the request later, in another thread or in another session"
        )

    @property
    def is_free(self) -> bool:
        """Whether no thread, this one included, is within a request."""
        if self.is_mine() or not self.lock.acquire(blocking=False):
            return False
        self.lock.release()
        return True
