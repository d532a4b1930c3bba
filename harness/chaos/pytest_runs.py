"""A run of pytest whose devices drop out, and whose workers are killed. Measures no speed."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest_tvmrpc
from pytest_tvmrpc import rpc
from pytest_tvmrpc.reporting import jsonl

from .trial import ADD_ONE, SkipError, Trial

if TYPE_CHECKING:
    from pytest_tvmrpc.records import Run

KEY = "board"
DEVICES = 2
WORKERS = 2
LIMIT_S = 300.0
KINDS = ("server", "session")
"""What drops out: a server is killed, or a session is ended from outside."""

TESTS = f"""
import json, os, signal
from pathlib import Path

import pytest
from pytest_tvmrpc import rpc

FOLDER = Path(__file__).parent
PLAN = json.loads((FOLDER / "plan.json").read_text())


def is_first(number):
    try:
        (FOLDER / f"{{number}}.done").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def drop(kind, remote):
    if kind == "worker":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "server":
        os.kill(int((FOLDER / f"{{remote.peer[1]}}.pid").read_text()), signal.SIGKILL)
    if kind == "session":
        with rpc.connect_tracker(*PLAN["tracker"]) as tracker:
            tracker.kick(f"{{remote.peer[0]}}:{{remote.peer[1]}}")
    while True:
        remote.get_function("{ADD_ONE}")(0)


@pytest.mark.parametrize("number", range(PLAN["count"]))
def test_one(remote, number):
    kind = PLAN["drops"].get(str(number))
    if kind and is_first(number):
        drop(kind, remote)
    assert remote.get_function("{ADD_ONE}")(number) == number + 1
"""


def plan(chance: random.Random, count: int) -> dict[int, str]:
    """What drops out in which test: one in a hundred, and three times a worker.

    Spread over the run, so that one server is back before the other one is killed.
    """
    kinds = [KINDS[number % len(KINDS)] for number in range(max(count // 100, len(KINDS)))]
    kinds += ["worker"] * 3
    chance.shuffle(kinds)
    part = count / len(kinds)
    return {int(part * (at + chance.uniform(0, 0.5))): kind for at, kind in enumerate(kinds)}


class Boards:
    """The servers of the run: one that is killed is started again."""

    def __init__(self, trial: Trial, tracker: rpc.Tracker, folder: Path) -> None:
        self._trial = trial
        self._address = (tracker.host, tracker.port)
        self._folder = folder
        self._servers = [self._start() for _ in range(DEVICES)]
        self.killed = 0

    def look(self) -> None:
        """Start again what has ended."""
        for at, server in enumerate(self._servers):
            if server.program.ended():
                server.terminate()
                self.killed += 1
                self._servers[at] = self._start()

    def _start(self) -> rpc.Server:
        server = self._trial.server(key=KEY, tracker_addr=self._address)
        (self._folder / f"{server.port}.pid").write_text(str(server.program.pid))
        return server


def drop_outs(trial: Trial) -> None:
    """1,000 tests on 2 devices, 1 % drop out, workers are killed: each test has its verdict."""
    if importlib.util.find_spec("xdist") is None:
        raise SkipError("pytest-xdist is not installed")
    folder = trial.temp.parent / f"{trial.temp.name}-tests"
    folder.mkdir()
    count = trial.times(1000)
    drops = plan(random.Random(trial.seed), count)
    tracker = trial.tracker()
    settings = {"count": count, "drops": drops, "tracker": [tracker.host, tracker.port]}
    (folder / "plan.json").write_text(json.dumps(settings))
    (folder / "test_it.py").write_text(TESTS)
    boards = Boards(trial, tracker, folder)
    trial.watch("tracker", tracker)
    started = time.monotonic()
    status = _run(trial, boards, folder, tracker)
    lasted_s = time.monotonic() - started
    kinds = Counter(drops.values())
    trial.say_done(
        f"{count} tests, {WORKERS} workers, {DEVICES} devices; killed: {kinds['server']} servers, "
        f"{kinds['session']} sessions, {kinds['worker']} workers"
    )
    trial.check(status == 0, f"pytest ended with {status}")
    trial.check(boards.killed == kinds["server"], f"{boards.killed} servers were started again")
    _judge(trial, jsonl.read(folder / "run.jsonl"), count, drops)
    trial.figure(f"{lasted_s:.1f} s")
    with rpc.connect_tracker(tracker.host, tracker.port) as farm:
        trial.wait_until(
            lambda: [server.state.value for server in farm.who().servers] == ["free"] * DEVICES,
            "all devices are free",
        )


def _run(trial: Trial, boards: Boards, folder: Path, tracker: rpc.Tracker) -> int | None:
    """The status of pytest; None: it did not end."""
    root = str(Path(pytest_tvmrpc.__file__).parents[1])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-p", "xdist", "-p", "pytest_tvmrpc.plugin", "-n", str(WORKERS)]
    command += [f"--rpc-tracker={tracker.host}:{tracker.port}", f"--rpc-key={KEY}"]
    command += ["--rpc-reruns=3", "--rpc-report=run.jsonl", "--rpc-queue-timeout=30"]
    environment = {
        **os.environ,
        "TMPDIR": str(folder),  # pytest keeps the folders of its last three runs
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
    }
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=trial.log,
        stderr=trial.log,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + LIMIT_S
        while process.poll() is None and time.monotonic() < until:
            boards.look()
            time.sleep(0.01)
        return process.poll()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _judge(trial: Trial, run: Run, count: int, drops: dict[int, str]) -> None:
    """Each test once, with as many attempts as are due."""
    verdicts = Counter(test.verdict for test in run.tests)
    trial.figure(", ".join(f"{number} {verdict}" for verdict, number in verdicts.items()))
    trial.check(verdicts == {"passed": count}, f"not all {count} tests have passed")
    names = {test.nodeid for test in run.tests}
    trial.check(len(names) == len(run.tests) == count, f"{len(names)} tests were reported")
    again = {test.nodeid for test in run.tests if len(test.attempts) > 1}
    due = {f"test_it.py::test_one[{number}]" for number in drops}
    trial.figure(f"{len(again)} of them in more than one attempt")
    trial.check(due <= again, f"{len(due - again)} drop-outs were not noticed")
    trial.check(again <= due, f"{len(again - due)} tests ran again for nothing")
    lost = [attempt for test in run.tests for attempt in test.attempts[:-1]]
    trial.check(
        all(attempt.verdict == "lost" for attempt in lost),
        "an attempt before the last was not lost",
    )
