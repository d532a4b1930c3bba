"""Forks of a process that has sessions, trackers and programs: the parent's stay the parent's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import pytest

from pytest_tvmrpc import rpc

FOLDER = str(Path(rpc.__file__).resolve().parents[1])

PROGRAM = """
import gc, json, os, sys
import numpy as np
sys.path.insert(0, {folder!r})
from pytest_tvmrpc import errors, rpc, runtime

def forked(work):
    '''What the work returns in a fork, which ends as a process does that leaves its main module.'''
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            answer = work()
        except BaseException as error:
            answer = [type(error).__name__, str(error)]
        os.write(writing, json.dumps(answer).encode())
        os.close(writing)
        {leave}
    os.close(writing)
    with open(reading, "rb") as file:
        answer = json.loads(file.read())
    assert os.waitpid(pid, 0)[1] == 0
    return answer

def attempt(work):
    try:
        return work()
    except errors.RPCError as error:
        return [type(error).__name__, str(error)]

port = {port}
{program}
"""

Run = Callable[..., Any]


@pytest.fixture(name="run", params=["leaves at once", "ends in order"])
def _run(request: pytest.FixtureRequest, server: rpc.Server, deadline_s: float) -> Run:
    """``run(program)``: what a program printed as JSON; its forks end in both ways there are."""
    leave = "os._exit(0)" if request.param == "leaves at once" else "sys.exit(0)"

    def run(program: str) -> Any:
        text = PROGRAM.format(folder=FOLDER, leave=leave, port=server.port, program=program)
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", text],
            capture_output=True,
            text=True,
            timeout=4 * deadline_s,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return json.loads(done.stdout)

    return run


REQUESTS = """
remote = rpc.connect("127.0.0.1", port)
addone, device = remote.get_function("rpc.test.addone"), remote.cpu(0)
tensor = runtime.tensor(np.array([1.0, 2.0]), device)
pipeline = remote.pipeline()
call = pipeline.call(addone, 1)
REQUESTS = {
    "a call": lambda: addone(1),
    "a look-up": lambda: remote.get_function("rpc.test.addone").name,
    "an allocation": lambda: bool(runtime.empty((3,), "int8", device)),
    "an upload": lambda: remote.upload(b"abc", "a.bin"),
    "a copy": lambda: tensor.numpy().tolist(),
    "a small copy there": lambda: tensor.copyfrom(np.array([1.0, 2.0])).shape,
    "a pipeline": lambda: pipeline.call(addone, 5).result(),
    "a pipelined result": lambda: call.result(),
    "a device": lambda: device.sync(),
}
"""


def test_each_request_in_a_fork(run: Run) -> None:
    """Is refused there, with the number of the process that has the session; here it goes on."""
    there, here, pid = run(
        REQUESTS
        + """
there = forked(lambda: {name: attempt(work) for name, work in REQUESTS.items()})
here = {name: attempt(work) for name, work in REQUESTS.items()}
print(json.dumps([there, here, os.getpid()]))
remote.close()
"""
    )
    if there["a pipelined result"] == 2:  # its answer had come before the fork
        del there["a pipelined result"]
    assert {kind for kind, _ in there.values()} == {"ConnectionLostError"}
    assert all(f"process {pid}, of which this one is a fork" in text for _, text in there.values())
    assert not [answer for answer in here.values() if answer and "Error" in str(answer)]
    assert (here["a call"], here["a pipelined result"], here["a copy"]) == (2, 2, [1.0, 2.0])


def test_a_fork_that_ends_its_copy(run: Run) -> None:
    """By closing, leaving the block or collecting: the parent's session and objects live on."""
    answers = run(
        """
names = {}
def begin():
    names["remote"] = rpc.connect("127.0.0.1", port)
    names["add"] = names["remote"].get_function("rpc.test.addone")
    names["tensor"] = runtime.tensor(np.array([1.0]), names["remote"].cpu(0))
def end_by(way):
    remote = names["remote"]
    if way == "drop":
        names.clear()
        gc.collect()
    elif way == "leave":
        remote.__exit__(None, None, None)
    elif way == "close":
        remote.close()
    return remote.closed
answers = {}
for way in ("drop", "leave", "close", "nothing"):
    begin()
    closed = forked(lambda: end_by(way))
    values = [names["add"](number) for number in range(100)] + names["tensor"].numpy().tolist()
    answers[way] = [closed, values == [*range(1, 101), 1.0]]
    names["remote"].close()
print(json.dumps(answers))
"""
    )
    assert answers == {way: [True, True] for way in ("drop", "leave", "close", "nothing")}


