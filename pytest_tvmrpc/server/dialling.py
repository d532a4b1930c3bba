"""A connection out of the supervisor's loop, which never waits: look-up, attempts, their limits.

When to try, and what to say once it stands, its owner knows.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import socket
import time
from typing import TYPE_CHECKING, Any, Callable, List, Optional, Sequence, Tuple, Union

from .. import network
from .forking import fork_child

_CONNECT_S = 10.0
_LOOKUP_S = 30.0
_ANSWER_NBYTES = 1 << 20


if TYPE_CHECKING:  # a class that only types need: 4 kB of an idle server
    from typing import Protocol

    class Loop(Protocol):
        """What a connection wants of the loop it lives in."""

        def watch(self, descriptor: int, events: int, happened: Callable[[int], None]) -> None:
            """Calls back when something of `events` happens at the descriptor."""

        def forget(self, descriptor: int) -> None:
            """No more calls for it."""

        def report(self, line: str) -> None:
            """Tells whoever watches the server."""

        def say_ready(self) -> None:
            """The server is as ready as it gets for now."""

        def descriptors(self) -> List[int]:
            """What a process that is forked must not keep open."""

        def errand(self, pid: int) -> None:
            """A process was forked for something else than a session; it is to be reaped."""


class Dialler:
    """Connects to an address, as often as it is told to.

    Args:
        address: host and port.
        loop: where it lives.
        connected: takes the socket, which is not blocking and is its own from then on.
        failed: takes the reason.
    """

    def __init__(
        self,
        address: Tuple[str, int],
        loop: Loop,
        connected: Callable[[socket.socket], None],
        failed: Callable[[str], None],
    ) -> None:
        self._address = address
        self._loop = loop
        self._succeed = connected
        self._fail_with = failed
        self._found: List[Any] = []
        self._next = 0
        self._lookup: Optional[_Lookup] = None
        self._connection: Optional[socket.socket] = None
        self._gives_up_at: Optional[float] = None

    def start(self, now: float) -> None:
        """Tries the next address of the name; looks it up when all were in vain.

        Each attempt takes the next: localhost may be ::1 here, and the peer on 127.0.0.1.
        """
        if self._next < len(self._found):
            self._attempt(now)
            return
        literal = _literal(self._address)
        if literal:
            self._resolved(now, literal)
            return
        try:
            self._lookup = _Lookup(self._address, self._loop.descriptors())
        except OSError as error:
            self._resolved(now, f"no process for the look-up of its name: {error}")
            return
        self._gives_up_at = now + _LOOKUP_S
        self._loop.errand(self._lookup.pid)
        self._loop.watch(self._lookup.reader, select.POLLIN, self._answered)

    def tick(self, now: float) -> None:
        """Ends what takes too long."""
        if self._gives_up_at is None or now < self._gives_up_at:
            return
        if self._lookup is not None:
            self._end_lookup()
            self._resolved(now, f"no answer to the look-up of its name in {_LOOKUP_S:g} s")
        else:
            self._fail("no answer to a connection attempt")

    def next_wakeup(self) -> Optional[float]:
        """When `tick` has something to do, on the monotonic clock."""
        return self._gives_up_at

    @property
    def is_busy(self) -> bool:
        """Whether an attempt is under way."""
        return self._gives_up_at is not None

    def remember(self) -> None:
        """The last address was the right one: it is tried first, and not looked up, next time."""
        self._next -= 1

    def close(self) -> None:
        """Ends what is under way; may be called twice."""
        self._gives_up_at = None
        self._end_lookup()
        if self._connection is not None:
            self._loop.forget(self._connection.fileno())
            self._connection.close()
            self._connection = None

    def _answered(self, events: int) -> None:
        lookup = self._lookup
        assert lookup is not None
        if not lookup.read():
            return
        found = lookup.answer()
        self._end_lookup()
        self._resolved(time.monotonic(), found)

    def _end_lookup(self) -> None:
        if self._lookup is not None:
            self._loop.forget(self._lookup.reader)
            self._lookup.close()
            self._lookup = None

    def _resolved(self, now: float, found: Union[List[Any], str]) -> None:
        """The addresses of the name, or why there are none; then, old ones will do."""
        self._gives_up_at = None
        self._next = 0
        if isinstance(found, str):
            if not self._found:
                self._fail(found)
                return
        else:
            self._found = found
        self._attempt(now)

    def _attempt(self, now: float) -> None:
        family, kind, proto, _, address = self._found[self._next]
        self._next += 1
        try:
            connection = socket.socket(family, kind, proto)
        except OSError as error:
            self._fail(str(error))
            return
        connection.setblocking(False)
        self._connection = connection
        self._gives_up_at = now + _CONNECT_S
        code = connection.connect_ex(tuple(address))
        if code not in (0, errno.EINPROGRESS):  # it knows at once: no route, no permission
            self._fail(os.strerror(code))
            return
        self._loop.watch(connection.fileno(), select.POLLOUT, self._settled)

    def _settled(self, events: int) -> None:
        connection = self._connection
        assert connection is not None
        code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._fail(os.strerror(code))
            return
        self._loop.forget(connection.fileno())
        self._connection = None
        self._gives_up_at = None
        with contextlib.suppress(OSError):  # without it, the end of the peer is seen later
            network.set_keepalive(connection)
        self._succeed(connection)

    def _fail(self, why: str) -> None:
        self.close()
        self._fail_with(why)


class _Lookup:
    """A process that asks for the addresses of a name: a name server may take its time.

    Attributes:
        reader: where its answer arrives.
        pid: its number.
    """

    def __init__(self, address: Tuple[str, int], close: Sequence[int]) -> None:
        self.reader, writer = os.pipe()
        try:
            self.pid = fork_child(lambda: _look_up(address, writer), [*close, self.reader])
        except OSError:
            os.close(self.reader)
            raise
        finally:
            os.close(writer)
        self._said = b""

    def read(self) -> bool:
        """Takes what has arrived; whether that is all."""
        part = os.read(self.reader, 65536)
        self._said += part
        return not part or len(self._said) > _ANSWER_NBYTES

    def answer(self) -> Union[List[Any], str]:
        """The addresses, or why there are none."""
        try:
            found: Union[List[Any], str] = json.loads(self._said)
        except ValueError:
            return "the look-up of its name did not end well"
        return found

    def close(self) -> None:
        """Ends the process, which may go on waiting otherwise; whoever has its number reaps it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.close(self.reader)


def _look_up(address: Tuple[str, int], writer: int) -> None:
    signal.alarm(int(_LOOKUP_S) + 1)  # also when nobody is left to end it
    try:
        found: Any = network.resolve(*address)
    except OSError as error:
        found = str(error)
    os.write(writer, json.dumps(found).encode())


def _literal(address: Tuple[str, int]) -> List[Any]:
    """The address if it is one already, and no name; that needs nobody's answer."""
    host, port = address
    if not host.isascii():
        return []
    try:
        return socket.getaddrinfo(
            host.encode(), port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
    except (OSError, ValueError):  # a name
        return []
