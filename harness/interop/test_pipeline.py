"""Many calls at once, which only our client can make: at our server and at TVM's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Iterator

import numpy as np
import pytest

from .clients import Client, our_client

if TYPE_CHECKING:
    from .servers import Launcher, Program


@pytest.fixture(params=["ours", "tvm"], scope="module")
def end(request: pytest.FixtureRequest, launcher: Launcher) -> Iterator[Program]:
    """A server of either kind."""
    program = launcher.server(request.param)
    yield program
    launcher.stop(program)


@pytest.fixture
def session(end: Program) -> Iterator[Any]:
    """A session of our client with it."""
    client: Client = our_client()
    with client.connect(end) as session:
        yield session


def test_calls(session: Any) -> None:
    """Results and errors belong to their calls."""
    addone, fails = (session.get_function(f"rpc.test.{name}") for name in ("addone", "except"))
    with session.pipeline() as p:
        calls = [p.call(addone, number) for number in range(2000)]
        bad = p.call(fails, "boom")
        last = p.call(addone, 0)
    assert [call.result() for call in calls] == list(range(1, 2001))
    assert "boom" in str(bad.exception())
    assert last.result() == 1


def test_more_than_buffers_hold(session: Any) -> None:
    """Megabytes both ways; neither side blocks on the other."""
    join = session.get_function("rpc.test.runtime_str_concat")
    with session.pipeline() as p:
        calls = [p.call(join, "x" * 100_000, "y" * 100_000) for _ in range(100)]
    assert all(call.result() == "x" * 100_000 + "y" * 100_000 for call in calls)


def test_tensors_in_between(session: Any) -> None:
    """Copies and ordinary calls while calls are on their way."""
    client = our_client()
    addone = session.get_function("rpc.test.addone")
    array = np.arange(1000, dtype="float32")
    with session.pipeline() as p:
        calls = [p.call(addone, number) for number in range(300)]
        tensor = client.runtime.tensor(array, session.cpu(0))
        calls += [p.call(addone, number) for number in range(300)]
        np.testing.assert_array_equal(tensor.numpy(), array)
    assert [call.result() for call in calls] == 2 * list(range(1, 301))


def test_it_serves_on(end: Program) -> None:
    """A session that is closed with calls unanswered does not harm the server."""
    client = our_client()
    with client.connect(end) as session:
        addone = session.get_function("rpc.test.addone")
        p = session.pipeline()
        dropped = [p.call(addone, number) for number in range(500)]
    with client.connect(end) as session:
        assert session.get_function("rpc.test.addone")(1) == 2
    assert len(dropped) == 500
