"""P3 and P7: 64 MiB through a tensor and through a file; the memory that 512 MiB take besides."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from . import bare, machine
from .bench import Bench, Opened, opened
from .child import child_program
from .goals import BARE, MEBIBYTE, OURS
from .peers import Address, Session, Stack
from .rounds import Contest, Outcome, Sampler, each, explain, step_limit

COPY_BYTES = 64 * MEBIBYTE
LARGE_BYTES = 512 * MEBIBYTE
FILE = "bench.bin"
SAMPLE_S = 0.25
UPLOAD_HEAD = 16  # what a request of the bare server says before its payload

Prepare = Callable[[Stack, Session], Callable[[], Any]]


def measure_tensors(bench: Bench) -> None:
    """P3: speed, then memory."""

    def prepare_write(stack: Stack, session: Session) -> Callable[[], Any]:
        source = np.arange(COPY_BYTES // 4, dtype="float32")
        tensor = stack.runtime.empty(source.shape, "float32", session.cpu(0))
        return _settled(session, lambda: tensor.copyfrom(source))

    def prepare_read(stack: Stack, session: Session) -> Callable[[], Any]:
        source = np.arange(COPY_BYTES // 4, dtype="float32")
        tensor = stack.runtime.tensor(source, session.cpu(0))
        if not np.array_equal(tensor.numpy(), source):
            raise ValueError("the tensor came back with other values")
        return tensor.numpy  # type: ignore[no-any-return]

    with opened() as sessions:
        sessions.open_sessions(bench.with_native)
        _compare(bench, sessions, ("P3", "P3.write"), prepare_write, _bare_write)
        _compare(bench, sessions, ("P3", "P3.read"), prepare_read, _bare_read)
    _measure_peaks(bench)


def measure_files(bench: Bench) -> None:
    """P7."""

    def prepare_upload(stack: Stack, session: Session) -> Callable[[], Any]:
        blob = _blob()
        session.upload(blob, FILE)
        return _settled(session, lambda: session.upload(blob, FILE))

    def prepare_download(stack: Stack, session: Session) -> Callable[[], Any]:
        blob = _blob()
        session.upload(blob, FILE)
        if session.download(FILE) != blob:
            raise ValueError("the file came back with other bytes")
        return lambda: session.download(FILE)

    with opened() as sessions:
        sessions.open_sessions(bench.with_native)
        _compare(bench, sessions, ("P7", "P7.upload"), prepare_upload, _bare_write)
        _compare(bench, sessions, ("P7", "P7.download"), prepare_download, _bare_read)


def _compare(
    bench: Bench,
    sessions: Opened,
    names: tuple[str, str],
    prepare: Prepare,
    bare_action: Callable[[bare.BareClient], Callable[[], Any]],
) -> None:
    """One line: seconds become bytes a second."""
    item, line = names
    entries = bench.contest(item, sessions.failed)
    for name, (stack, session) in sessions.sessions.items():
        entries.enter(name, lambda s=stack, r=session: _repeated(prepare(s, r)))  # type: ignore[misc]
    stack = session = None  # type: ignore[assignment]  # TVM's ends with the last name for it
    with contextlib.ExitStack() as owner:
        if bench.with_bare:
            _enter_bare(entries, owner, bare_action)
        outcomes = entries.run()
    bench.add(line, {name: o.scaled(lambda s: COPY_BYTES / s) for name, o in outcomes.items()})


def _settled(session: Session, action: Callable[[], Any]) -> Callable[[], Any]:
    """The action, then a call: a copy may return before the other side has it."""
    call = session.get_function("rpc.test.addone")

    def settle() -> None:
        action()
        call(10)

    return settle


def _repeated(action: Callable[[], Any]) -> Sampler:
    """One execution to warm up; then as many as fit a quarter of a second are a sample.

    A single one of 20 ms shows where the scheduler happened to wake the server: on the client's
    core it takes twice as long, and the next one runs on another.
    """
    each(action, 1)

    def sample() -> list[float]:
        samples = each(action, 1)
        while sum(samples) < SAMPLE_S:
            samples += each(action, 1)
        return samples

    return sample


def _enter_bare(
    entries: Contest,
    owner: contextlib.ExitStack,
    bare_action: Callable[[bare.BareClient], Callable[[], Any]],
) -> None:
    def ready() -> Sampler:
        client = owner.enter_context(bare.BareClient(owner.enter_context(bare.server())))
        return _repeated(bare_action(client))

    entries.enter(BARE, ready)


def _bare_write(client: bare.BareClient) -> Callable[[], Any]:
    payload, answer = memoryview(_blob()), memoryview(bytearray(1))
    return lambda: client.send(payload, answer)


def _bare_read(client: bare.BareClient) -> Callable[[], Any]:
    """Into memory that is there already: the least, as nobody needs it afterwards."""
    request, answer = bare.request(UPLOAD_HEAD, COPY_BYTES), memoryview(_blob())
    return lambda: client.exchange(request, answer)


def _blob() -> bytearray:
    """Bytes that are really there: a page of zeros that nobody wrote is not memory yet."""
    return bytearray(bytes(range(256)) * (COPY_BYTES // 256))


def _measure_peaks(bench: Bench) -> None:
    """The memory lines of P3, each stack with a server and a client of its own.

    The tensor of TVM takes half a minute through its per-byte loops: not in a quick run.
    """
    outcomes: tuple[dict[str, Outcome], dict[str, Outcome]] = (bench.missing(), bench.missing())
    for stack in bench.stacks:
        if bench.quick and stack.name != OURS:
            continue
        try:
            with step_limit(), stack.server() as address:
                peaks = _peaks(stack, address)
        except Exception as error:  # a cell of the table
            for side in outcomes:
                side[stack.name] = Outcome(error=explain(error))
        else:
            for side, peak in zip(outcomes, peaks, strict=True):
                side[stack.name] = Outcome((float(peak),))
    bench.add("P3.client", outcomes[0])
    bench.add("P3.server", outcomes[1])


def _peaks(stack: Stack, address: Address) -> tuple[int, int]:
    """Bytes above the tensor itself, at the peak: of the client, of all processes of the server."""
    mine = machine.descendants()
    host, port = address
    arguments = (stack.name, host, str(port), str(LARGE_BYTES))
    with child_program("harness.bench.peak", *arguments, flags=()) as client:
        _expect(client, "connected")
        # Whatever appeared for this client, and whatever was there: a worker may be forked early.
        served = (machine.descendants() | mine) - {client.pid} - machine.descendants(client.pid)
        before = {pid: machine.memory(pid, "VmRSS") for pid in served}
        for pid in served:
            machine.reset_peak(pid)
        client.write_line("go")
        extra_of_client = json.loads(client.read_line())["extra"]
        grown = sum(machine.memory(pid, "VmHWM") - rss for pid, rss in before.items())
        client.write_line("done")
    if grown < LARGE_BYTES // 2:
        raise ValueError("no process of the server grew by the tensor: looked at the wrong ones")
    return extra_of_client, max(0, grown - LARGE_BYTES)


def _expect(client: Any, word: str) -> None:
    line = client.read_line()
    if line != word:
        raise ValueError(f"the client of the memory check said {line!r}, expected {word!r}")
