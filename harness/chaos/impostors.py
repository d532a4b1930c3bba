"""Servers and trackers that answer with changed bytes: what do our clients make of it?"""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
import tracemalloc
from collections import Counter
from typing import TYPE_CHECKING

from pytest_tvmrpc import rpc, runtime
from pytest_tvmrpc.protocol import tracker as wire
from pytest_tvmrpc.protocol.codes import HandshakeReply
from pytest_tvmrpc.protocol.handshake import encode_server_reply

from .mutation import FOREIGN, FRAMES, JSON_PIECES, Mutator, golden
from .trial import ADD_ONE, LOOPBACK, Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WAIT_S = 0.3
LONGEST_S = 5.0
NO_FUNCTION = "Module has no function"  # what TVM says, too, when a look-up gives nothing
MOST_MEMORY = 600 << 20
"""Twice the 256 MiB for which a client takes a server's word."""


class Impostor(threading.Thread):
    """Somebody who listens, says each of its answers when it has heard something, and leaves."""

    def __init__(self, make: Callable[[], list[bytes]], chance: random.Random) -> None:
        super().__init__()
        self._make = make
        self._chance = chance
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]

    def run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # the end
            with connection, contextlib.suppress(OSError):  # a client that has had enough
                connection.settimeout(0.1)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for answer in self._make():
                    if not connection.recv(1 << 16):
                        break
                    connection.sendall(answer)
                if self._chance.random() < 0.9:
                    connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 16):
                    pass

    def end(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.join()


def impostors(trial: Trial) -> None:
    """Clients meet servers and trackers that talk nonsense: one of our errors, soon, no memory."""
    chance = random.Random(trial.seed)
    for name, make, uses in (
        ("server", _server_answers(trial.seed), SERVER_USES),
        ("tracker", _tracker_answers(trial.seed), TRACKER_USES),
    ):
        impostor = Impostor(make, random.Random(trial.seed))
        impostor.start()
        try:
            outcomes = _meet(trial, impostor.port, uses, chance, trial.seconds(60))
        finally:
            impostor.end()
        total = sum(outcomes.values())
        trial.say_done(f"{total} uses of a {name} that answers with changed bytes")
        often = ", ".join(f"{count} {text}" for text, count in outcomes.most_common(4))
        trial.figure(f"{name}: {often}")
        trial.check(len(outcomes) > 1, f"{name}: hardly anything happened")


def _meet(
    trial: Trial,
    port: int,
    uses: Sequence[Callable[[int], object]],
    chance: random.Random,
    limit_s: float,
) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    until = time.monotonic() + limit_s
    tracemalloc.start()
    try:
        while time.monotonic() < until:
            use = chance.choice(uses)
            before, started = tracemalloc.get_traced_memory()[0], time.monotonic()
            tracemalloc.reset_peak()
            try:
                use(port)
                outcomes["fine"] += 1
            except rpc.RPCError as error:
                outcomes[type(error).__name__] += 1
            except AttributeError as error:
                outcomes["no such function" if NO_FUNCTION in str(error) else "wrong"] += 1
            except Exception as error:  # what is searched for
                outcomes["wrong"] += 1
                trial.check(
                    outcomes["wrong"] > 5,
                    f"{use.__name__} raised {error!r} (seed {trial.seed}, "
                    f"use {sum(outcomes.values())})",
                )
            lasted_s = time.monotonic() - started
            trial.check(lasted_s < LONGEST_S, f"{use.__name__} took {lasted_s:.1f} s")
            peak = tracemalloc.get_traced_memory()[1] - before
            trial.check(peak < MOST_MEMORY, f"{use.__name__} took {peak >> 20} MiB")
    finally:
        tracemalloc.stop()
    trial.check(not outcomes["wrong"], f"{outcomes['wrong']} errors were none of ours")
    return outcomes


# --- what they say ------------------------------------------------------------------------------


def _server_answers(seed: int) -> Callable[[], list[bytes]]:
    answers = golden(direction="<")
    hellos = Mutator(seed, golden("handshake", direction="<"), FOREIGN)
    talk = Mutator(seed, answers, FOREIGN)
    admitted = encode_server_reply(HandshakeReply.SUCCESS)
    first = [golden("session", direction="<")[at] for at in (0, 1)]
    lookup = [answer for answer in golden("session", direction="<") if len(answer) == 28]

    def make() -> list[bytes]:
        chance = talk.chance
        if chance.random() < 0.1:
            return [hellos.one()]
        if chance.random() < 0.1:
            return [admitted + talk.one()]
        good = [chance.choice(lookup) for _ in range(chance.randrange(3))]
        return [admitted + chance.choice(first), *good, *(talk.one() for _ in range(3))]

    return make


def _tracker_answers(seed: int) -> Callable[[], list[bytes]]:
    frames = Mutator(seed, FRAMES, JSON_PIECES)

    def make() -> list[bytes]:
        chance = frames.chance
        if chance.random() < 0.1:
            return [chance.choice(FOREIGN)]
        words = [wire.welcome(chance.choice((None, True, False)))] * chance.randrange(2)
        return [wire.MAGIC, *words, *(frames.one() for _ in range(4))]

    return make


# --- what is tried ------------------------------------------------------------------------------


@contextlib.contextmanager
def _session(port: int) -> object:
    with rpc.connect(
        LOOPBACK, port, connect_timeout=1, handshake_timeout=WAIT_S, call_timeout=WAIT_S
    ) as remote:
        yield remote


def _calls(port: int) -> None:
    with _session(port) as remote:
        function = remote.get_function(ADD_ONE)
        function(1)
        function("text", b"bytes", 1.5, None)


def _pipelines(port: int) -> None:
    with _session(port) as remote:
        function = remote.get_function(ADD_ONE)
        with remote.pipeline() as pipeline:
            for result in [pipeline.call(function, number) for number in range(5)]:
                result.result()


def _files(port: int) -> None:
    with _session(port) as remote:
        remote.upload(b"content", "a")
        remote.download("a")
        remote.listdir()


def _modules(port: int) -> None:
    with _session(port) as remote:
        module = remote.load_module("a.so")
        module.time_evaluator("f", remote.cpu(0), number=1)(1)


def _tensors(port: int) -> None:
    import numpy

    with _session(port) as remote:
        tensor = runtime.empty((4, 4), "float32", remote.cpu(0))
        tensor.copyfrom(numpy.ones((4, 4), "float32"))
        tensor.numpy()


def _devices(port: int) -> None:
    with _session(port) as remote:
        device = remote.cpu(0)
        device.sync()
        repr((device.exist, device.max_threads_per_block, device.device_name))


def _summaries(port: int) -> None:
    with rpc.connect_tracker(LOOPBACK, port) as farm:
        farm.summary()
        farm.text_summary()


def _people(port: int) -> None:
    with rpc.connect_tracker(LOOPBACK, port) as farm:
        farm.who()
        farm.kick("junk", "why not")


def _requests(port: int) -> None:
    with rpc.connect_tracker(LOOPBACK, port) as farm, farm.request(
        "junk", max_retry=1, wait_timeout=WAIT_S, connect_timeout=WAIT_S, handshake_timeout=WAIT_S
    ):
        pass


SERVER_USES = (_calls, _pipelines, _files, _modules, _tensors, _devices)
TRACKER_USES = (_summaries, _people, _requests)
