"""Garbage on every port, for a minute, while ordinary clients are served."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

from pytest_tvmrpc import rpc
from pytest_tvmrpc.protocol import tracker as wire
from pytest_tvmrpc.protocol.handshake import encode_client_hello, encode_server_hello

from .mutation import EDGES, FOREIGN, FRAMES, JSON_PIECES, Mutator, golden
from .trial import LOOPBACK, Trial

if TYPE_CHECKING:
    from collections.abc import Callable

THROWERS = 2  # at each port
SERVED_LIMIT_S = 10.0
PAUSE_S = 0.005


class Thrower(threading.Thread):
    """Somebody who connects, says something, and leaves in one way or another.

    Attributes:
        thrown: how many connections it had.
        error: what ended it, if anything did.
    """

    def __init__(self, port: int, make: Callable[[], bytes], seed: int) -> None:
        super().__init__()
        self.thrown = 0
        self.error: Exception | None = None
        self._port = port
        self._make = make
        self._chance = random.Random(seed)
        self._told_to_end = threading.Event()

    def run(self) -> None:
        try:
            while not self._told_to_end.wait(PAUSE_S):
                self._throw()
                self.thrown += 1
        except Exception as error:  # it is looked at in the main thread
            self.error = error

    def end(self) -> None:
        self._told_to_end.set()
        self.join()

    def _throw(self) -> None:
        with socket.create_connection((LOOPBACK, self._port), SERVED_LIMIT_S) as connection:
            connection.settimeout(0.05)
            content, step = self._make(), self._chance.choice((1, 7, 100, 1 << 20, 1 << 20))
            if len(content) > 200:
                step = max(step, 100)
            try:
                for start in range(0, len(content), step):
                    connection.sendall(content[start : start + step])
                leaves = self._chance.randrange(4)
                if leaves == 0:
                    connection.recv(1 << 16)
                elif leaves == 1:
                    connection.shutdown(socket.SHUT_WR)
                    connection.recv(1 << 16)
                elif leaves == 2:
                    option = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
            except OSError:
                return  # it was sent away, as it should be, or has heard nothing


def garbage(trial: Trial) -> None:
    """Server, tracker and proxy get garbage from several connections: others are served as ever."""
    tracker = trial.tracker()
    place = (tracker.host, tracker.port)
    server = trial.server()
    board = trial.server(key="board", tracker_addr=place)
    proxy = trial.start(rpc.Proxy(port=0, log=trial.log, timeout_client=1.0, timeout_server=20))
    phone = trial.start(
        rpc.Server(LOOPBACK, proxy.port, is_proxy=True, key="phone", log=trial.log, silent=True)
    )
    tablet = trial.start(
        rpc.Server(LOOPBACK, proxy.port, is_proxy=True, key="tablet", log=trial.log, silent=True)
    )
    ports = {"server": server.port, "tracker": tracker.port, "proxy": proxy.port}
    with rpc.connect_tracker(*place) as farm:
        ways: dict[str, Callable[[], float]] = {
            "directly": lambda: trial.serves(server.port, limit_s=SERVED_LIMIT_S),
            "by the tracker": lambda: trial.lease(farm, "board", SERVED_LIMIT_S),
            "through the proxy": lambda: trial.serves(proxy.port, "phone", SERVED_LIMIT_S),
        }
        _throw(trial, ports, ways, 3.0)
        for name, program in (
            ("server", server),
            ("tracker", tracker),
            ("proxy", proxy),
            ("board", board),
            ("phone", phone),
            ("tablet", tablet),
        ):
            trial.watch(name, program)
        thrown, served, slowest = _throw(trial, ports, ways, trial.seconds(60))
        # The proxy lets those who wait for a key wait on; the watch is to find it at rest.
        time.sleep(1.5)
        after = max(way() for way in ways.values())
    trial.say_done(
        f"{trial.seconds(60):g} s, {THROWERS} throwers at each of 3 ports: "
        + ", ".join(f"{thrown[name]} at the {name}" for name in ports)
    )
    trial.say_done(
        "meanwhile ordinary sessions, "
        + ", ".join(f"{count} {way}" for way, count in served.items())
    )
    trial.figure(f"slowest ordinary session {slowest:.2f} s; afterwards {after:.2f} s")
    trial.check(min(served.values()) > 3, "hardly anybody was served")
    trial.check(after < 2, f"afterwards a session took {after:.1f} s")


def _throw(
    trial: Trial, ports: dict[str, int], ways: dict[str, Callable[[], float]], limit_s: float
) -> tuple[Counter[str], Counter[str], float]:
    makers = {"server": _for_a_server, "tracker": _for_a_tracker, "proxy": _for_a_proxy}
    throwers = [
        (name, Thrower(port, makers[name](trial.seed + number), trial.seed + number))
        for number in range(THROWERS)
        for name, port in ports.items()
    ]
    served: Counter[str] = Counter()
    slowest, until = 0.0, time.monotonic() + limit_s
    for _, thrower in throwers:
        thrower.start()
    try:
        while time.monotonic() < until:
            for name, way in ways.items():
                slowest = max(slowest, way())
                served[name] += 1
    finally:
        for _, thrower in throwers:
            thrower.end()
    thrown: Counter[str] = Counter()
    for name, thrower in throwers:
        thrown[name] += thrower.thrown
        trial.check(thrower.error is None, f"a thrower at the {name} ended: {thrower.error!r}")
    return thrown, served, slowest


def _for_a_server(seed: int, key: str = "") -> Callable[[], bytes]:
    chance = random.Random(seed)
    hellos = Mutator(seed, [encode_client_hello(key), encode_client_hello(key, 0.5)], FOREIGN)
    talk = Mutator(seed, golden(), FOREIGN)
    init = golden("session")[0]

    def make() -> bytes:
        kind = chance.randrange(5)
        if kind == 0:
            return hellos.one()
        if kind == 1:
            return chance.choice((*FOREIGN, chance.randbytes(chance.randrange(300))))
        if kind == 2:
            number = chance.choice(EDGES)
            packet = struct.pack("<QI", number, chance.randrange(100)) + bytes(100)
            return encode_client_hello(key) + init + packet
        return encode_client_hello(key) + init + b"".join(talk.one() for _ in range(3))

    return make


def _for_a_proxy(seed: int) -> Callable[[], bytes]:
    chance, to_tablet = random.Random(seed), _for_a_server(seed, "tablet")
    servers = Mutator(seed, [encode_server_hello("watch"), encode_client_hello("watch")], FOREIGN)
    return lambda: to_tablet() if chance.random() < 0.5 else servers.one()


def _for_a_tracker(seed: int) -> Callable[[], bytes]:
    chance = random.Random(seed)
    frames = Mutator(seed, FRAMES, JSON_PIECES)

    def make() -> bytes:
        if chance.random() < 0.2:
            return chance.choice((*FOREIGN, chance.randbytes(chance.randrange(300))))
        return wire.MAGIC + b"".join(frames.one() for _ in range(4))

    return make
