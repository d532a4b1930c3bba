"""What a session and everything of it look like in a debugger or a failed assertion."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from pytest_tvmrpc import rpc, runtime


def test_everything_says_what_it_is_and_where(remote: rpc.RPCSession, vector_add: Any) -> None:
    """Its class, its name, and the address of its server; no text is that of another thing."""
    where = f"127.0.0.1:{remote.peer[1]}"
    assert remote.address == where
    function = vector_add["vector_add"]
    tensor = runtime.tensor(np.zeros(2, "float32"), remote.cpu(0))
    evaluator = vector_add.time_evaluator("vector_add", remote.cpu(0), number=3)
    texts = {
        repr(remote): f"<RPCSession {where}, open>",
        repr(function): f"<RemoteFunction vector_add on {where}>",
        repr(remote.get_function("testing.echo")): f"<RemoteFunction testing.echo on {where}>",
        repr(evaluator): "<TimeEvaluator of vector_add, number=3, repeat=1>",
        repr(remote.pipeline()): f"<Pipeline to {where}>",
        repr(
            tensor
        ): f"<runtime.Tensor shape=(2,), {remote.cpu(0)!r}>\narray([0., 0.], dtype=float32)",
        repr(runtime.profile(vector_add)): f"<Profile of {vector_add!r}, 0 calls>",
    }
    for text, expected in texts.items():
        assert text == expected
    assert where in repr(remote.cpu(0))
    assert where in repr(vector_add)
    assert re.fullmatch(
        r"<Meter \d+ calls in [\d.e-]+ s, \d+ bytes sent, \d+ received>", repr(remote.meter)
    )


def test_a_function_that_came_back_without_a_name(remote: rpc.RPCSession) -> None:
    """Says so."""
    function = remote.get_function("rpc.test.add_to_lhs")(5)
    assert re.fullmatch(r"<RemoteFunction .+ on 127\.0\.0\.1:\d+>", repr(function))


def test_a_session_of_this_process() -> None:
    """Has no address but this process; once it is closed, its text says so."""
    with rpc.LocalSession() as session:
        function = session.get_function("testing.echo")
        assert repr(session) == "<LocalSession this process, open>"
        assert repr(function) == "<RemoteFunction testing.echo on this process>"
    assert repr(session).startswith("<LocalSession this process, closed: ")
    assert repr(function) == "<RemoteFunction testing.echo on this process>"


def test_a_session_with_a_key() -> None:
    """Has the key in front of the address."""
    with rpc.Server(port=0, key="rpi", silent=True) as server, rpc.connect(
        server.host, server.port, key="rpi"
    ) as remote:
        assert remote.address == f"rpi@127.0.0.1:{server.port}"
        assert repr(remote) == f"<RPCSession rpi@127.0.0.1:{server.port}, open>"
