"""Parallel loops of compiled code: tasks on threads that are kept for the next loop.

Not a thread pool for Python: only calls of machine code, which run without the interpreter's lock.
The threads belong to Python, so that tasks may call it; what they do between tasks is pool.c, in
machine code, and on other machines than those `pool_code` has, Python.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import os
import threading
from typing import Any, Dict, List, Optional, Tuple

from . import elf, pool_code, stubs
from .abi import raised, record_error, take_error

__all__ = ["TASK", "barrier", "close", "launch", "num_threads"]

TASK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
"""FTVMParallelLambda: number of the task, its loop, what the loop closes over; 0 is success."""

MAX_TASKS = 1024

_SPINS = 1000
"""How often a thread looks for the next loop, or for the end of one, before it sleeps."""


class _Loop(ctypes.Structure):
    """A loop, as pool.c has it. It begins with what a task learns of it, TVMParallelGroupEnv."""

    _fields_ = [
        ("sync_handle", ctypes.c_void_p),
        ("num_task", ctypes.c_int32),
        ("spins", ctypes.c_uint32),
        ("call", ctypes.c_void_p),
        ("closure", ctypes.c_void_p),
        ("left", ctypes.c_uint32),  # tasks that have not ended, with flags
        ("failed", ctypes.c_int32),  # the number of the first that returned a code, and 1; or 0
    ]


class _Slot(ctypes.Structure):
    """What a worker is told to do, as pool.c has it."""

    _fields_ = [("state", ctypes.c_uint32), ("task", ctypes.c_int32), ("loop", ctypes.c_void_p)]


_LEFT = 0x0FFFFFFF  # the number in `left`
_BEGIN, _LEAVE = 2, 3  # states that a worker is told
_RETURNED_CODE, _OF_WORKER = 2, 4  # flags of a result: its upper half is what a task returned


class _MachineCode:
    """The functions of pool.c. Addresses are those of a `_Loop` or of a `_Slot`."""

    def __init__(self, library: ctypes.CDLL) -> None:
        word, number = ctypes.c_void_p, ctypes.c_uint32
        result = ctypes.c_uint64
        self.serve = ctypes.CFUNCTYPE(result, word)(("tvmrpc_serve", library))
        self.run = ctypes.CFUNCTYPE(result, word, word, number)(("tvmrpc_run", library))
        self.wait = ctypes.CFUNCTYPE(None, word)(("tvmrpc_wait", library))
        # These are over at once: the lock of the interpreter is kept.
        self.tell = ctypes.PYFUNCTYPE(None, word, number)(("tvmrpc_tell", library))
        self.end = ctypes.PYFUNCTYPE(None, word)(("tvmrpc_end", library))
        self.watch = ctypes.PYFUNCTYPE(number, word)(("tvmrpc_watch", library))


class _Interpreted:
    """The same in Python, for other machines, and where no file can be loaded."""

    def __init__(self) -> None:
        self._changes: Dict[int, threading.Condition] = {}

    def _change(self, address: int) -> threading.Condition:
        return self._changes.setdefault(address, threading.Condition())

    def serve(self, address: int) -> int:
        slot = _Slot.from_address(address)
        with self._change(address):
            self._change(address).wait_for(lambda: slot.state)
            state, slot.state = slot.state, 0
        if state == _LEAVE:
            del self._changes[address]
            return 0
        code = self._call(slot.task, slot.loop)
        if not code:
            self.end(slot.loop)
        return code | _OF_WORKER

    def run(self, address: int, slots: Any, count: int) -> int:
        loop = _Loop.from_address(address)
        loop.left, loop.failed = count + 1, 0
        begun = 0
        try:
            for begun, place in enumerate(slots, 1):
                slot = _Slot.from_address(place)
                slot.loop, slot.task = address, begun
                self.tell(place, _BEGIN)
            code = self._call(0, address)
        finally:  # also for those that have not begun, after Ctrl-C
            for _ in range(count - begun + 1):
                self.end(address)
        return code or 1

    def _call(self, task: int, address: int) -> int:
        loop = _Loop.from_address(address)
        code = TASK(loop.call)(task, address, loop.closure)
        if code and not loop.failed:
            loop.failed = task + 1
        return (code & 0xFFFFFFFF) << 32 | _RETURNED_CODE if code else 0

    def wait(self, address: int) -> None:
        loop = _Loop.from_address(address)
        with self._change(address):
            self._change(address).wait_for(lambda: not loop.left & _LEFT)
        del self._changes[address]

    def tell(self, address: int, state: int) -> None:
        with self._change(address):
            _Slot.from_address(address).state = state
            self._change(address).notify_all()

    def end(self, address: int) -> None:
        change = self._change(address)
        with change:
            _Loop.from_address(address).left -= 1
            change.notify_all()

    def watch(self, address: int) -> int:
        return int(_Loop.from_address(address).left)


def _pool() -> Any:
    with _opening:  # threads must not have different ones
        return _opened()


_opening = threading.RLock()  # a signal handler may fork within


@functools.lru_cache(maxsize=None)
def _opened() -> Any:
    try:
        library = stubs.load_code(pool_code.CODE, "pool", elf.machine())
    except OSError:  # nothing can be loaded from there: slower, but as good
        library = None
    return _Interpreted() if library is None else _MachineCode(library)


class _Team:
    """Threads for the tasks of a loop: the loop's first failure, its barrier if it has one."""

    def __init__(self, workers: List[_Worker]) -> None:
        self.workers = workers
        self.count = len(workers) + 1  # of tasks; the first one is run by the loop's own thread
        self._failures: Dict[int, Tuple[int, Optional[BaseException]]] = {}  # by task
        self._loop = _Loop(num_task=self.count, spins=_SPINS if self.count <= _cores() else 0)
        self._address = ctypes.addressof(self._loop)
        self._slots = (ctypes.c_void_p * len(workers))(*[worker.address for worker in workers])
        self._pool = _pool()
        self._changing = threading.Lock()
        self._barrier: Optional[threading.Condition] = None  # few loops have one
        self._waiting = 0
        self._rounds = 0

    def run(self, function: int, closure: Optional[int]) -> Tuple[int, Optional[BaseException]]:
        """Run all tasks, and wait until each has ended, come what may: they use our memory.

        Returns:
            0, or what the first task that failed returned; its error, if there is one.
        """
        loop = self._loop
        loop.call, loop.closure = function, closure
        self._barrier = None
        interruption: Optional[BaseException] = None
        _running[self._address] = self
        try:
            result = self._pool.run(self._address, self._slots, self.count - 1)
            if result:
                self.note(result, 0)
        except BaseException as error:  # Ctrl-C, raised when the tasks are done
            interruption = error
        while loop.left & _LEFT:
            try:
                self._tell_waiting()  # task 0 has ended, and its result may be lost
                self._pool.wait(self._address)
            except BaseException as error:
                interruption = error
        del _running[self._address]
        if raised:  # of tasks that returned 0 nevertheless: not for a later call on their threads
            for worker in self.workers:
                raised.pop(worker.ident, None)
        failures, self._failures = self._failures, {}
        if interruption is not None:
            take_error()  # of task 0, if its result is lost
            raise interruption
        return failures[loop.failed - 1] if loop.failed else (0, None)

    def note(self, result: int, task: int) -> None:
        """Take what `run` or `serve` returned on this thread, and tell those at the barrier."""
        if result & _RETURNED_CODE:
            # Also an error that will not be told: it must not be found by a later call.
            self._failures[task] = ctypes.c_int(result >> 32).value, take_error()
            if result & _OF_WORKER:
                self._pool.end(self._address)
        self._tell_waiting()

    def _tell_waiting(self) -> None:
        """Let those that wait at the barrier see that a task has ended."""
        with self._changing:
            if self._barrier is not None:
                self._barrier.notify_all()

    def meet(self) -> bool:
        """Wait until every task is here; False when one has ended and never will be."""
        with self._changing:
            if self._barrier is None:
                self._barrier = threading.Condition(self._changing)
                self._waiting = 0
                self._pool.watch(self._address)
            round_here = self._rounds
            self._waiting += 1
            if self._waiting == self.count:
                self._waiting = 0
                self._rounds += 1
                self._barrier.notify_all()
                return True
            self._barrier.wait_for(
                lambda: self._rounds != round_here or self._loop.left & _LEFT < self.count
            )
            return self._rounds != round_here


