"""A tracker that goes and comes back, and one that does in a minute what others do in a year."""

from __future__ import annotations

import os
import resource
import selectors
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

from pytest_tvmrpc import rpc
from pytest_tvmrpc.protocol import tracker as wire
from pytest_tvmrpc.protocol.json_frames import FrameReader, parse_json
from pytest_tvmrpc.server.registration import Registration

from .trial import ADD_ONE, LOOPBACK, Trial

if TYPE_CHECKING:
    from collections.abc import Iterator

BOARDS = 5
BACK_LIMIT_S = 10.0
BATCH = 50


def tracker_restarts(trial: Trial) -> None:
    """The tracker is killed and comes back after 1 s, or 90 s: all servers return in 10 s."""
    tracker = trial.tracker()
    place = (tracker.host, tracker.port)
    boards = [trial.server(key="board", tracker_addr=place) for _ in range(BOARDS)]
    with rpc.connect_tracker(*place) as farm:
        session = trial.start(farm.request("board"))
    add_one = session.get_function(ADD_ONE)
    for board in boards:
        trial.watch(f"server {board.port}", board)
    count, back = trial.times(20), []
    for away_s in [1.0] * count + [trial.seconds(90)]:
        tracker, back_s = _restart(trial, tracker, away_s)
        back.append(back_s)
        trial.check(add_one(1) == 2, "the running session was disturbed")
    trial.say_done(
        f"tracker killed {count} times for 1 s, once for {trial.seconds(90):g} s; "
        f"{BOARDS} servers, one of them in use"
    )
    trial.figure(f"all back after {max(back[:-1]):.2f} s at most; the long time {back[-1]:.2f} s")
    trial.check(max(back) < BACK_LIMIT_S, f"all were back after {max(back):.1f} s only")
    with rpc.connect_tracker(*place) as farm:
        free = farm.summary()["queue_info"]["board"]["free"]
        trial.check(free == BOARDS - 1, f"{free} are free, not {BOARDS - 1}")
        session.close()
        trial.wait_until(
            lambda: farm.summary()["queue_info"]["board"]["free"] == BOARDS, "all are free"
        )
        for _ in range(2 * BOARDS):
            trial.lease(farm, "board")


def _restart(trial: Trial, tracker: rpc.Tracker, away_s: float) -> tuple[rpc.Tracker, float]:
    os.kill(tracker.program.pid, signal.SIGKILL)
    tracker.terminate()
    time.sleep(away_s)
    tracker = trial.tracker(tracker.port)
    started = time.monotonic()
    with rpc.connect_tracker(tracker.host, tracker.port) as farm:
        trial.wait_until(
            lambda: len(farm.summary()["server_info"]) == BOARDS, "all are registered", 30
        )
    return tracker, time.monotonic() - started


class Crowd:
    """Servers of ours, as far as a tracker can tell, in one loop."""

    def __init__(self, count: int) -> None:
        self.servers = [Registration("crowd", 1 + at, entropy=os.urandom) for at in range(count)]
        self.refused = 0
        self._sockets: list[socket.socket] = []
        self._poll = selectors.DefaultSelector()

    def connect(self, place: tuple[str, int]) -> None:
        """All at the same moment."""
        for server in self.servers:
            connection = socket.socket()
            connection.setblocking(False)
            connection.connect_ex(place)
            self._sockets.append(connection)
            self._poll.register(connection, selectors.EVENT_WRITE, server)

    def step(self) -> None:
        """Says and hears what there is."""
        for key, events in self._poll.select(0.05):
            connection, server, now = key.fileobj, key.data, time.monotonic()
            assert isinstance(connection, socket.socket)
            try:
                if events & selectors.EVENT_WRITE:
                    connection.send(server.connected(now))
                    self._poll.modify(connection, selectors.EVENT_READ, server)
                    continue
                received = connection.recv(4096)
                if not received:
                    raise ConnectionResetError
                answer = server.received(received, now)
                if answer:
                    connection.send(answer)
            except OSError:
                self.refused += 1
                self._poll.unregister(connection)

    def disconnect(self) -> None:
        """All at once; each then waits its own time, which is not waited here."""
        while self._sockets:
            connection = self._sockets.pop()
            if self._poll.get_map().get(connection):
                self._poll.unregister(connection)
            connection.close()
        now = time.monotonic()
        for server in self.servers:
            server.lost(now)


