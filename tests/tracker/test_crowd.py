"""A tracker and a thousand servers that want in at the same moment."""

from __future__ import annotations

import os
import selectors
import socket
import time
from typing import Any, List

import pytest

from pytest_tvmrpc.client.tracker import connect_tracker
from pytest_tvmrpc.server.registration import Registration
from pytest_tvmrpc.tracker.launch import Tracker


class Crowd:
    """Many servers of ours with one loop, as after a power cut: they all want in at once."""

    def __init__(self, count: int) -> None:
        self.servers = [Registration("crowd", 1 + at, entropy=os.urandom) for at in range(count)]
        self._sockets: List[socket.socket] = []
        self._poll = selectors.DefaultSelector()

    def connect(self, address: Any) -> None:
        """All at the same moment."""
        for server in self.servers:
            connection = socket.socket()
            connection.setblocking(False)
            connection.connect_ex(address)
            self._sockets.append(connection)
            self._poll.register(connection, selectors.EVENT_WRITE, server)

    def register(self, limit_s: float) -> None:
        """Until the tracker knows all of them."""
        until = time.monotonic() + limit_s
        while not all(server.registered for server in self.servers):
            assert time.monotonic() < until, f"not all registered within {limit_s:g} s"
            for key, events in self._poll.select(0.05):
                connection, server, now = key.fileobj, key.data, time.monotonic()
                assert isinstance(connection, socket.socket)
                if events & selectors.EVENT_WRITE:
                    connection.send(server.connected(now))
                    self._poll.modify(connection, selectors.EVENT_READ, server)
                    continue
                answer = server.received(connection.recv(4096), now)
                if answer:
                    connection.send(answer)

    def disconnect(self) -> List[float]:
        """The tracker is gone; each server's pause until it tries again."""
        while self._sockets:
            connection = self._sockets.pop()
            self._poll.unregister(connection)
            connection.close()
        return [server.lost(time.monotonic()) for server in self.servers]

    def close(self) -> None:
        self.disconnect()
        self._poll.close()


def test_a_thousand_servers_come_back_at_once(deadline_s: float) -> None:
    """All are registered when the tracker is there again, and none of them was refused."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    crowd = Crowd(1000)
    try:
        with Tracker(port=0, silent=True) as tracker:
            crowd.connect((tracker.host, tracker.port))
            crowd.register(deadline_s)
        pauses = crowd.disconnect()
        assert max(pauses) < 10
        assert len({round(pause_s, 3) for pause_s in pauses}) > 10
        with Tracker(port=tracker.port, silent=True):
            crowd.connect((tracker.host, tracker.port))
            crowd.register(deadline_s)
            with connect_tracker(tracker.host, tracker.port) as client:
                assert client.summary()["queue_info"] == {"crowd": {"free": 1000, "pending": 0}}
                assert len(client.who().servers) == 1000
    finally:
        crowd.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
