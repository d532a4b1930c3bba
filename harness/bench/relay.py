"""A relay between one client and one server that counts round trips, and may be slow.

Knows no protocol: bytes go through unread. A round trip is a burst from the client that is
followed by an answer: the direction of the bytes changes from client->server to server->client.

It stands for one long link, so acknowledgements have to be as late as bytes are: a peer without
TCP_NODELAY holds a small packet back until the one before is acknowledged. Our kernel is kept from
acknowledging by itself; it does when the far end has, plus the way back.

It runs in a child process (``python -m harness.bench.relay HOST PORT DELAY_S``), says its port as
one line, and after each connection what it counted as one JSON line.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import json
import selectors
import socket
import struct
import sys
import termios
import time

from .child import end_with_parent

BLOCK = 1 << 16
LOOK_S = 0.0003  # between two looks whether the far end has acknowledged


class RoundTrips:
    """Counts changes of direction. Pure: it is told who spoke."""

    def __init__(self) -> None:
        self.count = 0
        self.bytes_up = 0
        self.bytes_down = 0
        self._client_spoke_last = False

    def said(self, size: int, *, by_client: bool) -> None:
        """Some bytes were said."""
        if by_client:
            self.bytes_up += size
        else:
            self.bytes_down += size
            self.count += self._client_spoke_last
        self._client_spoke_last = by_client

    def report(self) -> dict[str, int]:
        return {"trips": self.count, "up": self.bytes_up, "down": self.bytes_down}


class Lane:
    """One direction: what came from `source` goes to `sink`, each piece `delay_s` after it came."""

    def __init__(self, source: socket.socket, sink: socket.socket, delay_s: float) -> None:
        self.source = source
        self.sink = sink
        self.is_open = True
        self._delay_s = delay_s
        self._waiting: collections.deque[tuple[float, memoryview]] = collections.deque()
        self._is_tcp = source.family != socket.AF_UNIX
        self._is_unacknowledged = False  # the far end has bytes that it did not acknowledge
        self._acknowledge_at: collections.deque[float] = collections.deque()
        source.setblocking(False)
        if self._is_tcp:
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._waiting

    def take(self, now: float) -> int:
        """Reads what is there; how much. Nothing means that the source is at its end."""
        try:
            piece = self.source.recv(BLOCK)
        except ConnectionError:
            piece = b""
        if piece:
            self._waiting.append((now + self._delay_s, memoryview(piece)))
        else:
            self.is_open = False
        return len(piece)

    def pass_on(self, now: float) -> None:
        """Writes what is due, as far as the sink takes it, and acknowledges what is due."""
        while self._waiting and self._waiting[0][0] <= now:
            due, piece = self._waiting.popleft()
            try:
                sent = self.sink.send(piece)
            except BlockingIOError:
                sent = 0
            except ConnectionError:
                self._waiting.clear()
                return
            self._is_unacknowledged = self._is_tcp
            if sent < len(piece):
                self._waiting.appendleft((due, piece[sent:]))
                break
        if self._is_tcp:
            self._acknowledge(now)

    def wait_s(self, now: float) -> float | None:
        """Seconds until something is due; None when nothing is."""
        times = [self._waiting[0][0]] if self._waiting else []
        times.extend(self._acknowledge_at)
        if self._is_unacknowledged:
            times.append(now + LOOK_S)
        return max(0.0, min(times) - now) if times else None

    def _acknowledge(self, now: float) -> None:
        if self._is_unacknowledged and not _in_flight(self.sink):
            self._is_unacknowledged = False
            self._acknowledge_at.append(now + self._delay_s)
        while self._acknowledge_at and self._acknowledge_at[0] <= now:
            self._acknowledge_at.popleft()
            # 1 sends what the kernel owes, 0 makes it wait again with the next.
            for value in (1, 0):
                self.source.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, value)


def _in_flight(connection: socket.socket) -> int:
    """Bytes that were sent and are not acknowledged."""
    size: int = struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))[0]
    return size


def relay(client: socket.socket, server: socket.socket, delay_s: float) -> RoundTrips:
    """Passes bytes between both until the client has closed and everything of it has arrived."""
    trips = RoundTrips()
    up, down = Lane(client, server, delay_s), Lane(server, client, delay_s)
    with selectors.DefaultSelector() as selector:
        for lane in (up, down):
            selector.register(lane.source, selectors.EVENT_READ, lane)
        while up.is_open or not up.is_idle:
            now = time.monotonic()
            waits = [wait for lane in (up, down) if (wait := lane.wait_s(now)) is not None]
            for key, _ in selector.select(min(waits, default=None)):
                lane = key.data
                size = lane.take(time.monotonic())
                if size:
                    trips.said(size, by_client=lane is up)
                else:
                    selector.unregister(lane.source)
            now = time.monotonic()
            up.pass_on(now)
            down.pass_on(now)
            if not down.is_open and down.is_idle:
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_WR)
    return trips


def main() -> None:
    """Relays one connection after the other, for ever."""
    host, port, delay_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    end_with_parent()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        _say(str(listener.getsockname()[1]))
        while True:
            client, _ = listener.accept()
            with client, socket.create_connection((host, port)) as server:
                trips = relay(client, server, delay_s)
            _say(json.dumps(trips.report()))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
