"""P15: what the measuring loop itself takes of each call that it measures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import kernel
from .bench import Bench, opened

if TYPE_CHECKING:
    from .peers import Session, Stack
    from .rounds import Sampler

CALLS = 100_000
FLOATS = 4096
REPEATS = 50


def measure(bench: Bench) -> None:
    """Functions of C by ``time_evaluator``: one that does nothing, and a kernel."""
    with opened() as sessions:
        sessions.open_sessions(bench.with_native)
        for line, function in (("P15", kernel.NOTHING), ("P15.kernel", kernel.ADD)):
            entries = bench.contest("P15", sessions.failed)
            for name, (stack, session) in sessions.sessions.items():
                if function == kernel.NOTHING:  # TVM's server writes into a library that is loaded
                    session.upload(str(bench.library))
                entries.enter(
                    name,
                    lambda s=stack, r=session, f=function: _sampler(s, r, f, bench),  # type: ignore[misc]
                )
            stack = session = None  # type: ignore[assignment]  # TVM's ends with the last name for it
            bench.add(line, entries.run())


def _sampler(stack: Stack, session: Session, function: str, bench: Bench) -> Sampler:
    module = session.load_module(kernel.LIBRARY)
    tensors: list[Any] = []
    calls = bench.calls(CALLS)
    if function == kernel.ADD:
        array = np.ones(FLOATS, dtype="float32")
        tensors = [stack.runtime.tensor(array, session.cpu(0)) for _ in range(3)]
        calls = max(calls // 10, 1)
    number = max(calls // REPEATS, 1)
    timed = module.time_evaluator(function, session.cpu(0), number=number, repeat=REPEATS)
    return lambda: [float(timed(*tensors).median)]
