"""Whole sessions through a proxy: our client, our server, with and without a tracker."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Callable, Iterator, Tuple

import pytest

from pytest_tvmrpc import rpc
from pytest_tvmrpc.errors import KeyMismatchError, RPCSessionTimeoutError

if TYPE_CHECKING:
    from pathlib import Path


class Scene:
    """A proxy and a server behind it, and maybe a tracker; all say what they do in one file."""

    def __init__(self, stack: contextlib.ExitStack, folder: Path, with_tracker: bool) -> None:
        self._stack = stack
        self._log = stack.enter_context((folder / "log").open("wb"))
        self.tracker = None
        if with_tracker:
            self.tracker = stack.enter_context(rpc.Tracker(port=0, log=self._log))
        self.proxy = self.start_proxy(0)
        self.server = stack.enter_context(
            rpc.Server(self.proxy.host, self.proxy.port, is_proxy=True, key="phone", log=self._log)
        )

    def start_proxy(self, port: int) -> rpc.Proxy:
        return self._stack.enter_context(
            rpc.Proxy(
                port=port,
                tracker_addr=self.tracker and (self.tracker.host, self.tracker.port),
                log=self._log,
            )
        )

    @contextlib.contextmanager
    def session(self, session_timeout: float = 0) -> Iterator[rpc.RPCSession]:
        """A session as a user opens it."""
        if self.tracker is None:
            place: Tuple[str, int] = (self.proxy.host, self.proxy.port)
            with rpc.connect(*place, "phone", session_timeout) as session:
                yield session
            return
        with rpc.connect_tracker(self.tracker.host, self.tracker.port) as tracker, tracker.request(
            "phone", session_timeout=session_timeout, wait_for_key=True
        ) as session:
            yield session


@pytest.fixture(name="scene", params=["alone", "with tracker"])
def _scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    with contextlib.ExitStack() as stack:
        yield Scene(stack, tmp_path, request.param == "with tracker")


def test_one_after_the_other(scene: Scene) -> None:
    """The server is back at the proxy when a session has ended, whichever way it did."""
    for number in range(3):
        with scene.session() as remote:
            assert remote.get_function("rpc.test.addone")(number) == number + 1
            with pytest.raises(rpc.RemoteError):
                remote.get_function("rpc.test.except")("x")
            remote.upload(b"content" * 100_000, "name")
            assert remote.download("name") == b"content" * 100_000


def test_the_time_limit_is_the_servers(scene: Scene) -> None:
    """It reaches the server behind the key, and its last words reach the client."""
    with scene.session(session_timeout=0.2) as remote:
        add = remote.get_function("rpc.test.addone")
        with pytest.raises(RPCSessionTimeoutError, match=r"0\.2s session has expired"):
            _call_for_ever(add)
    with scene.session() as remote:
        assert remote.get_function("rpc.test.addone")(1) == 2


def _call_for_ever(function: Callable[[int], object]) -> None:
    while True:
        function(1)


def test_a_proxy_that_comes_back(scene: Scene) -> None:
    """Its servers are there again, and at the tracker under their own key."""
    with scene.session() as remote:
        assert remote.get_function("rpc.test.addone")(1) == 2
    scene.proxy.terminate()
    scene.proxy = scene.start_proxy(scene.proxy.port)
    with scene.session() as remote:
        assert remote.get_function("rpc.test.addone")(2) == 3


def test_a_wrong_key_waits_or_is_refused(tmp_path: Path) -> None:
    """Without a tracker it waits as long as the proxy lets it; the error names the key."""
    with (tmp_path / "log").open("wb") as log, rpc.Proxy(
        port=0, timeout_client=0.1, log=log
    ) as proxy, pytest.raises(KeyMismatchError, match="key=client:tablet"):
        rpc.connect(proxy.host, proxy.port, "tablet")
