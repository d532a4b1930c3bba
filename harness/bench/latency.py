"""P1, P2, P4 and P5: what one small request costs, client and server on one core."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import bare, kernel, machine
from .bench import Bench, Opened, opened
from .goals import BARE
from .peers import Session, Stack
from .rounds import Contest, Sampler, batches, each

CALLS = 2000
COPIES = 500
WARM_UP = 50
FLOATS = 16  # 64 bytes

# The bytes of a request and its answer in TVM's protocol, so that bare moves as many.
CALL_BYTES = (36, 40)
TENSOR_CALL_BYTES = (124, 32)
WRITE_BYTES = (124, 20)
READ_BYTES = (60, 76)
ALLOCATE_BYTES = (64, 28)

Prepare = Callable[[Stack, Session], Callable[[], Any]]


def measure_call(bench: Bench) -> None:
    """P1."""

    def prepare(stack: Stack, session: Session) -> Callable[[], Any]:
        function = session.get_function("rpc.test.addone")
        _expect(function(10), 11)
        return lambda: function(10)

    with _pinned_sessions(bench) as sessions:
        _compare(bench, sessions, ("P1", "P1"), prepare, CALL_BYTES, CALLS)


def measure_tensor_call(bench: Bench) -> None:
    """P2."""

    def prepare(stack: Stack, session: Session) -> Callable[[], Any]:
        session.upload(str(bench.library))
        function = session.load_module(kernel.LIBRARY).get_function(kernel.TOUCH)
        source, target = (_tensor(stack, session) for _ in range(2))
        function(source, target, 3)
        _expect(float(target.numpy()[0]), 4.0)
        return lambda: function(source, target, 3)

    with _pinned_sessions(bench) as sessions:
        _compare(bench, sessions, ("P2", "P2"), prepare, TENSOR_CALL_BYTES, CALLS)


def measure_copy(bench: Bench) -> None:
    """P4, both ways."""

    def prepare_write(stack: Stack, session: Session) -> Callable[[], Any]:
        tensor = _tensor(stack, session)
        source = np.arange(FLOATS, dtype="float32")
        return lambda: tensor.copyfrom(source)

    def prepare_read(stack: Stack, session: Session) -> Callable[[], Any]:
        tensor = _tensor(stack, session)
        _expect(float(tensor.numpy().sum()), float(FLOATS))
        return tensor.numpy  # type: ignore[no-any-return]

    with _pinned_sessions(bench) as sessions:
        _compare(
            bench, sessions, ("P4", "P4.write"), prepare_write, WRITE_BYTES, COPIES, settled=True
        )
        _compare(bench, sessions, ("P4", "P4.read"), prepare_read, READ_BYTES, COPIES)


def measure_allocation(bench: Bench) -> None:
    """P5."""

    def prepare(stack: Stack, session: Session) -> Callable[[], Any]:
        device = session.cpu(0)
        return lambda: stack.runtime.empty((FLOATS,), "float32", device)

    with _pinned_sessions(bench) as sessions:
        _compare(bench, sessions, ("P5", "P5"), prepare, ALLOCATE_BYTES, COPIES, settled=True)


@contextlib.contextmanager
def _pinned_sessions(bench: Bench) -> Iterator[Opened]:
    with machine.pinned(bench.core), opened() as sessions:
        yield sessions.open_sessions(bench.with_native)


def _compare(
    bench: Bench,
    sessions: Opened,
    names: tuple[str, str],
    prepare: Prepare,
    packet: tuple[int, int],
    full: int,
    *,
    settled: bool = False,
) -> None:
    """One line: the same operation of every stack, and a bare exchange of as many bytes.

    `settled`: the operation may return before it is done, so a call ends each batch of them.
    """
    item, line = names
    count = bench.calls(full)
    entries = bench.contest(item, sessions.failed)
    for name, (stack, session) in sessions.sessions.items():
        entries.enter(name, _sampler(prepare, stack, session, count, settled))
    del stack, session  # TVM's session ends with the last name for it
    with contextlib.ExitStack() as owner:
        if bench.with_bare:
            _enter_bare(entries, owner, packet, count)
        bench.add(line, entries.run())


def _sampler(
    prepare: Prepare, stack: Stack, session: Session, count: int, settled: bool
) -> Callable[[], Sampler]:
    def ready() -> Sampler:
        action = prepare(stack, session)
        each(action, WARM_UP)
        if not settled:
            return lambda: each(action, count)
        call = session.get_function("rpc.test.addone")
        return lambda: batches(action, lambda: call(10), count)

    return ready


def _enter_bare(
    entries: Contest, owner: contextlib.ExitStack, packet: tuple[int, int], count: int
) -> None:
    def ready() -> Sampler:
        client = owner.enter_context(bare.BareClient(owner.enter_context(bare.server())))
        request, answer = bare.request(*packet), memoryview(bytearray(packet[1]))
        each(lambda: client.exchange(request, answer), WARM_UP)
        return lambda: each(lambda: client.exchange(request, answer), count)

    entries.enter(BARE, ready)


def _tensor(stack: Stack, session: Session) -> Any:
    return stack.runtime.tensor(np.ones(FLOATS, "float32"), session.cpu(0))


def _expect(got: object, wanted: object) -> None:
    if got != wanted:
        raise ValueError(f"wrong result: {got!r}, expected {wanted!r}")
