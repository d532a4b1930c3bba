"""One suite for every kind of server. ``pytest tests/conformance --conformance=python,tvm``.

``--conformance=HOST:PORT/KEY`` is a server of ours in C on whatever machine, which gets what the
compiler of the environment variable ``CC`` makes.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterator, List

import pytest

from pytest_tvmrpc.errors import CompilerError
from pytest_tvmrpc.runtime.toolchain import compile_library

from .deviations import deviation_of
from .kinds import DEFAULT, Kind, started

if TYPE_CHECKING:
    from pytest_tvmrpc import rpc

    from ..legacy.clients import LegacyClient

ROOT = Path(__file__).parents[2]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which kinds; only heard where this folder is named on the command line."""
    parser.addoption("--conformance", default=",".join(DEFAULT), help="kinds of servers")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test runs once for each kind."""
    if "kind" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--conformance", ",".join(DEFAULT))
        metafunc.parametrize("kind", chosen.split(","), indirect=True, scope="session")


def pytest_collection_modifyitems(items: List[Any]) -> None:
    """What TVM's server is known to do in another way is expected, with its reason."""
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        if parameters.get("kind") == "tvm" and item.path.parent == Path(__file__).parent:
            case = item.callspec.id.replace("tvm", "", 1).lstrip("-")
            deviation = deviation_of(item.path.stem, item.originalname, case)
            if deviation is not None and deviation.is_run:
                item.add_marker(pytest.mark.xfail(reason=deviation.reason, strict=True))
            elif deviation is not None:
                item.add_marker(pytest.mark.skip(reason=deviation.reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: Any, call: Any) -> Iterator[Any]:
    """A server that a test was too much for does not serve the next one."""
    kind = getattr(item, "funcargs", {}).get("kind")
    if call.excinfo is not None and isinstance(kind, Kind):
        kind.doubt()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: Any, nextitem: Any) -> Iterator[None]:
    """A new server is started here, where it belongs to no test that it would outlive."""
    kind = getattr(item, "funcargs", {}).get("kind")
    yield
    if isinstance(kind, Kind) and nextitem is not None:
        kind.renew()


@pytest.fixture(name="kind", scope="session")
def _kind(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kind]:
    """A running server of the kind."""
    with contextlib.ExitStack() as stack:
        try:
            kind = stack.enter_context(started(request.param, tmp_path_factory.mktemp("server")))
        except CompilerError as error:
            pytest.skip(str(error))
        yield kind


@pytest.fixture(name="remote")
def _remote(kind: Kind, deadline_s: float) -> Iterator[rpc.RPCSession]:
    """A session of our client, in which a function can be called at the end."""
    with kind.session(call_timeout=6 * deadline_s) as remote:
        yield remote
        if not remote.closed:
            assert remote.get_function("rpc.test.addone")(1) == 2


@pytest.fixture(name="legacy", params=[8, 13, 16, 20], ids="0.{}".format)
def _legacy(request: Any, kind: Kind, deadline_s: float) -> Iterator[LegacyClient]:
    """A plain connection of a client of an older TVM, which is strict about the answers."""
    with kind.legacy(request.param, deadline_s) as legacy:
        yield legacy
        legacy.shutdown()


Compile = Callable[..., Path]


@pytest.fixture(name="compiled", scope="session")
def _compiled(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """``compiled(source, *options)``: a library made of a file of C, or of a text of it."""
    folder = tmp_path_factory.mktemp("compiled")

    def compiled(source: "Path | str", *options: str) -> Path:
        number = len(os.listdir(folder))
        if isinstance(source, str):
            text, source = source, folder / f"source{number}.c"
            source.write_text(text)
        try:
            return Path(
                compile_library(source, folder / f"{source.stem}{number}.so", options=options)
            )
        except CompilerError as error:
            pytest.skip(str(error))

    return compiled


@pytest.fixture(name="probe", scope="session")
def _probe(compiled: Compile) -> Path:
    """A library of functions that show what a kernel sees."""
    return compiled(ROOT / "harness" / "interop" / "probe.c")


@pytest.fixture(name="old_library", scope="session")
def _old_library(compiled: Compile) -> Path:
    """A library as a compiler of TVM 0.8 to 0.20 makes it."""
    return compiled(ROOT / "tests" / "legacy" / "kernel.c", "-std=c99")


@pytest.fixture(name="module")
def _module(remote: rpc.RPCSession, probe: Path) -> Any:
    """``probe``, uploaded and loaded."""
    remote.upload(probe)
    return remote.load_module(probe.name)