def thousand_servers(trial: Trial) -> None:
    """1,000 servers lose their tracker and want back in at the same moment, again and again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    tracker = trial.tracker()
    crowd, times, slowest = Crowd(1000), trial.times(30), 0.0
    try:
        with rpc.connect_tracker(tracker.host, tracker.port) as farm:
            for _ in range(2):
                _gather(trial, crowd, tracker, farm)
            trial.watch("tracker", tracker)
            for _ in trial.rounds(times, "crowds"):
                slowest = max(slowest, _gather(trial, crowd, tracker, farm))
    finally:
        crowd.disconnect()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    trial.say_done(f"1,000 servers connected at once, {times} times")
    trial.figure(f"all registered after {slowest:.2f} s at most, {crowd.refused} were refused")
    trial.check(slowest < BACK_LIMIT_S, f"all were registered after {slowest:.1f} s only")
    trial.check(not crowd.refused, f"{crowd.refused} connections were refused or closed")


def _gather(trial: Trial, crowd: Crowd, tracker: rpc.Tracker, farm: rpc.TrackerSession) -> float:
    started = time.monotonic()
    crowd.connect((tracker.host, tracker.port))
    while not all(server.registered for server in crowd.servers):
        crowd.step()
        if time.monotonic() - started > 3 * BACK_LIMIT_S:
            raise TimeoutError("some of the servers were never registered")
    lasted_s = time.monotonic() - started
    crowd.step()
    free = farm.summary()["queue_info"]["crowd"]["free"]
    trial.check(free == 1000, f"{free} are free, not 1000")
    crowd.disconnect()
    trial.wait_until(lambda: not farm.summary()["server_info"], "the tracker forgets them")
    return lasted_s


class Peer:
    """A connection to a tracker on which many messages are out at a time."""

    def __init__(self, place: tuple[str, int]) -> None:
        self._socket = socket.create_connection(place, 10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(wire.MAGIC)
        self._reader = FrameReader()
        if self._socket.recv(4, socket.MSG_WAITALL) != wire.MAGIC:
            raise ValueError("the tracker did not repeat the magic number")

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def ask(self, frames: list[bytes]) -> list[Any]:
        """Sends all, and waits for as many answers."""
        self.send(frames)
        return self.answers(len(frames))

    def send(self, frames: list[bytes]) -> None:
        self._socket.sendall(b"".join(frames))

    def answers(self, count: int) -> list[Any]:
        found: list[Any] = []
        while True:
            while len(found) < count:
                frame = self._reader.next_frame()
                if frame is None:
                    break
                found.append(parse_json(frame))
            if len(found) == count:
                return found
            received = self._socket.recv(1 << 16)
            if not received:
                raise ConnectionResetError("the tracker closed the connection")
            self._reader.feed(received)


def grants(trial: Trial) -> None:
    """A tracker grants a device a million times, and every fourth requester waited for it."""
    tracker = trial.tracker()
    place, batches = (tracker.host, tracker.port), trial.times(1_000_000) // BATCH
    with Peer(place) as server, Peer(place) as client:
        server.ask([wire.update_info("board", 9090)])
        numbers = iter(range(1 << 60))
        wrong = sum(_batch(server, client, numbers, at % 4 == 3) for at in range(batches // 20))
        trial.watch("tracker", tracker)
        started = time.monotonic()
        for at in trial.rounds(batches, f"batches of {BATCH} grants"):
            wrong += _batch(server, client, numbers, at % 4 == 3)
        lasted_s = time.monotonic() - started
        trial.say_done(f"{batches * BATCH} offers and requests, {BATCH} at a time")
        trial.figure(f"{batches * BATCH / lasted_s:.0f} grants a second, {wrong} wrong answers")
        trial.check(not wrong, f"{wrong} answers are not the grants that were due")
    with rpc.connect_tracker(*place) as farm:
        trial.wait_until(lambda: _is_empty(farm.summary()), "the tables are empty")


def _is_empty(summary: dict[str, Any]) -> bool:
    """Whether nothing is free and nobody waits; keys are shown for a while after their servers."""
    return not any(count for queue in summary["queue_info"].values() for count in queue.values())


def _batch(server: Peer, client: Peer, numbers: Iterator[int], waits: bool) -> int:
    """One batch; the number of wrong answers."""
    keys = [f"board:0.{next(numbers)}" for _ in range(BATCH)]
    puts = [wire.put("board", 9001 + at, key) for at, key in enumerate(keys)]
    requests = [wire.request("board")] * BATCH
    if waits:
        client.send(requests)
    accepted = server.ask(puts)
    granted = client.answers(BATCH) if waits else client.ask(requests)
    found = {answer[1][2] for answer in granted if answer[0] == 0}
    return len(set(keys) - found) + sum(answer != 0 for answer in accepted)


def keys(trial: Trial) -> None:
    """100,000 keys are offered, and as many others asked for, by peers that then leave."""
    tracker = trial.tracker()
    place, peers = (tracker.host, tracker.port), trial.times(100_000) // BATCH
    numbers = iter(range(1 << 60))
    for _ in range(max(1, peers // 10)):
        _offer_and_leave(place, numbers)
    trial.watch("tracker", tracker)
    for _ in trial.rounds(peers, f"peers with {BATCH} keys"):
        _offer_and_leave(place, numbers)
    trial.say_done(f"{peers} servers with {BATCH} keys each, {peers} clients that ask for {BATCH}")
    with rpc.connect_tracker(LOOPBACK, tracker.port) as farm:
        trial.wait_until(lambda: _is_empty(farm.summary()), "the tables are empty")
        trial.figure(
            f"{len(farm.summary()['queue_info'])} keys and "
            f"{len(farm.summary()['server_info'])} servers are known afterwards"
        )


def _offer_and_leave(place: tuple[str, int], numbers: Iterator[int]) -> None:
    with Peer(place) as server, Peer(place) as client:
        names = [f"k{next(numbers)}" for _ in range(BATCH)]
        server.ask([wire.put(name, 9090, f"{name}:0.5") for name in names])
        client.send([wire.request(f"{name}-typo") for name in names])
        client.send([wire.request(names[0])])
        (answer,) = client.answers(1)
        if answer[0] != 0:
            raise ValueError(f"a free device was not granted: {answer}")
