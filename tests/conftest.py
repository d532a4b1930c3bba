"""For all tests: how hypothesis looks for examples, and which kinds of servers there are.

Examples are the same in each run, and none is kept in a file.
"""

from __future__ import annotations

import functools
import os
from typing import Any, Callable

import pytest
from hypothesis import settings

from pytest_tvmrpc import rpc
from pytest_tvmrpc.errors import CompilerError
from pytest_tvmrpc.runtime import native_programs
from pytest_tvmrpc.server.launch import NativeServer

settings.register_profile("stable", derandomize=True, deadline=None, database=None)
settings.load_profile("stable")


def pytest_configure(config: pytest.Config) -> None:
    """Markers of these tests."""
    config.addinivalue_line("markers", "each_kind: with the server in Python, and with that in C")
    config.addinivalue_line("markers", "python_only(reason): not with the server in C")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Has a test of `each_kind` run with each kind of server."""
    marked = metafunc.definition.get_closest_marker
    if "server_kind" in metafunc.fixturenames and marked("each_kind"):
        kinds = ["python"] if marked("python_only") else ["python", "native"]
        metafunc.parametrize("server_kind", kinds, indirect=True, scope="module")


@pytest.fixture(name="server_kind", scope="module")
def _server_kind(request: pytest.FixtureRequest) -> str:
    """``python`` or ``native``: what the fixtures that start servers start."""
    kind: str = getattr(request, "param", "python")
    if kind == "native":
        request.getfixturevalue("native_server")
    return kind


@pytest.fixture(name="native_server", scope="session")
def _native_server() -> str:
    """The path of the server in C: one for this machine, or PYTEST_TVMRPC_NATIVE_SERVER."""
    try:
        return os.environ.get("PYTEST_TVMRPC_NATIVE_SERVER") or native_programs.build_server()
    except CompilerError as error:
        pytest.skip(str(error))


@pytest.fixture(name="launch", scope="module")
def _launch(request: pytest.FixtureRequest, server_kind: str) -> Callable[..., Any]:
    """``launch(**options)``: `rpc.Server` or `NativeServer`."""
    if server_kind == "python":
        return rpc.Server
    return functools.partial(NativeServer, request.getfixturevalue("native_server"))
