"""Supervisor: one loop over listener, tracker, signals and the session's process.

It never blocks on one of them, but for the look-up of the tracker's name: when it starts, and when
no address that the name had leads to the tracker any more. It opens no device, loads no library
and has one thread, so that it can fork at any time. One session at a time: clients with the right
key wait for the device, and with a tracker there is only ever one such client.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import signal
import socket
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Callable, Deque, Dict, Iterator, List, Optional, Set, Tuple

from .. import network
from ..errors import RemoteProtocolError
from .directory import find_abandoned, make_directory
from .listener import Greeting
from .registration import Registration
from .worker import Worker, preload, serve_session

if TYPE_CHECKING:
    from .config import ServerConfig
    from .directory import SessionDirectory

MAX_GREETINGS = 64
"""Clients that have not said yet what they want; the oldest has to go when one more comes."""

MAX_WAITING = 64
"""Clients with the right key that wait for the device; others stay in the kernel's queue."""

_ACCEPT_PAUSE_S = 0.1
"""How long to wait for a descriptor to be free again."""

_FAIR_S = 0.05
"""What a client that means well has for its first words, however many others come."""

_READ = select.POLLIN
_WRITE = select.POLLOUT
_GONE = getattr(select, "POLLRDHUP", 0)
"""The client has closed its side; without it (macOS) only a read would tell."""


