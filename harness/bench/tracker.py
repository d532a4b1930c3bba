"""P11: how many connections and matches a tracker makes in a second, and what 10,000 cost it.

Not a client of either stack: the same few frames go to both trackers, from one loop of our own, so
that what is measured is the tracker.
"""

from __future__ import annotations

import contextlib
import resource
import select
import socket
import struct
import time
from typing import TYPE_CHECKING

from . import machine
from .goals import OURS, TVM
from .rounds import Contest, Outcome, Sampler, explain, step_limit
from .watch import MAGIC

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .bench import Bench
    from .peers import Address, Stack

KEY = "bench"
CONNECTIONS = 300  # in each round, one after the other
RUSH = 1000  # at once
RUSH_LIMIT_S = 5.0
SMALL = (100, 200)  # servers, clients that wait
LARGE = (1000, 2000)
CROWD = 10_000
WINDOW_S = 2.0
WARM_UP_S = 0.3
FARM_LIMIT_S = 60.0  # to connect everybody, and for each round
CROWD_LIMIT_S = 60.0

LENGTH = struct.Struct("<i")


def measure(bench: Bench) -> None:
    """All lines of P11; the large farm is also compared with our own small one."""
    allow_files(2 * CROWD)
    connections = _contest(bench, bench.stacks, _one_by_one)
    rush = _contest(bench, bench.stacks, _connecting)
    small = _contest(bench, bench.stacks, lambda address, owner: _matching(address, owner, SMALL))
    large = _contest(bench, bench.stacks, lambda address, owner: _matching(address, owner, LARGE))
    bench.add("P11.connect", {name: out.scaled(_rate) for name, out in rush.items()})
    bench.add("P11.one", {name: out.scaled(_rate) for name, out in connections.items()})
    bench.add("P11.small", {name: out.scaled(_rate) for name, out in small.items()})
    bench.add("P11.large", {name: out.scaled(_rate) for name, out in large.items()})
    bench.add("P11.share", _share(small, large))
    _measure_crowd(bench, connections)


def allow_files(count: int) -> None:
    """Raises our own limit of open files as far as it goes, which the trackers inherit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 1000 if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _rate(lasted_s: float) -> float:
    return 1 / lasted_s


def _contest(
    bench: Bench,
    stacks: Sequence[Stack],
    prepare: Callable[[Address, contextlib.ExitStack], Sampler],
) -> dict[str, Outcome]:
    """Each stack's tracker with the same load, round by round."""
    entries = bench.contest("P11", {})
    with contextlib.ExitStack() as owner:
        for stack in stacks:
            _enter(entries, owner, stack, prepare)
        return entries.run()


def _enter(
    entries: Contest,
    owner: contextlib.ExitStack,
    stack: Stack,
    prepare: Callable[[Address, contextlib.ExitStack], Sampler],
) -> None:
    try:
        with step_limit(FARM_LIMIT_S):
            sample = prepare(owner.enter_context(stack.tracker()), owner)
    except Exception as error:  # a cell of the table
        entries.fail(stack.name, explain(error))
        return
    entries.enter(stack.name, lambda: sample)


def _connecting(address: Address, owner: contextlib.ExitStack) -> Sampler:
    """So many at once, until the tracker has repeated everybody's magic or the time is up."""

    def sample() -> list[float]:
        start = time.perf_counter()
        with step_limit(FARM_LIMIT_S), Rush(address, RUSH) as rush:
            answered = rush.run(RUSH_LIMIT_S)
            return [(time.perf_counter() - start) / max(answered, 1)]

    return sample


def _one_by_one(address: Address, owner: contextlib.ExitStack) -> Sampler:
    """One connection after the other, each until the tracker has repeated the magic."""

    def sample() -> list[float]:
        start = time.perf_counter()
        for _ in range(CONNECTIONS):
            connect(address).close()
        return [(time.perf_counter() - start) / CONNECTIONS]

    return sample


