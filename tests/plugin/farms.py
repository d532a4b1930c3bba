"""A farm of somebody else for a pytest inside the test: a tracker, servers, and links that cut.

Judges nothing. `ACTS` is a module for that pytest, with what its tests do to devices.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Dict, List, Optional

from pytest_tvmrpc import rpc
from pytest_tvmrpc.reporting import jsonl

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_tvmrpc.records import Attempt, TestRecord

SETTLING_S = 10.0 * float(os.environ.get("PYTEST_TVMRPC_TEST_TIMEOUT_FACTOR", "1"))
"""A server that was killed, or a session that was cut off, is noticed within this time."""

HERE = "127.0.0.1"
BEHIND_A_LINK = "127.0.0.2"

ACTS = """
    import json, os, signal
    from pathlib import Path
    from pytest_tvmrpc import rpc
    from pytest_tvmrpc.errors import ConnectionLostError

    FOLDER = Path(__file__).parent
    FARM = json.loads((FOLDER / "farm.json").read_text())

    def is_first(name="first"):
        "Whether this was not asked before, by whatever process and attempt."
        try:
            (FOLDER / f"{name}.mark").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def add_one(remote, number=1):
        return remote.get_function("rpc.test.addone")(number)

    def lose(remote):
        "Ask until the session has seen that it is over."
        while True:
            add_one(remote)

    def kill(remote):
        "Kill the server of a session; it does not come back."
        os.kill(FARM["servers"][str(remote.peer[1])], signal.SIGKILL)
        lose(remote)

    def drop(remote):
        "End a session from outside; its server goes on."
        with rpc.connect_tracker(*FARM["tracker"]) as tracker:
            tracker.kick(f"{remote.peer[0]}:{remote.peer[1]}", "for a test")
        lose(remote)

    def drop_quietly(remote):
        try:
            drop(remote)
        except ConnectionLostError:
            pass

    def load(remote):
        remote.upload(str(FOLDER / "faults.so"))
        return remote.load_module("faults.so")
"""


class Link:
    """What stands between a server and those who come, and cuts when a client says some word.

    It listens at the server's port on another address of the loopback.
    """

    def __init__(self, port: int, word: bytes) -> None:
        self.cuts = 0
        self._word = word
        self._listener = socket.create_server((BEHIND_A_LINK, port))
        self._behind = (HERE, port)
        self._peers: Dict[socket.socket, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._waking, self._waker = socket.socketpair()
        self._selector.register(self._waking, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="link", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it; connections end with it."""
        self._waker.close()
        self._thread.join()

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._waking:
                    self._end()
                    return
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    assert isinstance(key.fileobj, socket.socket)
                    self._forward(key.fileobj)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(self._behind)
        self._peers.update({client: server, server: client})
        for one in (client, server):
            self._selector.register(one, selectors.EVENT_READ)

    def _forward(self, source: socket.socket) -> None:
        if source not in self._peers:
            return  # cut with its peer a moment ago
        content = b""
        with contextlib.suppress(OSError):
            content = source.recv(1 << 16)
        is_cut = self._word in content
        self.cuts += is_cut
        if content and not is_cut:
            with contextlib.suppress(OSError):
                self._peers[source].sendall(content)
                return
        self._cut(source)

    def _cut(self, source: socket.socket) -> None:
        peer = self._peers.pop(source)
        del self._peers[peer]
        for one in (source, peer):
            self._selector.unregister(one)
            one.close()

    def _end(self) -> None:
        for one in list(self._peers):
            if one in self._peers:
                self._cut(one)
        self._selector.close()
        for one in (self._listener, self._waking):
            one.close()


