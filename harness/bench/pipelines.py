"""P1b: a thousand calls that do not wait for each other, client and server where they like to be.

TVM's client can only make them one after the other. Ours is measured with our server and with
TVM's; both are compared with TVM's client at TVM's server.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, cast

from .bench import Bench, Opened, opened
from .goals import OURS, TVM
from .rounds import Outcome, Sampler

if TYPE_CHECKING:
    from collections.abc import Callable

    from .peers import Session

CALLS = 1000
MIXED = "ours-TVM"


def measure(bench: Bench) -> None:
    """Both lines."""
    with opened() as sessions:
        sessions.open_sessions(bench.stacks)
        outcomes = _contest(bench, sessions)
    rates = {name: outcome.scaled(lambda lasted_s: CALLS / lasted_s) for name, outcome in outcomes}
    tvm = rates.get(TVM, Outcome(absent=True))
    bench.add("P1b", {name: rate for name, rate in rates.items() if name != MIXED})
    if MIXED in rates:
        bench.add("P1b.a", {OURS: rates[MIXED], TVM: tvm})


def _contest(bench: Bench, sessions: Opened) -> Any:
    entries = bench.contest("P1b", sessions.failed)
    with contextlib.ExitStack() as owner:
        for name, (_, session) in sessions.sessions.items():
            entries.enter(name, _together(session) if name == OURS else _in_turn(session))
        del session
        ours, address = bench.stack(OURS), sessions.addresses.get(TVM)
        if ours is not None and address is not None:
            # TVM's server serves one session at a time, so this one has a server of its own.
            tvm = bench.stack(TVM)
            assert tvm is not None
            mixed = ours.connect(owner.enter_context(tvm.server()))
            owner.callback(ours.close, mixed)
            entries.enter(MIXED, _together(mixed))
        return list(entries.run().items())


def _in_turn(session: Session) -> Callable[[], Sampler]:
    def ready() -> Sampler:
        function = session.get_function("rpc.test.addone")
        return lambda: [_timed(lambda: [function(number) for number in range(CALLS)])]

    return ready


def _together(session: Session) -> Callable[[], Sampler]:
    def ready() -> Sampler:
        function = session.get_function("rpc.test.addone")

        def calls() -> list[int]:
            with cast("Any", session).pipeline() as pipeline:
                made = [pipeline.call(function, number) for number in range(CALLS)]
            return [call.result() for call in made]

        return lambda: [_timed(calls)]

    return ready


def _timed(calls: Callable[[], list[int]]) -> float:
    start = time.perf_counter()
    results = calls()
    lasted_s = time.perf_counter() - start
    if results != list(range(1, CALLS + 1)):
        raise ValueError(f"wrong results: {results[:5]!r} ...")
    return lasted_s