class _Worker:
    """A thread that runs one task of a loop, and then waits for the next loop."""

    def __init__(self) -> None:
        self._slot = _Slot()
        self.address = ctypes.addressof(self._slot)
        name = f"tvmrpc-parallel-{next(_numbers)}"
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()
        self.ident = self._thread.ident or 0

    def close(self) -> None:
        """End the thread; no task may be running."""
        _pool().tell(self.address, _LEAVE)
        self._thread.join()

    def _serve(self) -> None:
        _here.is_inside = True
        serve = _pool().serve
        while True:
            result = serve(self.address)
            if not result:
                return
            team = _running.get(self._slot.loop or 0)
            if team is not None:  # otherwise its loop has ended, and nobody waits at a barrier
                team.note(result, self._slot.task)


_numbers = itertools.count(1)
_idle: List[_Team] = []
_running: Dict[int, _Team] = {}  # by the address of their loop
_here = threading.local()  # is_inside: whether this thread runs a task


def num_threads() -> int:
    """The tasks of a parallel loop that does not say how many: ``TVM_NUM_THREADS``, or the cores
    that this process may use."""
    wanted = os.environ.get("TVM_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted):
        return min(int(wanted), MAX_TASKS)
    return _cores()


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1


def launch(function: int, closure: Optional[int], num_task: int) -> int:
    """Run a function once for each task, all at the same time (TVMBackendParallelLaunch).

    Args:
        function: address of the function, a `TASK`.
        closure: passed on to each task.
        num_task: how many; 0 leaves it to `num_threads`, or means 1 inside of another loop.

    Returns:
        0, or the code of the task that failed first, with its error recorded on this thread.
    """
    was_inside = getattr(_here, "is_inside", False)
    count = num_task
    if count == 0:
        count = 1 if was_inside else num_threads()
    if not 0 < count <= MAX_TASKS:
        record_error(ValueError(f"a parallel loop of {count} tasks; expected 1 to {MAX_TASKS}"))
        return -1
    team: Optional[_Team] = None
    try:
        team = _team(count)
        _here.is_inside = True
        code, error = team.run(function, closure)
    finally:
        _here.is_inside = was_inside
        if team is not None:
            _idle.append(team)
    if error is not None:
        record_error(error)
    return code


def barrier(env: Optional[int]) -> int:
    """Wait until all tasks of a loop are here (TVMBackendParallelBarrier).

    Returns:
        0, or -1 with an error recorded: a task of the loop has ended, so the wait would never end.
    """
    team = _running.get(env or 0)
    if team is None:
        record_error(ValueError("a barrier outside of a parallel loop"))
        return -1
    if not team.meet():
        record_error(RuntimeError("a task ended, and others wait for it at a barrier"))
        return -1
    return 0


def close() -> None:
    """End the threads that wait for the next parallel loop. It starts new ones."""
    while _idle:
        for worker in _idle.pop().workers:
            worker.close()


def _team(count: int) -> _Team:
    """The last one of this size; otherwise one of the threads of those that wait."""
    for team in reversed(_idle):
        if team.count == count:
            try:
                _idle.remove(team)
            except ValueError:  # another thread has it
                continue
            return team
    workers: List[_Worker] = []
    with contextlib.suppress(IndexError):  # of teams: there are no more
        while len(workers) < count - 1:
            workers += _idle.pop().workers
    try:
        while len(workers) < count - 1:
            workers.append(_Worker())
    except BaseException:  # no more threads can be started: the others stay for later
        _idle.append(_Team(workers))
        raise
    if workers[count - 1 :]:
        _idle.append(_Team(workers[count - 1 :]))
    return _Team(workers[: count - 1])


def _start_anew() -> None:
    """Threads do not survive a fork: a child starts its own."""
    _opening.release()
    _idle.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_opening.acquire, after_in_parent=_opening.release)
    os.register_at_fork(after_in_child=_start_anew)
