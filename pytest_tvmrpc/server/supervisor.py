"""Supervisor: one loop over listener, tracker or proxy, signals and the session's process.

It never blocks on one of them. It opens no device, loads no library and has one thread, so that it
can fork at any time. One session at a time: clients with the right key wait for the device, and
with a tracker there is only ever one such client.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import signal
import time
from typing import TYPE_CHECKING, Callable, Iterator, List, Optional, Set

from .directory import find_abandoned, make_directory
from .ending import Endings
from .listener import WaitingClients
from .output import SessionOutput
from .process import STAGE, Plan, Serve, last_packet, preload, serve_session
from .strays import Strays
from .watching import Watching
from .worker import Verdict, Worker, WorkerState, kicked

if TYPE_CHECKING:
    import socket

    from ..protocol.handshake import ClientHello
    from .config import ServerConfig
    from .directory import SessionDirectory
    from .proxy_link import ProxyLink
    from .tracker_link import TrackerLink

_OPENING_S = 3.0
"""How long a client may take in all to open its session while others wait for the device: time for
an honest one on a slow link, of which TVM's sends InitServer only when it is admitted."""

_READ = select.POLLIN
_GONE = getattr(select, "POLLRDHUP", 0)
"""The client has closed its side; without it (macOS) only a read would tell."""


