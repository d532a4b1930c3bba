"""A server of which each session is a process of another program: all as with its own sessions."""

from __future__ import annotations

from typing import Any, Iterator

import pytest

from pytest_tvmrpc import rpc, runtime
from pytest_tvmrpc.errors import (
    CompilerError,
    RemoteError,
    RPCSessionTimeoutError,
    SessionCrashedError,
)
from pytest_tvmrpc.runtime.native_programs import build_server
from pytest_tvmrpc.runtime.toolchain import compile_library

CRASHES = """
#include <stdio.h>
#include <stdlib.h>
#define FUNCTION(name) int __tvm_ffi_##name(void *self, const void *args, int count, void *result)
FUNCTION(say) { return puts("said") < 0 || fflush(stdout); }
FUNCTION(crash) { abort(); }
FUNCTION(leave) { exit(3); }
"""


@pytest.fixture(name="served", scope="module")
def _served() -> Iterator[rpc.Server]:
    """A server whose sessions are the program in C."""
    try:
        program = build_server(kind="popen")
    except CompilerError as error:
        pytest.skip(str(error))
    with rpc.Server(port=0, silent=True, session_program=program) as server:
        yield server


@pytest.fixture(name="library", scope="module")
def _library(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("crashes")
    (folder / "crashes.c").write_text(CRASHES)
    return compile_library(folder / "crashes.c", folder / "crashes.so", options=["-w"])


def connect(server: rpc.Server, **options: Any) -> rpc.RPCSession:
    """A session with it."""
    return rpc.connect(server.host, server.port, **options)


def test_a_session(served: rpc.Server) -> None:
    """Functions, files, small tensors, whose memory the client numbers, and large ones."""
    for _ in range(3):
        with connect(served) as session:
            assert session.get_function("rpc.test.addone")(1) == 2
            session.upload(b"content", "file")
            assert session.listdir() == "file"
            small = [runtime.tensor([float(n), 2.0], session.cpu(0)) for n in range(20)]
            assert [tensor.numpy().tolist()[0] for tensor in small] == list(range(20))
            session.upload(bytes(1 << 20), "large")
            assert len(session.download("large")) == 1 << 20


def test_what_it_prints(served: rpc.Server, library: str) -> None:
    """It is kept by the server, as that of other sessions."""
    with connect(served) as session:
        session.upload(library)
        session.load_module("crashes.so")["say"]()
        printed = session.output()
        assert printed is not None
        assert printed.text == "said\n"


@pytest.mark.parametrize(
    ("name", "how"), [("crash", "was killed by SIGABRT"), ("leave", "exited with 3")]
)
def test_it_ends(served: rpc.Server, library: str, name: str, how: str) -> None:
    """The words are those for a session of Python that ends in this way."""
    told = []
    with rpc.Server(port=0, silent=True) as plain:
        for server in (plain, served):
            with connect(server) as session:
                session.upload(library)
                module = session.load_module("crashes.so")
                module["say"]()
                with pytest.raises(SessionCrashedError) as caught:
                    module[name]()
                told.append(str(caught.value))
    assert told[0] == told[1]
    assert told[0].startswith(f"the session's process {how} while it served a request")
    assert told[0].endswith("printed last:\nsaid")
    with connect(served) as session:
        assert session.get_function("rpc.test.addone")(1) == 2


def test_its_time_is_up(served: rpc.Server, deadline_s: float) -> None:
    """The program ends with the session, though it is in a call."""
    with connect(served, session_timeout=deadline_s / 10) as session, pytest.raises(
        RPCSessionTimeoutError, match="s session has expired"
    ):
        session.get_function("testing.sleep")(1000.0)


@pytest.mark.parametrize(
    ("program", "message"),
    [("/no/such/program", "does not exist"), ("/bin/true", "exited with 0")],
)
def test_no_such_program(program: str, message: str) -> None:
    """Each client is told why it has no session."""
    with rpc.Server(port=0, silent=True, session_program=program) as server:
        for _ in range(2):
            with pytest.raises(RemoteError, match=message):
                connect(server)