class Farm:
    """A tracker with servers; what is killed of it is not started again.

    Attributes:
        tracker: the tracker.
        servers: the process of each server that was added, by the device's name.
    """

    def __init__(self, *keys: str) -> None:
        self.servers: Dict[str, int] = {}
        self._stack = contextlib.ExitStack()
        self.tracker = self._stack.enter_context(rpc.Tracker(port=0, silent=True))
        with ThreadPoolExecutor() as pool:
            names = list(pool.map(self.add, keys))
        self.servers = {name: self.servers[name] for name in names}

    @property
    def address(self) -> str:
        """Where the tracker is."""
        return f"{self.tracker.host}:{self.tracker.port}"

    @property
    def arguments(self) -> List[str]:
        """What a pytest has to be told to take devices from here."""
        keys = dict.fromkeys(name.partition("@")[0] for name in self.servers)
        return [f"--rpc-tracker={self.address}", *(f"--rpc-key={key}" for key in keys)]

    def add(self, key: str = "board", cut_at: str = "") -> str:
        """One more server; its device's name.

        Args:
            key: its device key.
            cut_at: it is behind a link that cuts when a client says this.
        """
        host = BEHIND_A_LINK if cut_at else HERE
        address = (self.tracker.host, self.tracker.port)
        server = self._stack.enter_context(
            rpc.Server(
                port=0,
                key=key,
                tracker_addr=address,
                custom_addr=host if cut_at else None,
                silent=True,
                log=subprocess.DEVNULL,
            )
        )
        if cut_at:
            link = Link(server.port, cut_at.encode())
            self._stack.callback(link.close)
        name = f"{key}@{host}:{server.port}"
        self.servers[name] = server.program.pid
        return name

    def restart_tracker(self) -> None:
        """Kill the tracker, and start one at the same port."""
        os.kill(self.tracker.program.pid, signal.SIGKILL)
        self.tracker.terminate()
        port = self.tracker.port
        self.tracker = self._stack.enter_context(
            rpc.Tracker(port=port, port_end=port + 1, silent=True)
        )

    def held(self) -> List[str]:
        """The devices that somebody has, or that are being handed over."""
        with self.ask() as tracker:
            return [
                f"{server.key}@{server.address}"
                for server in tracker.who().servers
                if server.state.value != "free"
            ]

    def settle(self) -> None:
        """Wait until nobody has a device; fail the test if somebody still has one then."""
        end = time.monotonic() + SETTLING_S
        while self.held() and time.monotonic() < end:
            pass  # each question is a connection of its own, which is pause enough
        assert self.held() == []

    def free(self) -> List[str]:
        """The devices that anybody could have now."""
        with self.ask() as tracker:
            return [
                f"{server.key}@{server.address}"
                for server in tracker.who().servers
                if server.state.value == "free"
            ]

    def ask(self, user: Optional[str] = None) -> rpc.TrackerSession:
        """A connection to the tracker."""
        return rpc.connect_tracker(self.tracker.host, self.tracker.port, user=user)

    def write(self, folder: Path, library: Optional[Path] = None) -> None:
        """Put what `ACTS` needs into the folder of a pytest."""
        servers = {name.rpartition(":")[2]: pid for name, pid in self.servers.items()}
        tracker = (self.tracker.host, self.tracker.port)
        (folder / "farm.json").write_text(json.dumps({"tracker": tracker, "servers": servers}))
        if library is not None and not (folder / library.name).exists():
            (folder / library.name).symlink_to(library)

    def __enter__(self) -> Farm:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def read(folder: Path) -> "Dict[str, TestRecord]":
    """What ``--rpc-report=run.jsonl`` says, by the names of the tests."""
    run = jsonl.read(folder / "run.jsonl")
    return {test.nodeid.partition("::")[2]: test for test in run.tests}


def verdicts(test: TestRecord) -> List[str]:
    """Those of all attempts."""
    return [attempt.verdict for attempt in test.attempts]


def devices(test: TestRecord) -> List[str]:
    """Those of all attempts, in their order."""
    return [name for attempt in test.attempts for name in attempt.names]


def last(test: TestRecord) -> Attempt:
    """The attempt that counts."""
    return test.attempts[-1]
