"""P6: what it costs to borrow a device, and how soon the next one can have it."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from . import bare
from .goals import BARE
from .rounds import Contest, Outcome, Sampler, each, explain, step_limit
from .watch import TrackerWatch

if TYPE_CHECKING:
    from .bench import Bench
    from .peers import Stack

KEY = "bench"
LEASES = 3  # in each round
WORD_BYTES = (48, 32)


def measure(bench: Bench) -> None:
    """Both lines come from the same leases."""
    entries = bench.contest("P6", {})
    free: dict[str, list[float]] = {}
    with contextlib.ExitStack() as owner:
        for stack in bench.with_native:
            free[stack.name] = []
            _enter(entries, owner, stack, free[stack.name])
        if bench.with_bare:
            _enter_bare(entries, owner)
        outcomes = entries.run()
    bench.add("P6.lease", outcomes)
    bench.add(
        "P6.free",
        {
            name: outcome if name == BARE else _until_free(outcome, free.get(name))
            for name, outcome in outcomes.items()
        },
    )


def _until_free(lease: Outcome, samples: list[float] | None) -> Outcome:
    """The p50 of each round, where the lease itself did not fail."""
    if not lease.rounds or lease.error or not samples:
        return lease._replace(rounds=())
    groups = (sorted(samples[at : at + LEASES]) for at in range(0, len(samples), LEASES))
    return Outcome(tuple(group[len(group) // 2] for group in groups))


def _enter(entries: Contest, owner: contextlib.ExitStack, stack: Stack, free: list[float]) -> None:
    try:
        with step_limit():
            tracker = owner.enter_context(stack.tracker())
            owner.enter_context(stack.server(tracker=tracker, key=KEY))
            watch = owner.enter_context(TrackerWatch(tracker))
            watch.wait_free(KEY)
            client = stack.connect_tracker(tracker)
            owner.callback(client.close)
            lease_once(stack, client)
            watch.wait_free(KEY)
    except Exception as error:  # a cell of the table
        entries.fail(stack.name, explain(error))
        return

    def sample() -> list[float]:
        leases = []
        for _ in range(LEASES):
            start = time.perf_counter()
            lease_once(stack, client)
            leases.append(time.perf_counter() - start)
            watch.wait_free(KEY)
            free.append(time.perf_counter() - start)
        return leases

    entries.enter(stack.name, lambda: sample)


def lease_once(stack: Stack, client: Any) -> None:
    """Request, connect, first call, close: all that a test with a device pays besides its work."""
    session = client.request(KEY)
    got = session.get_function("rpc.test.addone")(10)
    stack.close(session)
    if got != 11:
        raise ValueError(f"wrong result: {got!r}, expected 11")


def _enter_bare(entries: Contest, owner: contextlib.ExitStack) -> None:
    """The least: ask, connect, say hello, call once, close."""

    def ready() -> Sampler:
        address = owner.enter_context(bare.server())
        tracker = owner.enter_context(bare.BareClient(address))
        request, answer = bare.request(*WORD_BYTES), memoryview(bytearray(WORD_BYTES[1]))

        def lease() -> None:
            tracker.exchange(request, answer)
            with bare.BareClient(address) as device:
                device.exchange(request, answer)
                device.exchange(request, answer)

        return lambda: each(lease, LEASES)

    entries.enter(BARE, ready)
