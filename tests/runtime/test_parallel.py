from __future__ import annotations

import ctypes
import hashlib
import os
import signal
import threading
from pathlib import Path
from typing import Callable, Iterator, List, Optional

import pytest

from pytest_tvmrpc.runtime import parallel, pool_code
from pytest_tvmrpc.runtime.abi import raised, record_error, take_error


@pytest.fixture(autouse=True, params=["machine code", "Python"])
def _pool(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test is one of both: pool.c, and what stands for it elsewhere."""
    parallel.close()
    if request.param == "Python":
        interpreted = parallel._Interpreted()
        monkeypatch.setattr(parallel, "_opened", lambda: interpreted)
    elif not isinstance(parallel._pool(), parallel._MachineCode):
        pytest.skip("there is no machine code for this machine")
    yield
    parallel.close()


def launch(
    task: Callable[[int, int, Optional[int]], int], closure: Optional[int], count: int
) -> int:
    """Run a loop whose task is a function of Python, as compiled code would call it."""
    function = parallel.TASK(task)
    return parallel.launch(ctypes.cast(function, ctypes.c_void_p).value or 0, closure, count)


@pytest.mark.parametrize(("said", "meant"), [("3", 3), ("5000", 1024), ("0", None), ("x", None)])
def test_the_number_of_threads(
    said: str, meant: Optional[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """TVM_NUM_THREADS says it, up to what a loop may have; without it the cores do."""
    monkeypatch.delenv("TVM_NUM_THREADS", raising=False)
    cores = parallel.num_threads()
    assert 1 <= cores <= (os.cpu_count() or 1)
    monkeypatch.setenv("TVM_NUM_THREADS", said)
    assert parallel.num_threads() == (meant or cores)


def test_tasks_run_at_the_same_time(deadline_s: float) -> None:
    """Each task has a thread of its own: all of them meet."""
    meeting = threading.Barrier(4)
    tasks: List[int] = []

    def task(number: int, env: int, closure: Optional[int]) -> int:
        meeting.wait(deadline_s)
        tasks.append(number)
        return 0

    assert launch(task, None, 4) == 0
    assert sorted(tasks) == [0, 1, 2, 3]


def test_threads_are_kept() -> None:
    """The next loop takes the threads of the last one."""
    threads: List[int] = []

    def task(number: int, env: int, closure: Optional[int]) -> int:
        threads.append(threading.get_ident())
        return parallel.barrier(env)

    for _ in range(5):
        assert launch(task, None, 3) == 0
    assert len(set(threads)) == 3
    parallel.close()
    assert not [thread for thread in threading.enumerate() if "parallel" in thread.name]
    assert launch(task, None, 2) == 0


def test_first_failure_wins() -> None:
    """The code of the task that failed first is returned."""
    first = threading.Event()

    def task(number: int, env: int, closure: Optional[int]) -> int:
        if number == 2:
            first.set()
            return -7
        return 0 if number == 0 else parallel.barrier(env)

    assert launch(task, None, 3) in (-7, -1)
    take_error()


def test_a_task_that_ends_before_the_barrier() -> None:
    """Others do not wait for it for ever."""

    def task(number: int, env: int, closure: Optional[int]) -> int:
        return parallel.barrier(env) if number else 0

    assert launch(task, None, 3) == -1
    assert "wait for it at a barrier" in str(take_error())


def test_errors_that_come_too_late(deadline_s: float) -> None:
    """All tasks may fail: one error is told, and none is left for a later call on their threads."""
    meeting = threading.Barrier(4)

    def task(number: int, env: int, closure: Optional[int]) -> int:
        record_error(ValueError(f"of task {number}"))
        meeting.wait(deadline_s)
        return -1

    assert launch(task, None, 4) == -1
    assert "of task" in str(take_error())
    assert not raised


def test_errors_of_tasks_that_succeed() -> None:
    """A task may go on after an error: it is left on no thread, for no later loop."""

    def task(number: int, env: int, closure: Optional[int]) -> int:
        if number:
            record_error(ValueError("that the task did not care for"))
        return 0

    assert launch(task, None, 3) == 0
    assert not raised


def test_interruption_waits_for_the_tasks(deadline_s: float) -> None:
    """What interrupts the loop's own thread is raised when no task uses its memory any more."""
    ended: List[int] = []
    interrupted = threading.Event()

    def interrupt(number: int, frame: object) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    def task(number: int, env: int, closure: Optional[int]) -> int:
        if number == 0:
            return 0
        while parallel._running[env]._loop.left & 0xFFFF > 1:  # the caller is in task 0
            os.sched_yield()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        if not is_machine_code:  # it sees a signal only when the loop is over
            interrupted.wait(deadline_s)
        ended.append(number)
        return 0

    is_machine_code = isinstance(parallel._pool(), parallel._MachineCode)
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            launch(task, None, 2)
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended == [1]
    assert launch(lambda *_: 0, None, 2) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_process_starts_its_own_threads() -> None:
    """Threads do not survive a fork; a loop in the child does not wait for them."""

    def task(number: int, env: int, closure: Optional[int]) -> int:
        return parallel.barrier(env)

    assert launch(task, None, 2) == 0
    child = os.fork()
    if child == 0:
        os._exit(0 if launch(task, None, 2) == 0 else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_interruption_while_a_task_waits_at_the_barrier() -> None:
    """The task that waits is told that the interrupted one has ended, and the loop ends."""

    def task(number: int, env: int, closure: Optional[int]) -> int:
        if number:
            return parallel.barrier(env)
        while not parallel._running[env]._waiting:
            os.sched_yield()
        return 0

    team = parallel._team(2)
    function = parallel.TASK(task)
    address = ctypes.cast(function, ctypes.c_void_p).value or 0

    class Interrupted:
        """The pool, with a signal that comes as it returns from the loop."""

        def __getattr__(self, name: str) -> object:
            return getattr(pool, name)

        def run(self, *arguments: int) -> None:
            pool.run(*arguments)
            raise KeyboardInterrupt

    pool, team._pool = team._pool, Interrupted()
    with pytest.raises(KeyboardInterrupt):
        team.run(address, None)
    team._pool = pool
    assert team.run(address, None)[0] == -1
    parallel._idle.append(team)
    assert not raised


def test_threads_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that could are kept for the next loop."""

    class Second:
        def __init__(self) -> None:
            if len(started) == 2:
                raise RuntimeError("can't start new thread")
            worker = make()
            started.append(worker)
            self.__dict__ = worker.__dict__
            self.close = worker.close

    make, started = parallel._Worker, []
    monkeypatch.setattr(parallel, "_Worker", Second)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="new thread"):
            launch(lambda *_: 0, None, 4)
    assert launch(lambda *_: 0, None, 3) == 0
    assert len(started) == 2


def test_threads_of_other_sizes_are_taken() -> None:
    """Loops of more and of fewer tasks use the same threads, and no more than the largest needs."""
    threads = set()

    def task(number: int, env: int, closure: Optional[int]) -> int:
        threads.add(threading.get_ident())
        return parallel.barrier(env)

    for count in (4, 2, 3, 1, 4, 2):
        assert launch(task, None, count) == 0
    assert len(threads) == 4


def test_loops_at_the_same_time(deadline_s: float) -> None:
    """Each has threads of its own, and its own failure."""
    results = {}

    def loops(code: int) -> None:
        tasks = [lambda number, env, closure: code if number == 1 else parallel.barrier(env)]
        results[code] = {launch(tasks[0], None, 3) for _ in range(50)}
        take_error()

    callers = [threading.Thread(target=loops, args=(code,)) for code in (0, -5)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(deadline_s)
    assert results[-5] <= {-5, -1}
    assert results[0] <= {0, -1}


def test_many_loops_of_nothing() -> None:
    """Threads that still look for work, and those that sleep, are found again: none is lost."""
    done: List[int] = []

    def task(number: int, env: int, closure: Optional[int]) -> int:
        done.append(number)
        return 0

    for _ in range(2000):
        assert launch(task, None, 3) == 0
    assert len(done) == 6000


def test_a_barrier_of_a_loop_that_is_over() -> None:
    """It is an error, not a wait for nobody."""
    envs: List[int] = []
    assert launch(lambda number, env, closure: envs.append(env) or 0, None, 2) == 0
    assert parallel.barrier(envs[0]) == -1
    assert "outside of a parallel loop" in str(take_error())


def test_the_machine_code_is_that_of_the_source() -> None:
    """Whoever changes pool.c compiles it: python -m harness.machine_code."""
    source = Path(parallel.__file__).with_name("pool.c").read_bytes()
    assert hashlib.sha256(source).hexdigest() == pool_code.SOURCE_SHA256
