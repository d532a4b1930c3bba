"""The run's own tracker and servers, on this machine. Asks nobody for a device; see stack.py.

Nothing is started before a test asks. Nothing of pytest is known here but the options.
"""

from __future__ import annotations

import os
import threading
from functools import partial
from typing import (
    IO,
    TYPE_CHECKING,
    Callable,
    NamedTuple,
    Optional,
    Protocol,
    Sequence,
)

from ..errors import StartError

if TYPE_CHECKING:
    import socket

    from ..options import Options
    from ..server.launch import NativeServer, Server
    from ..tracker.launch import Tracker
    from .logs import LogFolder

    Address = tuple[str, int]

MOST_AT_ONCE = 8  # programs that start or end at the same time
LAST_LINES = 10  # of the log of a program that ended
STARTING_S = 5.0  # how long the end of the run waits for a start that goes on
DID_NOT_START = "the tracker and servers of this run did not start"


class Closable(Protocol):
    """A program that somebody else started for the run."""

    def terminate(self) -> object: ...


StartServers = Callable[["Address"], Optional[Sequence[Closable]]]


def _start_server(kind: str, tracker: Address, key: str, log: IO[bytes]) -> Server | NativeServer:
    """A server of a kind. Those in C are compiled first, if that was not done before.

    Raises:
        CompilerError: there is no compiler for that; the message says what to install.
        StartError: it did not start.
    """
    from ..server.launch import NativeServer, Server

    if kind == "python":
        return Server(port=0, tracker_addr=tracker, key=key, log=log)
    from ..runtime.native_programs import build_server

    if kind == "native":
        return NativeServer(build_server(), port=0, tracker_addr=tracker, key=key, log=log)
    program = build_server(kind="popen")
    return Server(port=0, tracker_addr=tracker, key=key, log=log, session_program=program)


class _Part(NamedTuple):
    """A program of the farm."""

    place: int
    name: str
    program: Tracker | Server | NativeServer
    log: IO[bytes]