def _matching(address: Address, owner: contextlib.ExitStack, size: tuple[int, int]) -> Sampler:
    farm = Farm(address, *size)
    owner.callback(farm.close)

    def sample() -> list[float]:
        with step_limit(FARM_LIMIT_S):
            farm.run(WARM_UP_S)
            return [farm.run(WINDOW_S)]

    return sample


def connect(address: Address) -> socket.socket:
    """A connection that the tracker has accepted and answered."""
    connection = socket.create_connection(address, 30)
    connection.sendall(MAGIC)
    if connection.recv(len(MAGIC), socket.MSG_WAITALL) != MAGIC:
        connection.close()
        raise ValueError("the tracker did not repeat the magic number")
    return connection


class Rush:
    """Many that connect to a tracker at the same moment, as a farm does after a restart.

    One after the other, they would find any tracker fast. But TVM's has two places for connections
    that it has not accepted yet; who finds none tries again after a second, then after two more.
    """

    def __init__(self, address: Address, count: int) -> None:
        self._poll = select.epoll()
        self._waiting: dict[int, socket.socket] = {}
        self._answered: list[socket.socket] = []
        for _ in range(count):
            connection = socket.socket()
            connection.setblocking(False)
            connection.connect_ex(address)
            self._waiting[connection.fileno()] = connection
            self._poll.register(connection.fileno(), select.EPOLLOUT)

    def __enter__(self) -> Rush:
        return self

    def __exit__(self, *exc: object) -> None:
        self._poll.close()
        for connection in (*self._waiting.values(), *self._answered):
            connection.close()

    def run(self, limit_s: float) -> int:
        """How many the tracker has answered when it has answered all, or at the limit."""
        until = time.perf_counter() + limit_s
        while self._waiting and time.perf_counter() < until:
            for descriptor, events in self._poll.poll(0.05):
                self._go_on(descriptor, events)
        return len(self._answered)

    def _go_on(self, descriptor: int, events: int) -> None:
        connection = self._waiting[descriptor]
        if events & select.EPOLLOUT:  # it stands
            connection.send(MAGIC)
            self._poll.modify(descriptor, select.EPOLLIN)
        elif connection.recv(len(MAGIC)) == MAGIC:
            self._poll.unregister(descriptor)
            self._answered.append(self._waiting.pop(descriptor))


class Farm:
    """Servers that offer themselves again as soon as they were granted, and clients that ask again.

    With more clients than servers somebody always waits: what limits the rate is the tracker, or
    this loop, which is the same for all.

    Args:
        address: the tracker's. servers, clients: how many of each.
    """

    def __init__(self, address: Address, servers: int, clients: int) -> None:
        self._peers: list[socket.socket] = []
        self._poll = select.epoll()
        self._received: dict[int, bytes] = {}
        self._offers = 0
        try:
            self._connect(address, servers, clients)
        except BaseException:
            self.close()
            raise

    def _connect(self, address: Address, servers: int, clients: int) -> None:
        for number in range(servers + clients):
            peer = connect(address)
            self._peers.append(peer)
            if number < servers:
                info = b'[5, {"key": "server:%s", "addr": [null, %d]}]'
                peer.sendall(_frame(info % (KEY.encode(), number + 1)))
        self._servers, self._clients = self._peers[:servers], self._peers[servers:]
        self._client_of = {client.fileno(): client for client in self._clients}
        self._server_of = {server.fileno(): server for server in self._servers}
        self._request = _frame(b'[4, "%s", "", 1]' % KEY.encode())
        for peer in self._peers:
            peer.setblocking(False)
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._poll.register(peer.fileno(), select.EPOLLIN)
        for client in self._clients:
            client.send(self._request)
        for number in range(servers):
            self._offer(number)

    def close(self) -> None:
        """Closes every connection; may be called twice."""
        self._poll.close()
        for peer in self._peers:
            peer.close()

    def run(self, window_s: float) -> float:
        """Seconds that one match takes, as the mean over a time window."""
        matches = 0
        start = time.perf_counter()
        while True:
            for descriptor, _ in self._poll.poll(1):
                client = self._client_of.get(descriptor)
                if client is None:
                    self._server_of[descriptor].recv(65536)  # successes
                else:
                    matches += self._granted(descriptor, client)
            lasted_s = time.perf_counter() - start
            if lasted_s >= window_s:
                if not matches:
                    raise TimeoutError(f"no match within {window_s:g} s")
                return lasted_s / matches

    def _granted(self, descriptor: int, client: socket.socket) -> int:
        """Takes what a client was told; once a grant is complete, both sides begin again."""
        received = self._received.pop(descriptor, b"") + client.recv(65536)
        if (
            len(received) < LENGTH.size
            or len(received) < LENGTH.size + LENGTH.unpack_from(received)[0]
        ):
            self._received[descriptor] = received  # TVM's tracker writes a frame in two pieces
            return 0
        # [0, ["127.0.0.1", PORT, "KEY:0.NUMBER"]]
        self._offer(int(received.split(b",", 3)[2]) - 1)
        client.send(self._request)
        return 1

    def _offer(self, number: int) -> None:
        self._offers += 1
        key = KEY.encode()
        offer = b'[3, "%s", [%d, "%s:0.%d"], null]' % (key, number + 1, key, self._offers)
        self._servers[number].send(_frame(offer))


