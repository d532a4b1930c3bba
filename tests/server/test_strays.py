"""Processes that were left behind, in a program of its own: this one shall adopt nobody."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = str(Path(__file__).parents[2])

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux finds orphans")

PRELUDE = f"""
import os, signal, sys, time
sys.path.append({FOLDER!r})
from pytest_tvmrpc.server import strays as module
from pytest_tvmrpc.server.strays import Strays, bear, find_children, kill_all, new_mark

def daemon():
    '''Starts one that has left its group and its parent; its number.'''
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        os.setsid()
        pid = os.fork()
        if pid == 0:
            signal.alarm(25)  # whatever becomes of the test
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                signal.pause()
        os.write(writer, str(pid).encode())
        os._exit(0)
    os.waitpid(parent, 0)
    return int(os.read(reader, 20))

def marked(mark, start):
    '''What a session with this mark starts, which ends then; its number.'''
    reader, writer = os.pipe()
    session = os.fork()
    if session == 0:
        bear(mark)
        os.write(writer, str(start()).encode())
        os._exit(0)
    os.waitpid(session, 0)
    return int(os.read(reader, 20))

def bystander():
    '''A child of this process, of no session.'''
    pid = os.fork()
    if pid == 0:
        signal.alarm(25)
        while True:
            signal.pause()
    return pid

def end(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)

def is_there(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True

def until(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
"""


def run(script: str) -> str:
    """Runs it with what stands above; what it printed."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", PRELUDE + script],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("lists", [True, False], ids=["children file", "walk of /proc"])
def test_daemons_are_found_and_killed(lists: bool) -> None:
    """Those of the session, also when their parent is gone; no other child, and no other orphan."""
    without = "real = os.listdir\n" + (
        ""
        if lists
        else "def listdir(path):\n"
        "    if path.endswith('task'):\n        raise FileNotFoundError\n"
        "    return real(path)\n"
        "os.listdir = listdir\n"
    )
    printed = run(
        without
        + """
before = bystander()
strays = Strays()
strays.adopt()
assert strays.is_adopting
mark, other = new_mark(), new_mark()
pids = [marked(mark, daemon), marked(mark, daemon)]
innocent, another = daemon(), marked(other, daemon)
assert {before, innocent, another, *pids} == find_children()
until(lambda: strays.kill(mark))
assert {before, innocent, another} == find_children()
until(lambda: strays.kill(other))
assert {before, innocent} == find_children()
assert strays.kill(mark)
end(before)
end(innocent)
assert strays.kill(mark)
print("done")
"""
    )
    assert printed == "done\n"


def test_the_mark_survives_an_exec() -> None:
    """And an environment that is emptied, another folder, and a session of its own."""
    assert (
        run(
            """
import subprocess
strays = Strays()
strays.adopt()
mark = new_mark()
command = ["/bin/sh", "-c", "sleep 25 & echo $!"]
def start():
    done = subprocess.Popen(
        command, env={}, cwd="/", start_new_session=True, stdout=subprocess.PIPE
    )
    return int(done.stdout.readline())
pid = marked(mark, start)
assert is_there(pid)
until(lambda: strays.kill(mark) and not find_children())
assert not is_there(pid)
print("done")
"""
        )
        == "done\n"
    )


def test_one_that_may_not_be_killed() -> None:
    """Another user's: that is no error, and costs no more than a moment each time."""
    assert (
        run(
            """
strays = Strays()
strays.adopt()
mark = new_mark()
pid = marked(mark, daemon)
kill = os.kill
def refuse(pid, number):
    raise PermissionError(1, "Operation not permitted")
os.kill = refuse
started = time.monotonic()
assert not strays.kill(mark)
assert time.monotonic() - started < 2
kill_all(mark, 0.05)
os.kill = kill
until(lambda: strays.kill(mark))
assert module._is_dead(pid)
print("done")
"""
        )
        == "done\n"
    )


def test_one_that_is_never_the_same() -> None:
    """It forks and ends, for ever: the caller is not kept."""
    assert (
        run(
            """
strays = Strays()
strays.adopt()
mark = new_mark()
module.find_children = lambda: {1 << 30}
module._bears = lambda pid, mark: True
keeper = bystander()
started = time.monotonic()
assert not strays.kill(mark)
assert time.monotonic() - started < 2
end(keeper)
print("done")
"""
        )
        == "done\n"
    )


def test_orphans_that_end_are_reaped() -> None:
    """At once, whosever they were; children that somebody waits for are not."""
    assert (
        run(
            """
strays = Strays()
strays.adopt()
orphan, waited_for = daemon(), bystander()
for pid in (orphan, waited_for):
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
strays.reap(but=[waited_for])
assert find_children() == {waited_for}
assert os.waitpid(waited_for, 0)[0] == waited_for
strays.reap(but=[])
print("done")
"""
        )
        == "done\n"
    )


def test_without_a_claim() -> None:
    """Where the system cannot give orphans, the marked ones are found; no others are touched."""
    assert (
        run(
            """
mark, other = new_mark(), new_mark()
pid = marked(mark, daemon)
innocent, another, child = daemon(), marked(other, daemon), bystander()
strays = Strays()
until(lambda: strays.kill(mark))
assert module._is_dead(pid)
strays.reap(but=[])
assert all(map(is_there, (innocent, another, child)))
kill_all(other, 5)
os.kill(innocent, signal.SIGKILL)
end(child)
print("done")
"""
        )
        == "done\n"
    )


def test_without_a_proc_of_its_own() -> None:
    """Numbers that belong to other processes here are worse than none."""
    assert (
        run(
            """
os.readlink = lambda path: "1000000000"
strays = Strays()
strays.adopt()
assert not strays.is_adopting
mark = new_mark()
bear(mark)
child = bystander()
kill_all(mark, 0.2)
assert is_there(child)
end(child)
print("done")
"""
        )
        == "done\n"
    )


def test_all_of_a_session() -> None:
    """What a process has started, over several steps, whoever has it now; not itself."""
    assert (
        run(
            """
mark = new_mark()
bear(mark)
pids = [daemon(), daemon()]
child = bystander()
kill_all(mark, 5)
until(lambda: not any(module._bears(pid, mark) and not module._is_dead(pid) for pid in pids))
os.waitpid(child, 0)
kill_all(mark, 5)
print("done")
"""
        )
        == "done\n"
    )
