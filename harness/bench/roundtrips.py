"""P14: how often one ordinary test waits for the other side, and what that costs on a slow link."""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import kernel
from .bench import Bench, opened
from .child import Child, child_program
from .goals import OURS, TVM
from .rounds import Contest, Outcome, Sampler

if TYPE_CHECKING:
    from .peers import Address, Stack

DELAY_S = 0.005
CALLS = 10
FLOATS = 1024
PAUSE_S = 0.3  # TVM's server serves one session at a time, and needs a while between two


class Pair(NamedTuple):
    """A client with a server, the lines it fills, and the column."""

    client: str
    server: str
    suffix: str
    column: str


PAIRS = (
    Pair(OURS, OURS, "", OURS),
    Pair(TVM, TVM, "", TVM),
    Pair(OURS, TVM, "-a", OURS),
    Pair(TVM, OURS, "-b", OURS),
)


def measure(bench: Bench) -> None:
    """Counts and times come from the same runs, through the slow link.

    The slow link makes the count certain: what is sent without waiting is always ahead of the
    answer, which on loopback is a matter of luck.
    """
    counts: dict[Pair, list[float]] = {}
    entries = Contest(bench.rounds("P14"))
    with contextlib.ExitStack() as owner:
        servers = owner.enter_context(opened()).open_servers(bench.stacks)
        for pair in PAIRS:
            client = bench.stack(pair.client)
            if client is None or bench.stack(pair.server) is None:
                continue
            name = f"{pair.client}-{pair.server}"
            if pair.server in servers.failed:
                entries.fail(name, servers.failed[pair.server])
                continue
            relay = owner.enter_context(_relay(servers.addresses[pair.server]))
            counts[pair] = []
            entries.enter(name, lambda c=client, r=relay, n=counts[pair]: _sampler(c, bench, r, n))  # type: ignore[misc]
        outcomes = entries.run()
    _add_lines(bench, outcomes, counts)


def _add_lines(bench: Bench, outcomes: dict[str, Outcome], counts: dict[Pair, list[float]]) -> None:
    times: dict[str, dict[str, Outcome]] = {}
    trips: dict[str, dict[str, Outcome]] = {}
    for pair in PAIRS:
        timed = outcomes.get(f"{pair.client}-{pair.server}")
        if timed is None:
            missing = bench.missing()
            other = pair.client if pair.client in missing else pair.server
            timed = missing[other]
            if timed.error and other != pair.column:
                timed = timed._replace(error=f"{other} is {timed.error}")
        counted = timed if timed.error else Outcome(tuple(counts[pair]))
        times.setdefault(pair.suffix, {})[pair.column] = timed
        trips.setdefault(pair.suffix, {})[pair.column] = counted
    for prefix, lines in (("P14.trips", trips), ("P14.time", times)):
        for suffix, cells in lines.items():
            # Every pair is compared with TVM's client at TVM's server.
            bench.add(prefix + suffix, {TVM: lines[""][TVM], **cells})


@contextlib.contextmanager
def _relay(address: Address) -> Any:
    host, port = address
    with child_program("harness.bench.relay", host, str(port), str(DELAY_S)) as program:
        yield program, ("127.0.0.1", int(program.read_line()))


def _sampler(
    client: Stack, bench: Bench, relay: tuple[Child, Address], counts: list[float]
) -> Sampler:
    program, address = relay

    def sample() -> list[float]:
        time.sleep(PAUSE_S)
        start = time.perf_counter()
        ordinary_test(client, address, str(bench.library))
        elapsed_s = time.perf_counter() - start
        counts.append(float(json.loads(program.read_line())["trips"]))
        return [elapsed_s]

    sample()
    counts.clear()
    return sample


def ordinary_test(client: Stack, address: Address, library: str) -> None:
    """What most tests do: send a kernel, give it tensors, call it, compare, time it, go."""
    session = client.connect(address)
    session.upload(library)
    module = session.load_module(kernel.LIBRARY)
    add = module.get_function(kernel.ADD)
    device = session.cpu(0)
    first, second = np.arange(FLOATS, dtype="float32"), np.ones(FLOATS, "float32")
    a = client.runtime.tensor(first, device)
    b = client.runtime.tensor(second, device)
    total = client.runtime.empty((FLOATS,), "float32", device)
    for _ in range(CALLS):
        add(a, b, total)
    np.testing.assert_array_equal(total.numpy(), first + second)
    np.testing.assert_array_equal(a.numpy(), first)
    timing = module.time_evaluator(kernel.ADD, device, number=CALLS)(a, b, total)
    assert timing.mean > 0
    del a, b, total, add, module
    client.close(session)