class Supervisor:
    """A server's parent process.

    Args:
        config: what the server was told.
        listener: where clients come in, owned; None for a server that waits at a proxy.
        report: takes a line for whoever watches the server.
        ready: called once, when clients can be served: bound, and known to the tracker if there
            is one that answers.
        parent_fd: the read end of a pipe whose other end is with the process that started us.
    """

    def __init__(
        self,
        config: ServerConfig,
        listener: Optional[socket.socket],
        report: Callable[[str], None],
        ready: Callable[[], None],
        parent_fd: Optional[int] = None,
    ) -> None:
        config.check()
        self._config = config
        self._report = report
        self._ready: Optional[Callable[[], None]] = ready
        self._parent_fd = parent_fd
        self._watching = Watching()
        self.watch = self._watching.watch
        self.forget = self._watching.forget
        self._worker: Optional[Worker] = None
        self._endings = Endings(self)
        self._clients = WaitingClients(
            listener, self, config.handshake_s, self._fits, self._serve_next, self._endings.add
        )
        self._strays = Strays()
        self._errands: Set[int] = set()
        self._free_since = time.monotonic()
        self._should_exit = False
        self._is_warm = False
        self._wakeup = (-1, -1)
        self._tracker: Optional[TrackerLink] = None
        self._proxy: Optional[ProxyLink] = None
        self._join_others(listener)

    def _join_others(self, listener: Optional[socket.socket]) -> None:
        """Prepares the links to where clients come from."""
        config = self._config
        if listener is None:
            from .proxy_link import ProxyLink  # here: an idle server's memory is counted

            self._proxy = ProxyLink((config.host, config.port), config.key, self, self._start)
            return
        if config.tracker is not None:
            from .tracker_link import make_link

            port = listener.getsockname()[1]
            self._tracker = make_link(
                config.tracker, config.key, port, config.custom_addr, self, self._kick
            )

    def run(self) -> None:
        """Serves until SIGTERM, SIGINT, or the end of the process that started us."""
        with self._signals():
            self._clients.open()
            if self._parent_fd is not None:
                self.watch(self._parent_fd, _READ, self._stop)
            if self._tracker is None and self._proxy is None:
                self.say_ready()
            for directory in find_abandoned():
                self._remove(directory)
            try:
                while not self._should_exit:
                    self._tick(time.monotonic())
                    self._watching.turn(self._wait_ms())
            finally:
                self._end()

    def say_ready(self) -> None:
        """The first time, tells whoever started us."""
        if self._ready is not None:
            ready, self._ready = self._ready, None
            ready()
            self._warm_up()

    def _warm_up(self) -> None:
        """Loads what every session needs, once: when we are ready, or for the first client."""
        if self._is_warm:
            return
        self._is_warm = True
        try:
            if not self._config.no_fork:
                preload()
            self._strays.adopt()
        except (ImportError, OSError, MemoryError) as error:  # nothing can be opened just now
            self._report(f"sessions will start slowly: {error}")

    def report(self, line: str) -> None:
        """Tells whoever watches the server."""
        self._report(line)

    def descriptors(self) -> List[int]:
        """What a process that we fork must not keep open."""
        session = self._worker.descriptors() if self._worker is not None else []
        return [*self._watching, *self._clients.descriptors(), *session, self._wakeup[1]]

    def errand(self, pid: int) -> None:
        """A process that we forked for something else than a session; it will be reaped."""
        self._errands.add(pid)

    # Time and signals

    def _tick(self, now: float) -> None:
        if self._worker is not None:
            if self._clients.has_waiting:
                self._worker.limit_opening(_OPENING_S)
            self._worker.tick(now, self._config.stop_s)
            if self._worker.state is WorkerState.STRAYS:
                self._reap()  # what it left may end without a signal to us
        elif self._config.unused_s and now >= self._free_since + self._config.unused_s:
            self._report(f"no client came for {self._config.unused_s:g} s, which is the timeout")
            self._should_exit = True
        for part in (self._clients, self._tracker, self._proxy, self._endings):
            if part is not None:
                part.tick(now)

    def _wait_ms(self) -> int:
        now = time.monotonic()
        due = []
        if self._worker is not None:
            due.append(self._worker.next_wakeup() or now + 3600)
        elif self._config.unused_s:
            due.append(self._free_since + self._config.unused_s)
        parts = (self._clients, self._tracker, self._proxy, self._endings)
        due += [part.next_wakeup(now) for part in parts if part is not None]
        # A client may ask for a limit of 1e300 seconds; poll() takes an int of C.
        return max(0, int(min(min(due) - now, 3600.0) * 1000) + 1)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Signals become bytes in a pipe that the loop watches."""
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        wakeup_before = signal.set_wakeup_fd(writer)  # first: the handlers drop what comes
        before = {
            number: signal.signal(number, lambda *_: None)
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)
        }
        mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, before)  # whoever started us had reasons
        self._wakeup = (reader, writer)
        self.watch(reader, _READ, self._take_signals)
        try:
            yield
        finally:
            self.forget(reader)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
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
            self._errands -= {pid for pid in self._errands if os.waitpid(pid, os.WNOHANG)[0]}
            session = [self._worker.pid] if self._worker is not None else []
            self._strays.reap(but=[*session, *self._errands])

    def _stop(self, events: int) -> None:
        self._should_exit = True

    # Clients

    def _fits(self, match_key: str) -> bool:
        if self._tracker is not None:
            return self._tracker.registration.accepts(match_key)
        return match_key == self._config.key

    def _serve_next(self) -> None:
        """Gives the device to the first who waits, if it is free."""
        while self._worker is None:
            greeting = self._clients.take()
            if greeting is None:
                return
            if greeting.admit(self._config.key):
                assert greeting.hello is not None
                self._start(greeting.connection, greeting.hello, greeting.address, greeting.early)

    # The session

    def _start(
        self,
        connection: socket.socket,
        hello: ClientHello,
        address: str = "the proxy",
        early: bytes = b"",
    ) -> None:
        """Starts the session of a client that has been admitted."""
        connection.setblocking(True)
        directory = output = None
        self._warm_up()
        try:
            self._strays.adopt()
            directory = make_directory()
            output = SessionOutput(self._config.output_nbytes)
            self._worker = self._fork(connection, address, hello, early, directory, output)
        except (OSError, ImportError, MemoryError) as error:  # nothing can be had just now
            self._report(f"no session for {address}: {error}")
            message = f"SessionCrashedError: this server cannot start a session now: {error}"
            self._endings.add(connection, last_packet(memoryview(bytes(STAGE + 1)), message))
            if output is not None:
                output.close()
            if directory is not None:
                directory.remove()
            self._offer()
            return
        if self._tracker is not None:
            self._tracker.occupied(address)
        if _GONE:
            self.watch(connection.fileno(), _GONE, self._client_gone)
        self.watch(output.fileno(), _READ, self._take_output)
        self.watch(self._worker.lifeline, _READ, self._answer)
        self._report(f"connected from {address}")
        self._report(f"start serving at {directory.path}")

    def _fork(
        self,
        connection: socket.socket,
        address: str,
        hello: ClientHello,
        early: bytes,
        directory: SessionDirectory,
        output: SessionOutput,
    ) -> Worker:
        config = self._config
        plan = Plan(
            early,
            config.handshake_s,
            config.send_s,
            config.idle_s,
            config.libraries,
            config.callback_fd if config.no_fork else None,
            config.session_program,
        )
        shared_fd = -1
        serve: Serve = functools.partial(serve_session, plan=plan)
        if config.no_fork:
            from . import fresh

            shared_fd = fresh.shared_file(directory.path)
            serve = functools.partial(fresh.exec_session, plan=plan)
        return Worker(
            connection,
            address,
            directory,
            hello.session_timeout,
            serve,
            [*self.descriptors(), output.fileno()],
            output,
            self._strays,
            shared_fd,
            config.handshake_s,
            self._end_connection,
        )

    def _end_connection(self, connection: socket.socket, packet: bytes) -> None:
        """A session is over, and its client has this to hear yet."""
        self.forget(connection.fileno())
        self._endings.add(connection, packet)

    def _offer(self) -> None:
        """The device is free: says so to whoever sends clients."""
        self._free_since = time.monotonic()
        for link in (self._tracker, self._proxy):
            if link is not None and not self._should_exit:
                link.offer()

    def _take_output(self, events: int) -> None:
        worker = self._worker
        assert worker is not None
        assert worker.output is not None
        descriptor = worker.output.fileno()
        if not worker.output.take():
            self.forget(descriptor)

    def _answer(self, events: int) -> None:
        worker = self._worker
        assert worker is not None
        if not worker.answer():
            self.forget(worker.lifeline)

    def _kick(self, reason: str) -> None:
        """Ends the session, as the tracker was told to."""
        if self._worker is not None:
            reason = reason or "the session was ended by somebody in charge of the tracker"
            self._worker.stop(time.monotonic(), self._config.stop_s, kicked(reason))

    def _client_gone(self, events: int) -> None:
        worker = self._worker
        assert worker is not None
        self.forget(worker.connection.fileno())
        worker.expect_end(time.monotonic() + self._config.goodbye_s)

    def _reap(self) -> None:
        worker = self._worker
        if worker is None:
            return
        descriptors = [worker.lifeline]
        if worker.output is not None:
            descriptors.append(worker.output.fileno())
        outcome = worker.reap()
        if worker.connection.fileno() < 0:  # its client was told
            for descriptor in descriptors:
                self.forget(descriptor)
        if outcome is None:
            return
        self._worker = None
        self._offer()
        worker.dispose()
        self._remove(worker.directory)
        if worker.output is not None and worker.output.dropped_nbytes:
            self._report(f"... and {worker.output.dropped_nbytes} bytes more of its output")
        self._report(f"finish serving {worker.address}: {outcome}")
        self._serve_next()

    def _remove(self, directory: SessionDirectory) -> None:
        """Removes it at once; by another process when clients would have to wait meanwhile."""
        if not directory.is_small():
            with contextlib.suppress(OSError):
                self.errand(directory.remove_elsewhere(self.descriptors()))
                return
        directory.remove()

    def _end(self) -> None:
        """Ends the session in a bounded time, and closes what is open."""
        self._clients.dismiss()
        worker = self._worker
        if worker is not None:
            ended = Verdict("the server ended", "SessionCrashedError: the server was ended")
            worker.stop(time.monotonic(), self._config.stop_s, ended)
            while self._worker is not None:
                worker.tick(time.monotonic(), self._config.stop_s)
                self._watching.wait(20)
                self._reap()
        for link in (self._tracker, self._proxy):
            if link is not None:
                link.close()
        self._endings.close()
        self._clients.close()
