"""Proxies: TVM's and ours between clients and servers of both kinds, with and without a tracker.

A case is named after its client, proxy and server, and its tracker if there is one. TVM's proxy
needs tornado.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Iterator, NamedTuple, Optional

import pytest

from .clients import CLIENTS, HOST, Client
from .servers import KEY, START_LIMIT_S, Launcher, Program, wait_for_queue

if TYPE_CHECKING:
    from numpy.typing import NDArray

KINDS = ("tvm", "ours")
SERVERS = (*KINDS, "native")


class Cast(NamedTuple):
    """The kinds of all who take part."""

    client: str
    proxy: str
    server: str
    tracker: Optional[str]


CASTS = {
    "-".join(kind for kind in cast if kind): cast
    for tracker in (None, *KINDS)
    for server in SERVERS
    for proxy in KINDS
    for client in KINDS
    for cast in [Cast(client, proxy, server, tracker)]
}


class Scene:
    """A proxy with a server behind it, and maybe a tracker."""

    def __init__(self, launcher: Launcher, cast: Cast) -> None:
        self._launcher = launcher
        self.tracker = None if cast.tracker is None else launcher.tracker(cast.tracker)
        self.proxy = launcher.proxy(cast.proxy, self.tracker)
        self.server = launcher.server(cast.server, KEY, proxy=self.proxy)

    def close(self) -> None:
        """Stop everybody."""
        programs: list[Program | None] = [self.server, self.proxy, self.tracker]
        for program in programs:
            if program is not None:
                self._launcher.stop(program)


@pytest.fixture(scope="module", params=list(CASTS))
def cast(request: pytest.FixtureRequest) -> Cast:
    """Who is who."""
    return CASTS[request.param]


@pytest.fixture(scope="module")
def client(cast: Cast) -> Client:
    """The client of the cast."""
    if "tvm" in (cast.proxy, cast.tracker):
        pytest.importorskip("tornado")
    return CLIENTS[cast.client]()


@pytest.fixture(scope="module")
def scene(launcher: Launcher, cast: Cast, client: Client) -> Iterator[Scene]:
    """The cast's programs; the server is known to the tracker, as one that is not is refused."""
    scene = Scene(launcher, cast)
    if scene.tracker is not None:
        with CLIENTS["ours"]().connect_tracker(scene.tracker) as tracker:
            wait_for_queue(tracker, KEY, free=1)
    yield scene
    scene.close()


@contextlib.contextmanager
def session_of(client: Client, scene: Scene, **options: Any) -> Iterator[Any]:
    """A session through the proxy, ended when the block ends."""
    if scene.tracker is None:
        with client.connect(scene.proxy, **options) as session:
            yield session
        return
    with client.connect_tracker(scene.tracker) as tracker:
        session = tracker.request(KEY, **options)
        try:
            yield session
        finally:
            client.end(session)


def pattern(size: int) -> NDArray[Any]:
    """Bytes that show it when one is missing."""
    import numpy as np

    return (np.arange(size, dtype="uint32") * 2654435761 >> 24).astype("uint8")


def test_sessions_in_a_row(client: Client, scene: Scene) -> None:
    """Calls, errors and eight megabytes of a tensor, and the server comes back each time."""
    for number in range(3):
        with session_of(client, scene) as session:
            assert session.get_function("rpc.test.addone")(number) == number + 1
            with pytest.raises(client.remote_error, match="abc"):
                session.get_function("rpc.test.except")("abc")
            there = session.get_function("rpc.test.strcat")("x" * number, 5)
            assert there == "x" * number + ":5"
            content = pattern(8 << 20)
            tensor = client.runtime.tensor(content, session.cpu(0))
            assert (tensor.numpy() == content).all()
            del tensor, there
            session.upload(bytearray(b"file" * 1000), "name")
            assert session.download("name") == b"file" * 1000


def test_the_time_limit_reaches_the_server(client: Client, scene: Scene) -> None:
    """It travels behind the client's key; the server's last words come back."""
    with session_of(client, scene, session_timeout=1) as session:
        add = session.get_function("rpc.test.addone")
        end = time.monotonic() + START_LIMIT_S
        with pytest.raises(client.timeout_error):
            _use_up(add, end)


def _use_up(function: Any, end: float) -> None:
    while time.monotonic() < end:
        function(1)
        time.sleep(0.4)  # TVM's server mixes its last words with an answer under way


def test_an_unknown_match_key_is_refused(client: Client, scene: Scene) -> None:
    """With a tracker, nobody waits at the proxy."""
    if scene.tracker is None:
        pytest.skip("without a tracker, clients wait for a server")
    with pytest.raises(client.refusal, match="cannot find server that matches key"):
        client.rpc.connect(HOST, scene.proxy.port, f"{KEY}:0.25")


def test_the_tracker_shows_it(client: Client, scene: Scene) -> None:
    """The summary has one entry for the proxy, with the keys behind it."""
    if scene.tracker is None:
        pytest.skip("there is no tracker")
    with client.connect_tracker(scene.tracker) as tracker:
        summary = wait_for_queue(tracker, KEY, free=1)
        entries = [(entry["key"], entry["addr"]) for entry in summary["server_info"]]
        assert entries == [(f"server:proxy[{KEY}]", [HOST, scene.proxy.port])]
        assert f"server:proxy[{KEY}]" in tracker.text_summary()


def test_an_unused_offer_is_offered_anew(cast: Cast, client: Client, scene: Scene) -> None:
    """Under its own key, where TVM's proxy makes up another one."""
    if scene.tracker is None or cast.proxy == "tvm":
        pytest.skip("our proxy, at a tracker")
    ours = CLIENTS["ours"]()
    with ours.connect_tracker(scene.tracker) as tracker:
        wait_for_queue(tracker, KEY, free=1)
        wasted = _take(scene.tracker.port)
        assert wasted[2].startswith(f"{KEY}:")
        assert wait_for_queue(tracker, KEY, free=0)
        summary = wait_for_queue(tracker, KEY, free=1)
        assert [key for key in summary["queue_info"] if KEY in key] == [KEY]
    with session_of(client, scene) as session:
        assert session.get_function("rpc.test.addone")(1) == 2


def _take(port: int) -> list[Any]:
    """Ask the tracker for a server, and do not use it."""
    import json
    import socket
    import struct

    with socket.create_connection((HOST, port), START_LIMIT_S) as connection:
        stream = connection.makefile("rb")
        connection.sendall(struct.pack("<i", 0x2F271))
        assert stream.read(4) == struct.pack("<i", 0x2F271)
        body = json.dumps([4, KEY, "", 1]).encode()
        connection.sendall(struct.pack("<i", len(body)) + body)
        (length,) = struct.unpack("<i", stream.read(4))
        code, granted = json.loads(stream.read(length))
        stream.close()
    assert code == 0
    return list(granted)
