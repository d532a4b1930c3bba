"""P8: how long it takes until something can be used."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from .goals import BARE
from .lease import KEY
from .watch import TrackerWatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from .bench import Bench
    from .peers import Address, Stack
    from .rounds import Sampler


def measure_programs(bench: Bench) -> None:
    """P8. Importing a package is not part of it, in either column."""
    entries = bench.contest("P8", {})
    for stack in bench.stacks:
        entries.enter(stack.name, lambda stack=stack: _tracker_sampler(stack))  # type: ignore[misc]
    if bench.with_bare:
        entries.enter(BARE, lambda: _bare_start)
    bench.add("P8.tracker", entries.run())
    entries = bench.contest("P8", {})
    with contextlib.ExitStack() as owner:
        for stack in bench.stacks:
            entries.enter(stack.name, _server_sampler(stack, owner))
        if bench.with_bare:
            entries.enter(BARE, lambda: _bare_start)
        bench.add("P8.server", entries.run())


def _tracker_sampler(stack: Stack) -> Sampler:
    def sample() -> list[float]:
        start = time.perf_counter()
        with stack.tracker() as address, TrackerWatch(address):
            return [time.perf_counter() - start]

    return sample


def _server_sampler(stack: Stack, owner: contextlib.ExitStack) -> Callable[[], Sampler]:
    def ready() -> Sampler:
        tracker: Address = owner.enter_context(stack.tracker())
        watch = owner.enter_context(TrackerWatch(tracker))

        def sample() -> list[float]:
            _wait_none_free(watch)
            start = time.perf_counter()
            with stack.server(tracker=tracker, key=KEY):
                watch.wait_free(KEY)
                return [time.perf_counter() - start]

        return sample

    return ready


def _wait_none_free(watch: TrackerWatch, limit_s: float = 10.0) -> None:
    """The tracker has seen that the server of the round before is gone."""
    until = time.monotonic() + limit_s
    while watch.free(KEY):
        if time.monotonic() > until:
            raise TimeoutError(f"a server that was ended is listed as free after {limit_s:g} s")
        time.sleep(0.001)


def _bare_start() -> list[float]:
    """A Python that says one word over a pipe."""
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-S", "-E", "-c", "print('up')"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        return [time.perf_counter() - start]
