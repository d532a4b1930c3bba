"""P15: what the measuring loop itself takes of each call that it measures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import kernel
from .bench import Bench, opened

if TYPE_CHECKING:
    from .peers import Session, Stack
    from .rounds import Sampler

CALLS = 100_000


def measure(bench: Bench) -> None:
    """A function of C that does nothing, measured by ``time_evaluator``."""
    with opened() as sessions:
        sessions.open_sessions(bench.with_native)
        entries = bench.contest("P15", sessions.failed)
        for name, (stack, session) in sessions.sessions.items():
            entries.enter(name, lambda s=stack, r=session: _sampler(s, r, bench))  # type: ignore[misc]
        stack = session = None  # type: ignore[assignment]  # TVM's ends with the last name for it
        bench.add("P15", entries.run())


def _sampler(stack: Stack, session: Session, bench: Bench) -> Sampler:
    session.upload(str(bench.library))
    module = session.load_module(kernel.LIBRARY)
    timed = module.time_evaluator(kernel.NOTHING, session.cpu(0), number=bench.calls(CALLS))
    return lambda: [float(timed().mean)]
