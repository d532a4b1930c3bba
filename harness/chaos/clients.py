"""Clients that are killed, frozen, or cut off from the network: how long do they keep a device?"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from typing import TYPE_CHECKING

from pytest_tvmrpc import rpc

from ..bench.child import Child, child_program
from .trial import SkipError, Trial
from .vanish import LIMIT_S, NO_NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Iterator

DOINGS = ("uploading", "downloading", "copying", "in a call", "talking")
IDLE_S = 0.5


@contextlib.contextmanager
def _client(trial: Trial, doing: str, port: int) -> Iterator[Child]:
    with child_program(
        "harness.chaos.client", doing, str(port), str(trial.library), flags=()
    ) as child:
        line = child.read_line()
        if line != "started":
            raise ValueError(f"a client said {line!r} instead of that it started")
        yield child


def killed(trial: Trial) -> None:
    """Clients are killed in the middle of what they do: the next is served, nothing stays."""
    server = trial.server()
    chance = random.Random(trial.seed)
    _kill(trial, server.port, DOINGS[0], 0)
    trial.watch("server", server)
    count, slowest = trial.times(300), 0.0
    for number in trial.rounds(count, "clients"):
        doing = DOINGS[number % len(DOINGS)]
        slowest = max(slowest, _kill(trial, server.port, doing, chance.uniform(0, 0.05)))
    trial.say_done(f"{count} clients killed while {', '.join(DOINGS)}")
    trial.figure(f"the next was served after {slowest:.2f} s at most")
    trial.check(slowest < 5, f"a client waited {slowest:.1f} s")


def _kill(trial: Trial, port: int, doing: str, pause_s: float) -> float:
    with _client(trial, doing, port) as child:
        time.sleep(pause_s)
        os.kill(child.pid, signal.SIGKILL)
        return trial.serves(port)


def frozen(trial: Trial) -> None:
    """Clients are stopped by SIGSTOP: the device is back at the idle limit, or after a kick."""
    server = trial.server(idle_timeout=IDLE_S)
    tracker = trial.tracker()
    board = trial.server(key="board", tracker_addr=(tracker.host, tracker.port))
    _outwait(trial, server.port)
    trial.watch("server", server)
    count, waits, words = trial.times(40), [], []
    for _ in trial.rounds(count, "frozen clients"):
        wait_s, word = _outwait(trial, server.port)
        waits.append(wait_s)
        words.append(word)
    trial.say_done(f"{count} clients frozen; the server's idle limit is {IDLE_S:g} s")
    trial.figure(f"device back after {min(waits):.2f} to {max(waits):.2f} s")
    trial.check(max(waits) < IDLE_S + 3, f"a device was kept for {max(waits):.1f} s")
    trial.check(set(words) == {"RPCSessionTimeoutError"}, f"thawed clients said {set(words)}")
    with rpc.connect_tracker(tracker.host, tracker.port) as farm:
        _kick(trial, tracker.port, farm)
        trial.watch("board", board)
        ends = [_kick(trial, tracker.port, farm) for _ in trial.rounds(count, "kicks")]
    trial.say_done(f"{count} clients frozen and kicked")
    slowest = max(wait_s for wait_s, _ in ends)
    trial.figure(f"device back after {slowest:.2f} s at most")
    trial.check(slowest < 3, f"a kicked device was back after {slowest:.1f} s")
    words = [word for _, word in ends]
    trial.check(set(words) == {"SessionKickedError"}, f"kicked clients said {set(words)}")


def _outwait(trial: Trial, port: int) -> tuple[float, str]:
    with _client(trial, "talking", port) as child:
        os.kill(child.pid, signal.SIGSTOP)
        wait_s = trial.serves(port)
        os.kill(child.pid, signal.SIGCONT)
        return wait_s, child.read_line()


def _kick(trial: Trial, port: int, farm: rpc.TrackerSession) -> tuple[float, str]:
    with _client(trial, "leasing", port) as child:
        os.kill(child.pid, signal.SIGSTOP)
        started = time.monotonic()
        farm.kick("board", "chaos")
        trial.lease(farm, "board")
        wait_s = time.monotonic() - started
        os.kill(child.pid, signal.SIGCONT)
        return wait_s, child.read_line()


def vanished(trial: Trial) -> None:
    """A client's machine leaves the network without a word: its device comes back by itself."""
    if not (shutil.which("unshare") and shutil.which("ip")):
        raise SkipError("no programs `unshare` and `ip` to make a network with")
    with child_program("harness.chaos.vanish", "outer", trial.log.name) as child:
        try:
            lines = iter(child.read_line, "done")
            answers = dict(line.partition(" ")[::2] for line in lines)
        except EOFError as error:
            raise ValueError(f"the run in its own network: {error}") from None
    if NO_NAMESPACE in answers:
        raise SkipError(f"this user cannot make a network of its own: {answers[NO_NAMESPACE]}")
    waits = {name: float(text) for name, text in answers.items()}
    trial.say_done(f"machines cut off in the middle of a session: {', '.join(waits)}")
    trial.figure("; ".join(f"{name}: gone after {wait_s:.1f} s" for name, wait_s in waits.items()))
    trial.check(waits, "nothing was measured")
    for name, wait_s in waits.items():
        trial.check(wait_s < LIMIT_S, f"{name}: still there after {wait_s:.0f} s")
