"""P10: what the programs take when nothing happens."""

from __future__ import annotations

import contextlib
import resource
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from . import machine
from .goals import BARE, MEGABYTE
from .rounds import Outcome, explain, step_limit
from .watch import MAGIC

if TYPE_CHECKING:
    from .bench import Bench
    from .peers import Address, Stack

CONNECTIONS = 1000
TVM_LIMIT_S = 120.0
SETTLE_S = 0.3

Figures = dict[str, Outcome]


def measure(bench: Bench) -> None:
    """Sizes are resident pages (VmRSS) of all processes that were started; see the remarks."""
    server, worker, tracker = bench.missing(), bench.missing(), bench.missing()
    notes: dict[str, list[str]] = {"server": [], "worker": [], "tracker": []}
    for stack in bench.with_native:
        _measure_server(stack, server, worker, notes)
        if stack in bench.stacks:
            _measure_tracker(stack, tracker, notes)
    if bench.with_bare:
        server[BARE] = Outcome((float(_bare_memory()),))
    bench.add("P10.server", server, _remark(notes["server"]))
    bench.add("P10.worker", worker, _remark(notes["worker"]))
    bench.add("P10.tracker", tracker, _remark(notes["tracker"]))


def _measure_server(
    stack: Stack, server: Figures, worker: Figures, notes: dict[str, list[str]]
) -> None:
    before = machine.descendants()
    try:
        with step_limit(), stack.server() as address:
            _settle()
            idle = machine.descendants() - before
            server[stack.name] = _total(stack, idle, notes["server"])
            session = stack.connect(address)
            session.get_function("rpc.test.addone")(10)
            _settle()
            started = machine.descendants() - before - idle
            # A server that keeps a process ready forks none when the session comes.
            worker[stack.name] = _largest(stack, started or idle, notes["worker"])
            stack.close(session)
            del session
    except Exception as error:  # a cell of the table
        for figures in (server, worker):
            figures.setdefault(stack.name, Outcome(error=explain(error)))


def _measure_tracker(stack: Stack, tracker: Figures, notes: dict[str, list[str]]) -> None:
    before = machine.descendants()
    with contextlib.ExitStack() as owner:
        try:
            _allow_files(2 * CONNECTIONS)
            with step_limit(TVM_LIMIT_S):
                address = owner.enter_context(stack.tracker())
                for _ in range(CONNECTIONS):
                    owner.enter_context(_tracker_connection(address))
            _settle()
            started = machine.descendants() - before
            tracker[stack.name] = _total(stack, started, notes["tracker"])
        except Exception as error:  # a cell of the table
            tracker[stack.name] = Outcome(error=explain(error))


def _tracker_connection(address: Address) -> socket.socket:
    """A connection that the tracker has accepted and answered."""
    connection = socket.create_connection(address, 30)
    connection.sendall(MAGIC)
    if connection.recv(len(MAGIC), socket.MSG_WAITALL) != MAGIC:
        connection.close()
        raise ValueError("the tracker did not repeat the magic number")
    return connection


def _total(stack: Stack, pids: set[int], notes: list[str]) -> Outcome:
    notes.append(
        f"{stack.name} {len(pids)} process{'es' if len(pids) != 1 else ''}, "
        f"Pss {sum(map(machine.proportional_memory, pids)) / MEGABYTE:.1f} MB"
    )
    return _outcome(sum(machine.memory(pid, "VmRSS") for pid in pids))


def _largest(stack: Stack, pids: set[int], notes: list[str]) -> Outcome:
    pid = max(pids, key=lambda pid: machine.memory(pid, "VmRSS"), default=0)
    notes.append(f"{stack.name} Pss {machine.proportional_memory(pid) / MEGABYTE:.1f} MB")
    return _outcome(machine.memory(pid, "VmRSS"))


def _outcome(size: int) -> Outcome:
    return Outcome((float(size),)) if size else Outcome(error="no process was found")


def _remark(notes: list[str]) -> str:
    return "; ".join(notes)


def _settle() -> None:
    """Start-up is over, what it allocated for the moment is freed."""
    time.sleep(SETTLE_S)


def _bare_memory() -> int:
    """A Python that waits."""
    command = [sys.executable, "-S", "-E", "-c", "print('up', flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        size = machine.memory(process.pid, "VmRSS")
        process.kill()
    return size


def _allow_files(count: int) -> None:
    """Raises our limit of open files, which the tracker inherits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))
