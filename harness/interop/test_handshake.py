"""The first and the last words of a session."""

from __future__ import annotations

from typing import Any

import pytest

from .clients import HOST, Client
from .servers import KEY, Launcher, Program, Station


def test_the_right_key_opens_a_session(remote: Any) -> None:
    """A client that names the server's key can call a function."""
    assert remote.get_function("rpc.test.addone")(10) == 11


def test_a_wrong_key_is_refused(client: Client, server: Program) -> None:
    """The client raises its error for a refused key, and the server serves the next one."""
    with pytest.raises(client.refusal, match="wrong"):
        client.rpc.connect(HOST, server.port, "wrong")
    with client.connect(server) as session:
        assert session.get_function("rpc.test.addone")(1) == 2


def test_half_of_the_key_is_refused(client: Client, server: Program) -> None:
    """Only the whole key counts, not its beginning."""
    with pytest.raises(client.refusal):
        client.rpc.connect(HOST, server.port, KEY[:-1])


def test_a_server_without_a_key(client: Client, pair: Any, launcher: Launcher) -> None:
    """A server without a key serves a client without a key."""
    server = launcher.server(pair.server, key="")
    try:
        with client.connect(server) as session:
            assert session.get_function("rpc.test.addone")(1) == 2
    finally:
        launcher.stop(server)


def test_nobody_at_the_address(client: Client, pair: Any, launcher: Launcher) -> None:
    """Connecting to a server that has ended raises."""
    server = launcher.server(pair.server)
    launcher.stop(server)
    with pytest.raises(RuntimeError):
        client.rpc.connect(HOST, server.port, server.key)


def test_shutdown_and_reconnect(client: Client, server: Program) -> None:
    """After a session has been shut down the next one starts, again and again."""
    for number in range(5):
        with client.connect(server) as session:
            assert session.get_function("rpc.test.addone")(number) == number + 1


def test_a_session_that_was_shut_down(client: Client, server: Program) -> None:
    """A function of a session that has ended raises when it is called."""
    with client.connect(server) as session:
        addone = session.get_function("rpc.test.addone")
    with pytest.raises(RuntimeError):
        addone(1)


def test_a_session_ends_with_its_last_reference(client: Client, server: Program) -> None:
    """A client that just forgets its session and functions frees the server for the next one."""
    session = client.rpc.connect(HOST, server.port, server.key)
    assert session.get_function("rpc.test.addone")(1) == 2
    if client.name == "ours":
        session.close()  # forgetting an open session is a ResourceWarning with our client
    del session
    with client.connect(server) as session:
        assert session.get_function("rpc.test.addone")(1) == 2


@pytest.mark.parametrize("limit", [1, 0.75])
def test_session_timeout_in_a_call(
    client: Client, server: Program, probe: Any, limit: float
) -> None:
    """A call that is running when the session's time is over raises the client's timeout error."""
    with client.connect(server, session_timeout=limit) as session:
        session.upload(str(probe))
        wait = session.load_module(probe.name)["wait"]
        with pytest.raises(client.timeout_error, match="session_timeout") as raised:
            wait(30)
        assert isinstance(raised.value, TimeoutError)
    with client.connect(server) as session:
        assert session.get_function("rpc.test.addone")(1) == 2


def test_session_timeout_between_calls(client: Client, server: Program, probe: Any) -> None:
    """A client that was idle when its time was over learns it from its next call."""
    with client.connect(server, session_timeout=0.5) as idle:
        addone = idle.get_function("rpc.test.addone")
        with client.connect(server) as other:
            # TVM's server lets the second client in when the first one's time is over, ours at
            # once; on either, the first one's time is over after this call.
            other.upload(str(probe))
            other.load_module(probe.name)["wait"](1)
        with pytest.raises(client.timeout_error, match="session_timeout"):
            addone(1)


def test_a_session_within_its_timeout(client: Client, server: Program) -> None:
    """A session that is shorter than its limit does not notice the limit."""
    with client.connect(server, session_timeout=30) as session:
        assert session.get_function("rpc.test.addone")(1) == 2


def test_a_session_that_crashes(
    client: Client, pair: Any, server: Program, station: Station, probe: Any
) -> None:
    """A session whose process dies raises at the client; our server serves the next one."""
    station.suspect = True
    with client.connect(server) as session:
        session.upload(str(probe))
        crash = session.load_module(probe.name)["crash"]
        with pytest.raises(RuntimeError):
            crash()
    if pair.server != "tvm":
        with client.connect(server) as session:
            assert session.get_function("rpc.test.addone")(1) == 2