class Supervisor:
    """A server's parent process.

    Args:
        config: what the server was told.
        listener: where clients come in; owned.
        report: takes a line for whoever watches the server.
        ready: called once, when clients can be served: bound, and known to the tracker if there
            is one that answers.
        parent_fd: the read end of a pipe whose other end is with the process that started us.
    """

    def __init__(
        self,
        config: ServerConfig,
        listener: socket.socket,
        report: Callable[[str], None],
        ready: Callable[[], None],
        parent_fd: Optional[int] = None,
    ) -> None:
        config.check()
        self._config = config
        self._listener = listener
        self._report = report
        self._ready: Optional[Callable[[], None]] = ready
        self._parent_fd = parent_fd
        self._poll = select.poll()
        self._watched: Dict[int, Callable[[int], None]] = {}
        self._greetings: List[Greeting] = []
        self._waiting: Deque[Greeting] = deque()
        self._accepts_at: Optional[float] = None
        self._worker: Optional[Worker] = None
        self._removers: Set[int] = set()
        self._should_exit = False
        self._wakeup = (-1, -1)
        self._tracker: Optional[_TrackerLink] = None
        listener.setblocking(False)
        network.set_stream_options(listener)  # what is accepted inherits them
        if config.tracker is not None:
            port = listener.getsockname()[1]
            registration = Registration(config.key, port, config.custom_addr, entropy=os.urandom)
            self._tracker = _TrackerLink(config.tracker, registration, self)

    def run(self) -> None:
        """Serves until SIGTERM, SIGINT, or the end of the process that started us."""
        with self._signals():
            self.watch(self._listener.fileno(), _READ, self._accept)
            if self._parent_fd is not None:
                self.watch(self._parent_fd, _READ, self._stop)
            if self._tracker is None:
                self.say_ready()
            for directory in find_abandoned():
                self._remove(directory)
            try:
                while not self._should_exit:
                    self._tick(time.monotonic())
                    for descriptor, events in self._poll.poll(self._wait_ms()):
                        happened = self._watched.get(descriptor)
                        if happened is not None:
                            happened(events)
            finally:
                self._end()

    def say_ready(self) -> None:
        """The first time, tells whoever started us."""
        if self._ready is not None:
            ready, self._ready = self._ready, None
            ready()
            try:
                preload()
            except (ImportError, OSError, MemoryError) as error:  # nothing can be opened just now
                self._report(f"sessions will start slowly: {error}")

    def watch(self, descriptor: int, events: int, happened: Callable[[int], None]) -> None:
        """Calls back when something of `events` happens at the descriptor."""
        self._watched[descriptor] = happened
        self._poll.register(descriptor, events)

    def forget(self, descriptor: int) -> None:
        """No more calls for it; before it is closed."""
        if self._watched.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def report(self, line: str) -> None:
        """Tells whoever watches the server."""
        self._report(line)

    # Time and signals

    def _tick(self, now: float) -> None:
        if self._worker is not None:
            self._worker.tick(now, self._config.stop_s)
        if self._accepts_at is not None and now >= self._accepts_at:
            self._accept_again()
        for greeting in [late for late in self._greetings if now >= late.until]:
            self._report(f"{greeting.address} said nothing sensible in time")
            self._drop(greeting)
        if self._tracker is not None:
            self._tracker.tick(now)

    def _wait_ms(self) -> Optional[int]:
        now = time.monotonic()
        due = [greeting.until for greeting in self._greetings]
        if self._worker is not None:
            due.append(self._worker.next_wakeup() or now + 3600)
        if self._tracker is not None:
            due.append(self._tracker.next_wakeup(now))
        if self._accepts_at is not None:
            due.append(self._accepts_at)
        if not due:
            return None
        # A client may ask for a limit of 1e300 seconds; poll() takes an int of C.
        return max(0, int(min(min(due) - now, 3600.0) * 1000) + 1)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Signals become bytes in a pipe that the loop watches."""
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        before = {
            number: signal.signal(number, lambda *_: None)
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)
        }
        wakeup_before = signal.set_wakeup_fd(writer)
        self._wakeup = (reader, writer)
        self.watch(reader, _READ, self._take_signals)
        try:
            yield
        finally:
            self.forget(reader)
            signal.set_wakeup_fd(wakeup_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(reader)
            os.close(writer)

    def _take_signals(self, events: int) -> None:
        numbers = os.read(self._wakeup[0], 4096)
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self._should_exit = True
        if signal.SIGCHLD in numbers:
            self._reap()
            self._removers -= {pid for pid in self._removers if os.waitpid(pid, os.WNOHANG)[0]}

    def _stop(self, events: int) -> None:
        self._should_exit = True

    # Clients

    def _accept(self, events: int) -> None:
        """Takes the next client; one at a time, as only that one is known to be there."""
        if len(self._waiting) >= MAX_WAITING or not self._has_room():
            self.forget(self._listener.fileno())  # until one of them leaves or is served
            return
        try:
            connection, address = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:  # no descriptors are left, as a rule
            self._report(f"a client could not be accepted: {error}")
            self._accepts_at = time.monotonic() + _ACCEPT_PAUSE_S
            self.forget(self._listener.fileno())  # the client is still there: no busy loop
            return
        greeting = Greeting(
            connection,
            network.format_address(*address[:2]),
            time.monotonic() + self._config.handshake_s,
        )
        self._greetings.append(greeting)
        self.watch(connection.fileno(), _READ, functools.partial(self._listen, greeting))

    def _accept_again(self) -> None:
        self._accepts_at = None
        if self._listener.fileno() not in self._watched:
            self.watch(self._listener.fileno(), _READ, self._accept)

    def _has_room(self) -> bool:
        """Whether one more can be listened to; for it, the oldest is sent away."""
        if len(self._greetings) < MAX_GREETINGS:
            return True
        oldest = self._greetings[0]
        may_go_at = oldest.until - self._config.handshake_s + _FAIR_S
        if time.monotonic() < may_go_at:
            self._accepts_at = may_go_at
            return False
        self._listen(oldest, _READ)  # its words may be here, and not have been read yet
        if oldest in self._greetings:
            self._report(f"{oldest.address} was sent away for others: it said nothing sensible yet")
            self._drop(oldest)
        return True

    def _drop(self, greeting: Greeting) -> None:
        """No more to do with this client here; the socket is closed."""
        self._release(greeting)
        greeting.connection.close()

    def _release(self, greeting: Greeting) -> None:
        self.forget(greeting.connection.fileno())
        for place in (self._greetings, self._waiting):
            with contextlib.suppress(ValueError):
                place.remove(greeting)
        self._accept_again()

    def _listen(self, greeting: Greeting, events: int) -> None:
        try:
            is_there = greeting.listen()
        except RemoteProtocolError as error:
            self._report(f"{greeting.address} was sent away: {error}")
            is_there = False
        if not is_there:
            self._drop(greeting)
            return
        hello = greeting.hello
        if hello is None or greeting in self._waiting:
            return
        if not self._fits(hello.match_key):
            self._report(f"mismatch key from {greeting.address}: {hello.match_key[:80]!r}")
            self._release(greeting)
            greeting.refuse()
            return
        self._greetings.remove(greeting)
        self._waiting.append(greeting)
        self._serve_next()

    def _fits(self, match_key: str) -> bool:
        if self._tracker is not None:
            return self._tracker.registration.accepts(match_key)
        return match_key == self._config.key

    def _serve_next(self) -> None:
        """Gives the device to the first who waits, if it is free."""
        while self._worker is None and self._waiting:
            greeting = self._waiting[0]
            self._release(greeting)
            if greeting.admit(self._config.key):
                self._start(greeting)

    def _start(self, greeting: Greeting) -> None:
        hello = greeting.hello
        assert hello is not None
        early, send_s = greeting.early, self._config.send_s
        directory = None
        try:
            directory = make_directory()
            self._worker = Worker(
                greeting.connection,
                greeting.address,
                directory,
                hello.session_timeout,
                lambda connection, directory, progress: serve_session(
                    connection, directory, progress, early, send_s
                ),
                self._descriptors(),
            )
        except OSError as error:
            self._report(f"no session for {greeting.address}: {error}")
            greeting.connection.close()
            if directory is not None:
                directory.remove()
            return
        if self._tracker is not None:
            self._tracker.registration.occupied(time.monotonic())
        if _GONE:
            self.watch(greeting.connection.fileno(), _GONE, self._client_gone)
        self._report(f"connected from {greeting.address}")
        self._report(f"start serving at {directory.path}")

    def _descriptors(self) -> List[int]:
        """What a process that we fork must not keep open."""
        return [*self._watched, self._listener.fileno(), self._wakeup[1]]

    # The session

    def _client_gone(self, events: int) -> None:
        worker = self._worker
        assert worker is not None
        self.forget(worker.connection.fileno())
        worker.expect_end(time.monotonic() + self._config.goodbye_s)

    def _reap(self) -> None:
        worker = self._worker
        if worker is None:
            return
        descriptor = worker.connection.fileno()
        outcome = worker.reap()
        if outcome is None:
            return
        self.forget(descriptor)
        self._worker = None
        if self._tracker is not None and not self._should_exit:
            self._tracker.offer()
        worker.dispose()
        self._remove(worker.directory)
        self._report(f"finish serving {worker.address}: {outcome}")
        self._serve_next()

    def _remove(self, directory: SessionDirectory) -> None:
        """Removes it at once; by another process when clients would have to wait meanwhile."""
        if not directory.is_small():
            with contextlib.suppress(OSError):
                self._removers.add(directory.remove_elsewhere(self._descriptors()))
                return
        directory.remove()

    def _end(self) -> None:
        """Ends the session in a bounded time, and closes what is open."""
        self._waiting.extend(self._greetings)
        for greeting in list(self._waiting):
            self._drop(greeting)
        worker = self._worker
        if worker is not None:
            worker.stop(time.monotonic(), self._config.stop_s)
            while self._worker is not None:
                worker.tick(time.monotonic(), self._config.stop_s)
                self._poll.poll(20)
                self._reap()
        if self._tracker is not None:
            self._tracker.close()
        self.forget(self._listener.fileno())
        self._listener.close()


class _TrackerLink:
    """The socket between a supervisor and its tracker; what is said on it is the registration's."""

    def __init__(
        self, address: Tuple[str, int], registration: Registration, supervisor: Supervisor
    ) -> None:
        self.registration = registration
        self._address = address
        self._name = network.format_address(*address)
        self._supervisor = supervisor
        self._connection: Optional[socket.socket] = None
        self._is_connecting = False
        self._found: List[Any] = []
        self._next = 0
        self._unsent = b""
        self._retry_at: Optional[float] = 0.0
        self._gives_up_at = 0.0
        self._was_lost = False

    def tick(self, now: float) -> None:
        """Connects when it is time to; lets the registration say what is due."""
        if self._connection is None:
            if self._retry_at is not None and now >= self._retry_at:
                self._connect(now)
        elif self._is_connecting:
            if now >= self._gives_up_at:
                self._lose("no answer to a connection attempt")
        else:
            self._converse(lambda: self.registration.tick(now))

    def next_wakeup(self, now: float) -> float:
        """When `tick` has something to do, on the monotonic clock."""
        if self._connection is None:
            return self._retry_at or now
        if self._is_connecting:
            return self._gives_up_at
        pause = self.registration.next_wakeup(now)
        return now + (3600.0 if pause is None else pause)

    def offer(self) -> None:
        """The device is free again."""
        self._converse(lambda: self.registration.offer(time.monotonic()))

    def close(self) -> None:
        """Leaves the tracker, which drops our offer."""
        if self._connection is not None:
            self._supervisor.forget(self._connection.fileno())
            self._connection.close()
            self._connection = None

    def _connect(self, now: float) -> None:
        try:
            self._resolve()
            # Each attempt takes the next: localhost may be ::1 here and the tracker on 127.0.0.1.
            family, kind, proto, _, address = self._found[self._next]
            self._next += 1
            connection = socket.socket(family, kind, proto)
        except OSError as error:
            self._lose(str(error))
            return
        connection.setblocking(False)
        self._connection = connection
        self._is_connecting = True
        self._gives_up_at = now + 10.0
        connection.connect_ex(address)
        self._supervisor.watch(connection.fileno(), _WRITE, self._connected)

    def _resolve(self) -> None:
        """Looks the name up, if all its addresses have been tried in vain; they may be others now.

        That may take as long as a name server wants. Without an answer, the old ones will do.
        """
        if self._next < len(self._found):
            return
        self._next = 0
        try:
            self._found = network.resolve(*self._address)
        except OSError:
            if not self._found:
                raise

    def _connected(self, events: int) -> None:
        connection = self._connection
        assert connection is not None
        code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._lose(os.strerror(code))
            return
        self._is_connecting = False
        self._supervisor.forget(connection.fileno())
        self._supervisor.watch(connection.fileno(), _READ, self._readable)
        network.set_stream_options(connection)
        self._converse(lambda: self.registration.connected(time.monotonic()))

    def _readable(self, events: int) -> None:
        connection = self._connection
        assert connection is not None
        if events & _WRITE and self._unsent:
            self._converse(lambda: b"")
        if not events & ~_WRITE:
            return
        try:
            received = connection.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(error.strerror or str(error))
            return
        if not received:
            self._lose("it closed the connection")
            return
        was_registered = self.registration.registered
        self._converse(lambda: self.registration.received(received, time.monotonic()))
        if self.registration.registered and not was_registered:
            if self._was_lost:
                self._supervisor.report(f"registered again with the tracker {self._name}")
            self._was_lost = False
            self._next -= 1  # when it is lost, the same address is tried first, and not looked up
            self._supervisor.say_ready()

    def _converse(self, say: Callable[[], bytes]) -> None:
        """Sends what the registration has to say, and what could not be sent before."""
        try:
            self._unsent += say()
            if self._connection is None or self._is_connecting or not self._unsent:
                return
            with contextlib.suppress(BlockingIOError):
                self._unsent = self._unsent[self._connection.send(self._unsent) :]
            self._supervisor.forget(self._connection.fileno())
            self._supervisor.watch(
                self._connection.fileno(), _READ | (_WRITE if self._unsent else 0), self._readable
            )
        except (OSError, RemoteProtocolError) as error:
            self._lose(str(error))

    def _lose(self, why: str) -> None:
        if not self._was_lost:
            self._was_lost = True
            self._supervisor.report(f"the tracker {self._name} is not there: {why}; trying again")
        self.close()
        self._is_connecting = False
        self._unsent = b""
        now = time.monotonic()
        self._retry_at = now + self.registration.lost(now)
        self._supervisor.say_ready()
