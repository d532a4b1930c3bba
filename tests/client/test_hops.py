"""Session constructors: sessions that a server opens on another one, and passes on."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any, Iterator, List

import pytest

from pytest_tvmrpc import rpc, runtime
from pytest_tvmrpc.errors import ConnectionLostError, RemoteError

np = pytest.importorskip("numpy")


@pytest.fixture(name="servers", scope="module")
def _servers() -> Iterator[List[rpc.Server]]:
    """Three servers in a row."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(rpc.Server(port=0, silent=True, key=key))
            for key in ("", "second", "third")
        ]


def onward(servers: List[rpc.Server], hops: int) -> List[Any]:
    """The constructor that leads to the last of so many servers behind the first."""
    constructor: List[Any] = []
    for server in reversed(servers[1 : 1 + hops]):
        name = "second" if server is servers[1] else "third"
        constructor = ["rpc.Connect", server.host, server.port, name, False, *constructor]
    return constructor


@pytest.fixture(name="distant", params=[1, 2], ids=["one hop", "two hops"])
def _distant(request: Any, servers: List[rpc.Server]) -> Iterator[rpc.RPCSession]:
    """A session with a server behind the first."""
    first = servers[0]
    constructor = onward(servers, request.param)
    with rpc.connect(first.host, first.port, session_constructor_args=constructor) as session:
        yield session


def test_it_is_the_last_server_that_works(distant: rpc.RPCSession) -> None:
    """A file that is uploaded is there, and only there."""
    distant.upload(b"content", "file.txt")
    assert distant.download("file.txt") == b"content"
    assert distant.listdir() == "file.txt"
    distant.remove("file.txt")
    assert distant.listdir() == ""


def test_values_and_errors_pass(distant: rpc.RPCSession) -> None:
    """Results, functions as results, and exceptions with their type."""
    assert distant.get_function("rpc.test.addone")(1) == 2
    assert distant.get_function("testing.echo")("äß") == "äß"
    assert distant.get_function("testing.echo")(b"b" * 200_000) == b"b" * 200_000
    add = distant.get_function("rpc.test.add_to_lhs")(10)
    assert add(5) == 15
    with pytest.raises(ValueError, match=r"^boom$"):
        distant.get_function("rpc.test.except")("boom")
    with pytest.raises(AttributeError, match=r"no\.such"):
        distant.get_function("no.such")


def test_tensors_pass(distant: rpc.RPCSession) -> None:
    """Copied there and back, large and small, and among each other."""
    for count in (4, 300_000):
        array = np.arange(count, dtype="float32")
        tensor = runtime.tensor(array, distant.cpu(0))
        other = runtime.empty((count,), "float32", distant.cpu(0))
        tensor.copyto(other)
        np.testing.assert_array_equal(other.numpy(), array)
    assert distant.cpu(0).exist
    distant.cpu(0).sync()


def test_modules_pass(distant: rpc.RPCSession, library: str) -> None:
    """A library is uploaded, loaded, called and measured behind the hops."""
    distant.upload(library)
    module = distant.load_module(os.path.basename(library))
    arrays = [np.ones(16, "float32"), np.ones(16, "float32"), np.zeros(16, "float32")]
    a, b, c = (runtime.tensor(array, distant.cpu(0)) for array in arrays)
    module["vector_add"](a, b, c)
    assert c.numpy().tolist() == [2.0] * 16
    measured = module.time_evaluator("vector_add", distant.cpu(0), number=2)(a, b, c)
    assert measured.mean > 0
    assert measured.loop in ("compiled", "python")


def test_pipelines_pass(distant: rpc.RPCSession) -> None:
    """Calls in flight are passed on one after the other."""
    addone = distant.get_function("rpc.test.addone")
    with distant.pipeline() as p:
        calls = [p.call(addone, number) for number in range(50)]
    assert [call.result() for call in calls] == list(range(1, 51))


def test_the_servers_are_free_afterwards(servers: List[rpc.Server]) -> None:
    """Closing the session ends it on every server of the chain."""
    for _ in range(3):
        first = servers[0]
        with rpc.connect(
            first.host, first.port, session_constructor_args=onward(servers, 2)
        ) as session:
            assert session.get_function("rpc.test.addone")(1) == 2
    for server, key in zip(servers, ("", "second", "third")):
        with rpc.connect(server.host, server.port, key) as session:
            assert session.get_function("rpc.test.addone")(1) == 2


def test_local_session_is_the_server_itself(server: rpc.Server) -> None:
    """``rpc.LocalSession`` asks for what a session is anyway."""
    constructor = ["rpc.LocalSession"]
    with rpc.connect(server.host, server.port, session_constructor_args=constructor) as session:
        assert session.get_function("rpc.test.addone")(1) == 2


@pytest.mark.parametrize(
    ("constructor", "message"),
    [
        (["rpc.Nope", "x", 5, True], "Cannot find session constructor rpc.Nope"),
        (["rpc.Connect"], "expected a host, a port, a key"),
        (["rpc.Connect", "127.0.0.1", "9090", "k"], "expected a host, a port, a key"),
        (["rpc.Connect", "127.0.0.1", 1, "k"], "127.0.0.1:1"),
        (["rpc.LocalSession", 1], "Cannot find session constructor rpc.LocalSession"),
    ],
)
def test_a_constructor_that_fails(server: rpc.Server, constructor: Any, message: str) -> None:
    """The client is told what was wrong, and the server serves on."""
    with pytest.raises(RemoteError, match=message):
        rpc.connect(server.host, server.port, session_constructor_args=constructor)
    with rpc.connect(server.host, server.port) as session:
        assert session.get_function("rpc.test.addone")(1) == 2


def test_the_wrong_key_of_the_next_server(servers: List[rpc.Server]) -> None:
    """The error is the next server's, by its type."""
    first, second = servers[:2]
    constructor = ["rpc.Connect", second.host, second.port, "other", False]
    with pytest.raises(RemoteError, match="cannot find server that matches key=client:other"):
        rpc.connect(first.host, first.port, session_constructor_args=constructor)


def test_the_time_limit_of_the_next_server(servers: List[rpc.Server]) -> None:
    """An option behind the key is the next server's session_timeout."""
    first, second = servers[:2]
    constructor = ["rpc.Connect", second.host, second.port, "second -timeout=0.3", False]
    with rpc.connect(first.host, first.port, session_constructor_args=constructor) as session:
        sleep = session.get_function("testing.sleep")
        with pytest.raises(rpc.RPCSessionTimeoutError, match=r"0\.3s session has expired"):
            sleep(30.0)


def test_the_next_server_goes(servers: List[rpc.Server]) -> None:
    """The client learns which connection it was that was lost."""
    first = servers[0]
    with rpc.Server(port=0, silent=True, key="gone") as last:
        constructor = ["rpc.Connect", last.host, last.port, "gone", False]
        session = rpc.connect(first.host, first.port, session_constructor_args=constructor)
        function = session.get_function("rpc.test.addone")
        os.kill(last.program.pid, signal.SIGKILL)
        with session, pytest.raises(ConnectionLostError, match=str(last.port)):
            all(function(number) for number in range(100_000))  # it takes a moment to notice


def test_a_constructor_is_a_list_or_tuple(server: rpc.Server) -> None:
    """TVM's message for anything else."""
    with pytest.raises(TypeError, match="Expect the session constructor to be a list or tuple"):
        rpc.connect(server.host, server.port, session_constructor_args="rpc.LocalSession")