def _frame(body: bytes) -> bytes:
    return LENGTH.pack(len(body)) + body


def _share(small: dict[str, Outcome], large: dict[str, Outcome]) -> dict[str, Outcome]:
    """Our rate with the large farm over that with the small one, round by round."""
    ours, other = large.get(OURS), small.get(OURS)
    if ours is None or other is None or not (ours.rounds and other.rounds):
        return {OURS: Outcome(error="one of the farms was not measured")}
    pairs = zip(ours.rounds, other.rounds, strict=False)
    return {OURS: Outcome(tuple(small_s / large_s for large_s, small_s in pairs))}


def _measure_crowd(bench: Bench, connections: dict[str, Outcome]) -> None:
    """10,000 connections at a time: how long until all are answered, and the tracker's memory."""
    times, sizes = bench.missing(), bench.missing()
    for stack in bench.stacks:
        one_s = connections.get(stack.name, Outcome()).value
        if stack.name == TVM and one_s is not None and one_s * CROWD > CROWD_LIMIT_S:
            reason = f"not tried: {CROWD:,} connections would take {one_s * CROWD:.0f} s"
            times[stack.name] = sizes[stack.name] = Outcome(error=reason)
            continue
        before = machine.descendants()
        try:
            with step_limit(CROWD_LIMIT_S), stack.tracker() as address:
                lasted_s, size = _crowd(address, before)
        except Exception as error:  # a cell of the table
            times[stack.name] = sizes[stack.name] = Outcome(error=explain(error))
        else:
            times[stack.name] = Outcome((lasted_s,))
            sizes[stack.name] = Outcome((float(size),))
    bench.add("P11.crowd", times)
    bench.add("P11.crowd-memory", sizes)


def _crowd(address: Address, before: set[int]) -> tuple[float, int]:
    with contextlib.ExitStack() as owner:
        start = time.perf_counter()
        for number in range(CROWD):
            peer = owner.enter_context(connect(address))
            info = b'[5, {"key": "server:%s", "addr": [null, %d]}]'
            peer.sendall(_frame(info % (KEY.encode(), number + 1)))
        offer = b'[3, "%s", [1, "%s:0.1"], null]' % (KEY.encode(), KEY.encode())
        with connect(address) as last:  # answered behind all others
            last.sendall(_frame(offer))
            last.recv(5, socket.MSG_WAITALL)
        lasted_s = time.perf_counter() - start
        started = machine.descendants() - before
        return lasted_s, sum(machine.memory(pid, "VmRSS") for pid in started)