def test_a_hop_and_a_local_session(run: Run) -> None:
    """A session that goes on to another server is one of the parent's, too; local ones are not."""
    answers = run(
        """
second = rpc.Server(port=0, silent=True)
way = ["rpc.Connect", "127.0.0.1", second.port, ""]
hop = rpc.connect("127.0.0.1", port, session_constructor_args=way)
add = hop.get_function("rpc.test.addone")
inside = rpc.LocalSession()
near = inside.get_function("rpc.test.addone")
there = forked(lambda: [attempt(lambda: add(1)), attempt(lambda: near(1))])
print(json.dumps([there, add(1), near(1)]))
hop.close()
second.terminate()
"""
    )
    (kind, _), near = answers[0]
    assert (kind, near) == ("ConnectionLostError", 2)
    assert answers[1:] == [2, 2]


def test_a_pool_of_forks(run: Run) -> None:
    """Each of many gets an error, and the parent gets its own answers meanwhile."""
    kinds, sums = run(
        REQUESTS
        + """
import signal
pids, reading, writing = [], *os.pipe()
for _ in range(4):
    pid = os.fork()
    if pid == 0:
        try:
            for number in range(500):
                answer = attempt(lambda: addone(number))
                assert answer[0] == "ConnectionLostError", answer
            os.write(writing, b"r")
        finally:
            os._exit(0)
    pids.append(pid)
sums = sum(addone(number) != number + 1 for number in range(3000))
for pid in pids:
    os.waitpid(pid, 0)
print(json.dumps([len(os.read(reading, 10)), sums]))
remote.close()
"""
    )
    assert (kinds, sums) == (4, 0)


def test_a_session_with_a_tracker(run: Run) -> None:
    """The fork asks on a connection of its own; a session that was granted is the parent's."""
    there, here = run(
        """
with rpc.Tracker(port=0, silent=True) as tracker:
    where = ("127.0.0.1", tracker.port)
    with rpc.Server(port=0, key="k", tracker_addr=where, silent=True) as server:
        link = rpc.connect_tracker(*where)
        remote = link.request("k")
        add = remote.get_function("rpc.test.addone")
        def work():
            answers = [attempt(lambda: add(1)), "k" in link.summary()["queue_info"]]
            link.close()
            return answers + [attempt(remote.close)]
        there = forked(work)
        here = [add(1), [link.summary()["queue_info"]["k"]["free"] for _ in range(50)][0]]
        remote.close()
        link.close()
print(json.dumps([there, here]))
"""
    )
    (kind, _), is_listed, closed = there
    assert (kind, is_listed, closed) == ("ConnectionLostError", True, None)
    assert here == [2, 0]


def test_programs_are_the_parents(run: Run) -> None:
    """A fork that ends its copies of the handles ends no program; they go with the parent alone."""
    there, alive, answers = run(
        """
with rpc.Tracker(port=0, silent=True) as tracker:
    where = ("127.0.0.1", tracker.port)
    with rpc.Server(port=0, key="k", tracker_addr=where, silent=True) as server:
        def work():
            server.terminate()
            tracker.terminate()
            return 1
        there = forked(work)
        alive = [server.proc.alive, tracker.proc.alive]
        with rpc.connect_tracker(*where) as link, link.request("k") as remote:
            answers = remote.get_function("rpc.test.addone")(1)
print(json.dumps([there, alive, answers]))
"""
    )
    assert (there, alive, answers) == (1, [True, True], 2)
