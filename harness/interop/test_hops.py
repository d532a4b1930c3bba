"""Sessions that one server opens on another: each of the three is TVM's or ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Iterator, NamedTuple

import numpy as np
import pytest

from .clients import CLIENTS, HOST, Client

if TYPE_CHECKING:
    from pathlib import Path

    from .servers import Launcher, Program


class Chain(NamedTuple):
    """The kinds of client, first server and last server."""

    client: str
    first: str
    last: str


CHAINS = {
    "control": Chain("tvm", "tvm", "tvm"),
    "tvm-ours-ours": Chain("tvm", "ours", "ours"),
    "tvm-ours-tvm": Chain("tvm", "ours", "tvm"),
    "tvm-tvm-ours": Chain("tvm", "tvm", "ours"),
    "ours-tvm-tvm": Chain("ours", "tvm", "tvm"),
    "ours-tvm-ours": Chain("ours", "tvm", "ours"),
    "ours-ours-tvm": Chain("ours", "ours", "tvm"),
}


class Servers(NamedTuple):
    """The two servers of a chain, and the client at its beginning."""

    client: Client
    first: Program
    last: Program

    @property
    def onward(self) -> list[Any]:
        """The constructor that leads from the first to the last."""
        return ["rpc.Connect", HOST, self.last.port, self.last.key, False]


@pytest.fixture(params=list(CHAINS), scope="module")
def servers(request: pytest.FixtureRequest, launcher: Launcher) -> Iterator[Servers]:
    """Who is in the chain."""
    chain = CHAINS[request.param]
    first, last = launcher.server(chain.first, key="first"), launcher.server(chain.last, key="last")
    yield Servers(CLIENTS[chain.client](), first, last)
    launcher.stop(first)
    launcher.stop(last)


@pytest.fixture
def distant(servers: Servers) -> Iterator[Any]:
    """A session with the last server, by way of the first."""
    with servers.client.connect(servers.first, session_constructor_args=servers.onward) as session:
        yield session


def test_calls(servers: Servers, distant: Any) -> None:
    """Values, functions and exceptions pass both servers."""
    assert distant.get_function("rpc.test.addone")(41) == 42
    assert distant.get_function("rpc.test.strcat")("abc", 11) == "abc:11"
    assert distant.get_function("rpc.test.add_to_lhs")(10)(5) == 15
    with pytest.raises(servers.client.remote_error, match="boom"):
        distant.get_function("rpc.test.except")("boom")


def test_files_and_modules(servers: Servers, distant: Any, probe: Path) -> None:
    """A library goes to the last server, is loaded there and called."""
    distant.upload(str(probe))
    module = distant.load_module(probe.name)
    assert module["has_context"]()
    del module
    distant.upload(bytearray(b"content"), "file.txt")
    assert bytes(distant.download("file.txt")) == b"content"


def test_tensors(servers: Servers, distant: Any) -> None:
    """Memory is the last server's; small and large contents pass."""
    for count in (3, 100_000):
        array = np.arange(count, dtype="float32")
        tensor = servers.client.runtime.tensor(array, distant.cpu(0))
        np.testing.assert_array_equal(tensor.numpy(), array)
        del tensor


def test_one_after_the_other(servers: Servers) -> None:
    """Both servers are free again when a session has ended."""
    for number in range(3):
        with servers.client.connect(
            servers.first, session_constructor_args=servers.onward
        ) as session:
            assert session.get_function("rpc.test.addone")(number) == number + 1


def test_a_local_session(servers: Servers) -> None:
    """``rpc.LocalSession`` as a constructor is the first server itself."""
    with servers.client.connect(
        servers.first, session_constructor_args=["rpc.LocalSession"]
    ) as session:
        assert session.get_function("rpc.test.addone")(1) == 2


def test_an_unknown_constructor(servers: Servers) -> None:
    """It is an error to the client, and the server serves on."""
    with pytest.raises(Exception, match=r"Cannot find session constructor rpc\.Nope"):
        servers.client.rpc.connect(
            HOST,
            servers.first.port,
            servers.first.key,
            session_constructor_args=["rpc.Nope", 1],
        )
    with servers.client.connect(servers.first) as session:
        assert session.get_function("rpc.test.addone")(1) == 2
