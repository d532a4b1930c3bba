"""A server that behaves as TVM 0.8 to 0.20 does, one session after the other, in a thread.

It is no server to be used: what breaks a rule is noted as a complaint, and the session ends.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import List, Mapping, Optional, Tuple

from .functions import FUNCTIONS, Function
from .session import Session


class LegacyServer:
    """Listens at a port of loopback until it is closed.

    Args:
        minor: which TVM it is: 13 for 0.13.
        key: its key.
        evaluator_args: how many arguments its time evaluator wants; by default as `minor` says.
        functions: more global functions, or others; None takes one away.
        handles: those to give out first, instead of its own.
        version: of the protocol; another than the client's is refused.
        scattered: whether it sends single bytes, and empty packets between the others.

    Attributes:
        port: where it listens.
        sessions: all so far, with what they received.
        complaints: the rules that clients broke.
        answer_after_s: how long each answer takes; a test may change it.
    """

    def __init__(
        self,
        minor: int = 13,
        *,
        key: str = "",
        evaluator_args: Optional[int] = None,
        functions: Optional[Mapping[str, Optional[Function]]] = None,
        handles: Tuple[int, ...] = (),
        version: str = "0.8.0",
        scattered: bool = False,
    ) -> None:
        self.minor = minor
        self.key = key
        self.evaluator_args = evaluator_args or _evaluator_args(minor)
        given = {**FUNCTIONS, **(functions or {})}
        self.functions = {name: function for name, function in given.items() if function}
        self.handles = handles
        self.version = version
        self.scattered = scattered
        self.sessions: List[Session] = []
        self.complaints: List[str] = []
        self.answer_after_s = 0.0
        self.closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._listen, name="legacy server")
        self._thread.start()

    @property
    def session(self) -> Session:
        """The latest one."""
        return self.sessions[-1]

    def close(self) -> None:
        """Ends the session that may be there, and the thread."""
        self.closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for session in self.sessions:
            session.interrupt()
        self._thread.join()
        self._listener.close()

    def __enter__(self) -> LegacyServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _listen(self) -> None:
        while not self.closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                session = Session(self, connection)
                self.sessions.append(session)
                session.run()


def _evaluator_args(minor: int) -> int:
    return 8 if minor < 9 else 10 if minor < 10 else 11 if minor < 14 else 12
