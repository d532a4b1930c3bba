from __future__ import annotations

import os
import threading
from typing import Iterator, List, Optional

import pytest

from pytest_tvmrpc.runtime import parallel
from pytest_tvmrpc.runtime.abi import raised, record_error, take_error


@pytest.fixture(autouse=True)
def _no_idle_threads() -> Iterator[None]:
    yield
    parallel.close()


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

    assert parallel.launch(task, None, 4) == 0
    assert sorted(tasks) == [0, 1, 2, 3]


def test_threads_are_kept() -> None:
    """The next loop takes the threads of the last one."""
    threads: List[int] = []

    def task(number: int, env: int, closure: Optional[int]) -> int:
        threads.append(threading.get_ident())
        return parallel.barrier(env)

    for _ in range(5):
        assert parallel.launch(task, None, 3) == 0
    assert len(set(threads)) == 3
    parallel.close()
    assert not [thread for thread in threading.enumerate() if "parallel" in thread.name]
    assert parallel.launch(task, None, 2) == 0


def test_first_failure_wins() -> None:
    """The code of the task that failed first is returned."""
    first = threading.Event()

    def task(number: int, env: int, closure: Optional[int]) -> int:
        if number == 2:
            first.set()
            return -7
        return 0 if number == 0 else parallel.barrier(env)

    assert parallel.launch(task, None, 3) in (-7, -1)
    take_error()


def test_a_task_that_ends_before_the_barrier() -> None:
    """Others do not wait for it for ever."""

    def task(number: int, env: int, closure: Optional[int]) -> int:
        return parallel.barrier(env) if number else 0

    assert parallel.launch(task, None, 3) == -1
    assert "wait for it at a barrier" in str(take_error())


def test_errors_that_come_too_late(deadline_s: float) -> None:
    """All tasks may fail: one error is told, and none is left for a later call on their threads."""
    meeting = threading.Barrier(4)

    def task(number: int, env: int, closure: Optional[int]) -> int:
        record_error(ValueError(f"of task {number}"))
        meeting.wait(deadline_s)
        return -1

    assert parallel.launch(task, None, 4) == -1
    assert "of task" in str(take_error())
    assert not raised


def test_interruption_waits_for_the_tasks(deadline_s: float) -> None:
    """What interrupts the loop's own thread is raised when no task uses its memory any more."""
    ended: List[int] = []
    begun = threading.Event()

    def task(number: int, env: int, closure: Optional[int]) -> int:
        if number == 0:
            begun.wait(deadline_s)
            raise KeyboardInterrupt
        begun.set()
        ended.append(number)
        return 0

    with pytest.raises(KeyboardInterrupt):
        parallel.launch(task, None, 2)
    assert ended == [1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_process_starts_its_own_threads() -> None:
    """Threads do not survive a fork; a loop in the child does not wait for them."""

    def task(number: int, env: int, closure: Optional[int]) -> int:
        return parallel.barrier(env)

    assert parallel.launch(task, None, 2) == 0
    child = os.fork()
    if child == 0:
        os._exit(0 if parallel.launch(task, None, 2) == 0 else 1)
    assert os.waitpid(child, 0)[1] == 0
