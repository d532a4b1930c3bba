"""Parallel loops of compiled code: tasks on threads that are kept for the next loop.

Not a thread pool for Python: only calls of machine code, which run without the interpreter's lock.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import threading
from typing import Any, Callable, Dict, List, Optional, Tuple

from .abi import record_error, take_error

__all__ = ["TASK", "barrier", "close", "launch", "num_threads"]

TASK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
"""FTVMParallelLambda: number of the task, its group, what the loop closes over; 0 is success."""

MAX_TASKS = 1024

_Failure = Tuple[int, Optional[BaseException]]


class TVMParallelGroupEnv(ctypes.Structure):
    """What a task learns of its loop."""

    _fields_ = [("sync_handle", ctypes.c_void_p), ("num_task", ctypes.c_int32)]


class _Group:
    """The tasks of one loop: their end, the first failure, and their barrier if they have one."""

    __slots__ = (
        "_barrier",
        "_changing",
        "_ended",
        "_finished",
        "_rounds",
        "_waiting",
        "address",
        "call",
        "closure",
        "count",
        "env",
        "failure",
    )

    def __init__(self, call: Callable[..., int], closure: Optional[int], count: int) -> None:
        self.call = call
        self.closure = closure
        self.count = count
        self.env = TVMParallelGroupEnv(None, count)
        self.address = ctypes.addressof(self.env)
        self.failure: Optional[_Failure] = None
        self._changing = threading.Lock()
        self._finished = threading.Lock()
        self._finished.acquire()
        self._ended = 0
        self._barrier: Optional[threading.Condition] = None  # few loops have one, and it costs 3 us
        self._waiting = 0
        self._rounds = 0

    def run(self, task: int) -> None:
        """Run one task on this thread."""
        was_inside = getattr(_here, "is_inside", False)
        _here.is_inside = True
        code = -1
        try:
            code = self.call(task, self.address, self.closure)
        finally:
            _here.is_inside = was_inside
            self._end(code, take_error() if code else None)  # also one too late to count

    def _end(self, code: int, error: Optional[BaseException]) -> None:
        with self._changing:
            if code and self.failure is None:
                self.failure = code, error
            self._ended += 1
            if self._barrier is not None:
                self._barrier.notify_all()
            if self._ended == self.count:
                self._finished.release()

    def meet(self) -> bool:
        """Wait until every task is here; False when one has ended and never will be."""
        with self._changing:
            if self._barrier is None:
                self._barrier = threading.Condition(self._changing)
            round_here = self._rounds
            self._waiting += 1
            if self._waiting == self.count:
                self._waiting = 0
                self._rounds += 1
                self._barrier.notify_all()
                return True
            self._barrier.wait_for(lambda: self._rounds != round_here or self._ended > 0)
            return self._rounds != round_here

    def wait(self) -> None:
        """Wait until every task has ended, come what may: they use memory of their caller."""
        interruption: Optional[BaseException] = None
        while self._ended < self.count:
            try:
                self._finished.acquire()
            except BaseException as error:  # Ctrl-C, raised when the tasks are done
                interruption = error
        if interruption is not None:
            raise interruption


class _Worker:
    """A thread that runs one task of a loop, and then waits for the next loop."""

    def __init__(self) -> None:
        self._job: Optional[Tuple[_Group, int]] = None
        self._begin = threading.Lock()
        self._begin.acquire()
        name = f"tvmrpc-parallel-{next(_numbers)}"
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def begin(self, group: _Group, task: int) -> None:
        self._job = group, task
        self._begin.release()

    def close(self) -> None:
        """End the thread; no task may be running."""
        self._job = None
        self._begin.release()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            self._begin.acquire()
            if self._job is None:
                return
            group, task = self._job
            group.run(task)
            del group  # the next loop may be far away


_numbers = itertools.count(1)
_idle: List[_Worker] = []
_groups: Dict[int, _Group] = {}  # by the address of their TVMParallelGroupEnv
_here = threading.local()  # is_inside: whether this thread runs a task


def num_threads() -> int:
    """The tasks of a parallel loop that does not say how many: ``TVM_NUM_THREADS``, or the cores
    that this process may use."""
    wanted = os.environ.get("TVM_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted):
        return min(int(wanted), MAX_TASKS)
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1


def launch(function: Any, closure: Optional[int], num_task: int) -> int:
    """Run a function once for each task, all at the same time (TVMBackendParallelLaunch).

    Args:
        function: address of the function (`TASK`), or a callable of the same form.
        closure: passed on to each task.
        num_task: how many; 0 leaves it to `num_threads`, or means 1 inside of another loop.

    Returns:
        0, or the code of the task that failed first, with its error recorded on this thread.
    """
    count = num_task
    if count == 0:
        count = 1 if getattr(_here, "is_inside", False) else num_threads()
    if not 0 < count <= MAX_TASKS:
        record_error(ValueError(f"a parallel loop of {count} tasks; expected 1 to {MAX_TASKS}"))
        return -1
    call = function if callable(function) else TASK(function)
    group = _Group(call, closure, count)
    _groups[group.address] = group
    workers: List[_Worker] = []
    try:
        while len(workers) < count - 1:
            workers.append(_worker())
        for task, worker in enumerate(workers, 1):
            worker.begin(group, task)
        try:
            group.run(0)
        finally:
            group.wait()
    finally:
        del _groups[group.address]
        _idle.extend(workers)
    if group.failure is None:
        return 0
    code, error = group.failure
    if error is not None:
        record_error(error)
    return code


def barrier(env: Optional[int]) -> int:
    """Wait until all tasks of a loop are here (TVMBackendParallelBarrier).

    Returns:
        0, or -1 with an error recorded: a task of the loop has ended, so the wait would never end.
    """
    group = _groups.get(env or 0)
    if group is None:
        record_error(ValueError("a barrier outside of a parallel loop"))
        return -1
    if not group.meet():
        record_error(RuntimeError("a task ended, and others wait for it at a barrier"))
        return -1
    return 0


def close() -> None:
    """End the threads that wait for the next parallel loop. It starts new ones."""
    while _idle:
        _idle.pop().close()


def _worker() -> _Worker:
    try:
        return _idle.pop()
    except IndexError:
        return _Worker()


# Threads do not survive a fork: a child starts its own.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)
