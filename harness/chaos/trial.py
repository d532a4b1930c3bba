"""One run of one scenario: what it may use, and what it has to say. Judges nothing by itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TextIO

from pytest_tvmrpc import rpc
from pytest_tvmrpc.server.launch import NativeServer

from .footprint import Watch

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Iterator
    from pathlib import Path

LOOPBACK = "127.0.0.1"
ADD_ONE = "rpc.test.addone"


class SkipError(Exception):
    """The scenario cannot be run on this machine; the text says why."""


class Trial:
    """What every scenario gets.

    Args:
        owner: what a scenario starts is ended with it.
        temp: the temporary folder of everything that it starts.
        library: the compiled functions of ends.c.
        quick: do a tenth.
        seed: for everything random.
        native: the server in C, if that is the server of the scenarios.
        progress: where to say what is going on.

    Attributes:
        done: what was done, with counts. figures: what came out. failures: what should not have.
    """

    def __init__(
        self,
        owner: contextlib.ExitStack,
        temp: Path,
        library: Path,
        *,
        quick: bool,
        seed: int,
        progress: TextIO,
        native: str | None = None,
    ) -> None:
        self.native = native
        self.temp = temp
        self.library = library
        self.quick = quick
        self.seed = seed
        self.done: list[str] = []
        self.figures: list[str] = []
        self.failures: list[str] = []
        # For what programs say all the same; outside of the folder that is watched.
        self.log = owner.enter_context((temp.parent / f"{temp.name}.log").open("ab"))
        self._owner = owner
        self._progress = progress
        self._watches: list[Watch] = []
        self._said_at = time.monotonic()

    # --- how much -----------------------------------------------------------------------------

    def times(self, full: int) -> int:
        """How often to do something that is done `full` times in a full run."""
        return max(1, full // 10) if self.quick else full

    def seconds(self, full_s: float) -> float:
        """The same for durations."""
        return full_s / 10 if self.quick else full_s

    def rounds(self, count: int, what: str) -> Iterator[int]:
        """0, 1 ... with a word about it every few seconds."""
        for number in range(count):
            if time.monotonic() - self._said_at > 5:
                self._said_at = time.monotonic()
                self._progress.write(f"{number} of {count} {what} ... ")
                self._progress.flush()
            yield number

    # --- what is there ------------------------------------------------------------------------

    def start(self, program: Any) -> Any:
        """A program, or anything with an end, that is ended with the scenario."""
        return self._owner.enter_context(program)

    def server(self, **options: Any) -> Any:
        """A server of ours that says nothing: the one in Python, or that in C."""
        options.setdefault("port", 0)
        if self.native is not None:
            return self.start(NativeServer(self.native, silent=True, log=self.log, **options))
        server: rpc.Server = self.start(rpc.Server(silent=True, log=self.log, **options))
        return server

    def tracker(self, port: int = 0) -> rpc.Tracker:
        """A tracker of ours that says nothing."""
        tracker: rpc.Tracker = self.start(
            rpc.Tracker(port=port, port_end=port + 1, silent=True, log=self.log)
        )
        return tracker

    def watch(self, name: str, program: Any, temp: Path | None = None) -> Watch:
        """Watches a program from now on: at the scenario's end it may not hold more.

        Args:
            name: what it is called in the table.
            program: one of ours, or a process's number.
            temp: where its temporary folder is seen from here, if it has another one.
        """
        pid = program if isinstance(program, int) else program.program.pid
        watch = Watch(name, pid, temp or self.temp)
        watch.begin()
        self._watches.append(watch)
        return watch

    def judge_watches(self) -> None:
        """Looks at all watched programs for the last time; done at the end of every scenario."""
        watches, self._watches = self._watches, []
        for watch in watches:
            try:
                text, grown = watch.end()
            except OSError:
                self.failures.append(f"{watch.name} is gone")
                continue
            self.figures.append(text)
            self.failures.extend(grown)

    # --- what came out ------------------------------------------------------------------------

    def say_done(self, text: str) -> None:
        """A part of what was done."""
        self.done.append(text)

    def figure(self, text: str) -> None:
        """A part of what came out."""
        self.figures.append(text)

    def check(self, holds: object, otherwise: str) -> None:
        """Notes a failure when something does not hold; the scenario goes on."""
        if not holds:
            self.failures.append(otherwise)

    def wait_until(self, condition: Callable[[], object], what: str, limit_s: float = 10.0) -> bool:
        """Waits; a failure is noted when it was in vain."""
        until = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > until:
                self.failures.append(f"waited {limit_s:g} s in vain: {what}")
                return False
            time.sleep(0.002)
        return True

    # --- clients ------------------------------------------------------------------------------

    def load(self, port: int, **options: Any) -> Any:
        """A new session's module of the library; its `session` is the session."""
        remote = rpc.connect(LOOPBACK, port, **options)
        try:
            remote.upload(self.library)
            return remote.load_module(self.library.name)
        except BaseException:
            remote.close()
            raise

    def serves(self, port: int, key: str = "", limit_s: float = 10.0) -> float:
        """The seconds that a whole session with one call took; raises what goes wrong."""
        started = time.monotonic()
        with rpc.connect(
            LOOPBACK, port, key, connect_timeout=limit_s, handshake_timeout=limit_s
        ) as remote:
            result = remote.get_function(ADD_ONE)(1)
        if result != 2:
            raise ValueError(f"{ADD_ONE}(1) is {result!r}")
        return time.monotonic() - started

    def lease(self, tracker: rpc.TrackerSession, key: str, wait_s: float = 10.0) -> float:
        """The same by way of a tracker."""
        started = time.monotonic()
        with tracker.request(key, wait_timeout=wait_s, wait_for_key=True) as remote:
            result = remote.get_function(ADD_ONE)(1)
        if result != 2:
            raise ValueError(f"{ADD_ONE}(1) is {result!r}")
        return time.monotonic() - started