class Farm:
    """A tracker and its servers on this machine, for one run.

    Args:
        options: of the run.
        start_servers: what others start instead of local servers, or None: nothing; told the
            tracker's address.

    Attributes:
        notes: what the user should read at the end: what did not start, what ended on its own.
        address: the tracker's; None until it is bound.
        folder: where the logs are; removed by `close`.
    """

    def __init__(self, options: Options, start_servers: StartServers) -> None:
        self.notes: list[str] = []
        self.folder = ""
        self._logs: LogFolder | None = None
        self._options = options
        self._start_servers = start_servers
        self._others: Sequence[Closable] = ()
        self.address: Address | None = None
        self._listener: socket.socket | None = None  # until the tracker has it
        self._waker: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._changing = threading.Lock()  # workers ask in several threads, and at any time
        self._stopping = False
        self._parts: list[_Part] = []
        self._error = ""

    def start(self) -> Address:
        """Start everything now; the tracker's address.

        Raises:
            StartError: a program did not come up; the same again at each later call.
        """
        __tracebackhide__ = True
        address = self._bind()
        self._start()
        if self._error:
            raise StartError(self._error)
        return address

    def start_when_asked(self) -> Address:
        """Bind the tracker's address, and start everything when somebody connects to it.

        Until the tracker is there, connections wait in the backlog of its listening socket.

        Raises:
            StartError: it cannot be bound, or the run is over.
        """
        with self._changing:
            if self._stopping:
                raise StartError("the run is over")
            try:
                address = self._bind()
                if self._thread is None:
                    self._wait_in_thread()
            except OSError as error:
                raise StartError(f"{DID_NOT_START}: {error}") from error
        return address

    def close(self) -> None:
        """Stop everything, note what had ended before, and remove the logs; may be called twice."""
        with self._changing:
            self._stopping = True
        if self._waker is not None:
            self._waker.close()
            self._waker = None
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(STARTING_S)
        if thread is not None and thread.is_alive():  # the tracker may still need the listener
            self.notes.append(
                "the run ended while its servers were still starting; they were abandoned: "
                f"their start had not come to an end {STARTING_S:g} s later"
            )
        else:
            self._close_listener()
        for part in tuple(self._parts):
            self._note_end(part)
        self._stop()
        logs, self._logs = self._logs, None
        if logs is not None:
            logs.remove()
        self.folder = ""

    def _stop(self) -> None:
        from concurrent.futures import ThreadPoolExecutor

        with self._changing:  # a start that was abandoned may come to its end meanwhile
            others, self._others = self._others, ()
            parts, self._parts = self._parts, []
        for program in others:
            self._end(f"what pytest_tvmrpc_start_servers started, {program!r},", program)
        if parts:
            with ThreadPoolExecutor(MOST_AT_ONCE) as pool:
                for part in parts:
                    pool.submit(self._end, part.name, part.program)
        for part in parts:
            part.log.close()

    def _end(self, name: str, program: Closable) -> None:
        try:
            program.terminate()
        except Exception as error:  # the others are to be ended, and the reports written
            self.notes.append(f"{name} could not be ended: {type(error).__name__}: {error}")

    def _bind(self) -> Address:
        if self.address is None:
            from ..network import LOOPBACK, listen
            from .logs import new_name

            # Workers are told where it is before anything is started, so before it is made.
            self.folder = new_name()
            self._listener = listen(LOOPBACK, 0)
            self.address = (LOOPBACK, self._listener.getsockname()[1])
        return self.address

    def _wait_in_thread(self) -> None:
        import socket

        waking, self._waker = socket.socketpair()
        self._thread = threading.Thread(
            target=self._wait, args=(waking,), name="tvmrpc-farm", daemon=True
        )
        self._thread.start()

    def _wait(self, waking: socket.socket) -> None:
        """The thread of `start_when_asked`: sleep until a connection is pending, or the end."""
        import selectors

        assert self._listener is not None
        with waking, selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(waking, selectors.EVENT_READ)
            pending = [key.fileobj for key, _ in selector.select()]
        if waking not in pending:
            self._start()

    def _start(self) -> None:
        """Start the programs; a failure is kept in `_error` and refuses whoever waits."""
        if self._parts or self._error:
            return
        try:
            self._start_programs()
        except Exception as error:  # whatever it is, those who wait have to hear of it
            kind = "" if isinstance(error, StartError) else f"{type(error).__name__}: "
            self._error = f"{DID_NOT_START}: {kind}{error}"
            self.notes.append(self._error)
            self._close_listener()
            self._stop()

    def _start_programs(self) -> None:
        """All at the same time: servers that are ready first wait at the tracker's door."""
        from concurrent.futures import ThreadPoolExecutor

        from ..tracker.launch import Tracker
        from .logs import LogFolder

        assert self.address is not None
        self._logs = LogFolder(self.folder)
        with ThreadPoolExecutor(MOST_AT_ONCE) as pool:
            tracker = partial(Tracker, listener=self._listener)
            doing = [pool.submit(self._launch, 0, "the tracker", tracker)]
            others = self._start_servers(self.address)
            self._others = others or ()
            if self._stopping:
                self._stop()
            for number in range(1, self._options.servers + 1) if others is None else ():
                for key in self._options.keys:
                    server = partial(_start_server, self._options.server_kind, self.address, key)
                    name = f"server {number} of key {key!r}"
                    doing.append(pool.submit(self._launch, len(doing), name, server))
        for done in doing:
            done.result()
        self._parts.sort()
        self._close_listener()  # it is the tracker's alone: if that ends, connecting shall fail

    def _launch(
        self, place: int, name: str, start: Callable[..., Tracker | Server | NativeServer]
    ) -> None:
        from .logs import log_of

        if self._stopping:
            return
        path = os.path.join(self.folder, f"{place}.log")
        log = open(path, "w+b")  # noqa: SIM115 - see _stop
        try:
            program = start(log=log)
            with self._changing:
                self._parts.append(_Part(place, name, program, log))
            if self._stopping:  # the run has ended without it
                self._stop()
            elif place:
                os.symlink(path, log_of(self.folder, program.port))
        except BaseException:
            log.close()
            if place == 0:  # servers and workers need not wait any longer for a tracker
                self._close_listener()
            raise

    def _close_listener(self) -> None:
        """Let go of the listening socket; if no tracker has it, who waits there is refused."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()

    def _note_end(self, part: _Part) -> None:
        how = part.program.program.ended()
        if how is None:
            return
        part.log.seek(0)
        printed = part.log.read().decode(errors="replace").splitlines()[-LAST_LINES:]
        last = "; it printed last:" if printed else "; it printed nothing"
        self.notes.append("\n".join([f"{part.name} {how} during the run{last}", *printed]))
