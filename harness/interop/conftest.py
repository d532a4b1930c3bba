"""Fixtures of the interop tests: who talks to whom, and for how long. ``pytest harness/interop``.

Each test runs with several pairs of client and server; ``-k control``, ``-k tvm-to-ours`` and
``-k ours-to-tvm`` choose one. ``control`` is TVM with itself: it shows that the test is right.
"""

from __future__ import annotations

import faulthandler
import signal
from typing import TYPE_CHECKING, Any, Iterator, NamedTuple

import pytest

from .clients import CLIENTS, Client
from .libraries import build_library, build_tvm_library
from .servers import KEY, Farm, Launcher, Program, Station, wait_for_queue

if TYPE_CHECKING:
    from pathlib import Path

LIMIT_S = 60
"""Of a test with its fixtures. TVM waits without limit in places; a signal ends those waits."""
LAST_LIMIT_S = 30
"""When, after that, the run is given up because even the signal did not end a test."""


class Pair(NamedTuple):
    """A client's kind and a server's."""

    client: str
    server: str


PAIRS = {
    "control": Pair("tvm", "tvm"),
    "tvm-to-ours": Pair("tvm", "ours"),
    "ours-to-tvm": Pair("ours", "tvm"),
    "tvm-to-native": Pair("tvm", "native"),
    "ours-to-native": Pair("ours", "native"),
}


class Cast(NamedTuple):
    """Who is who around a tracker: the kinds of client, tracker and server."""

    client: str
    tracker: str
    server: str


FARMS = {
    "control": Cast("tvm", "tvm", "tvm"),
    "tvm-to-ours": Cast("tvm", "ours", "ours"),
    "ours-to-tvm": Cast("ours", "tvm", "tvm"),
    "tvm-server-at-our-tracker": Cast("ours", "ours", "tvm"),
    "our-server-at-tvm-tracker": Cast("tvm", "tvm", "ours"),
    "tvm-to-native": Cast("tvm", "ours", "native"),
    "tvm-native-at-tvm-tracker": Cast("tvm", "tvm", "native"),
}


class LimitError(Exception):
    """A test took too long."""


def pytest_configure(config: pytest.Config) -> None:
    """The mark of a test that is many."""
    config.addinivalue_line("markers", f"limit_s(seconds): of the test, in place of {LIMIT_S}")


@pytest.hookimpl(wrapper=True, trylast=True)  # inside pytest's own, which sets the same timer
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Limits a test's time: by a signal, and by the end of the run if that has no effect."""
    mark = item.get_closest_marker("limit_s")
    limit_s = LIMIT_S if mark is None else mark.args[0]

    def out_of_time(signum: int, frame: Any) -> None:
        raise LimitError(f"not done after {limit_s} s")

    previous = signal.signal(signal.SIGALRM, out_of_time)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    faulthandler.dump_traceback_later(limit_s + LAST_LIMIT_S, exit=True)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, previous)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Iterator[None]:
    """Shows the server's log with a failure, and has the next test begin with a new server."""
    report: Any = yield
    for place in getattr(item, "funcargs", {}).values():
        if report.failed and isinstance(place, (Station, Farm)):
            report.sections.append(("server log", place.log()[-4000:]))
            place.suspect = True
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Forgives TVM's client the files that it leaves to the garbage collector."""
    for item in items:
        name = item.name.partition("[")[2]
        if name.startswith(("control", "tvm-", "our-server")):
            item.add_marker(pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"))


@pytest.fixture(autouse=True)
def _nothing_outlives_a_test() -> None:
    """In place of the repository's guard: a server here serves many tests, and is replaced in one.

    The launcher looks for what is left at the end of the run.
    """


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    """Starts servers and trackers; none of them outlives the run."""
    launcher = Launcher(tmp_path_factory.mktemp("programs"))
    yield launcher
    launcher.close()


@pytest.fixture(scope="session", params=list(PAIRS))
def pair(request: pytest.FixtureRequest) -> Pair:
    """Who talks to whom."""
    return PAIRS[request.param]


@pytest.fixture(scope="session")
def client(pair: Pair) -> Client:
    """The client of the pair."""
    return CLIENTS[pair.client]()


@pytest.fixture(scope="session")
def station(pair: Pair, launcher: Launcher) -> Iterator[Station]:
    """The place of the pair's server, for tests that break it: ``station.suspect = True``."""
    station = Station(launcher, pair.server)
    yield station
    station.close()


@pytest.fixture
def server(station: Station) -> Program:
    """The server of the pair, in working order."""
    return station.server()


@pytest.fixture
def remote(client: Client, server: Program) -> Iterator[Any]:
    """A session of the pair's client on the pair's server."""
    with client.connect(server) as session:
        yield session


@pytest.fixture(scope="session")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of ``probe.c``, compiled by the system's C compiler."""
    return build_library(tmp_path_factory.mktemp("probe"))


@pytest.fixture(scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library compiled by TVM for this machine."""
    return build_tvm_library(tmp_path_factory.mktemp("kernels"))


@pytest.fixture
def module(remote: Any, probe: Path) -> Any:
    """``probe.c``, uploaded and loaded."""
    remote.upload(str(probe))
    return remote.load_module(probe.name)


@pytest.fixture(scope="session", params=list(FARMS))
def cast(request: pytest.FixtureRequest) -> Cast:
    """Who is client, tracker and server."""
    return FARMS[request.param]


@pytest.fixture(scope="session")
def farm_client(cast: Cast) -> Client:
    """The client of the cast."""
    return CLIENTS[cast.client]()


@pytest.fixture(scope="session")
def standing_farm(cast: Cast, launcher: Launcher) -> Iterator[Farm]:
    """A tracker and a server for many tests."""
    farm = Farm(launcher, cast.tracker, cast.server)
    yield farm
    farm.close()


@pytest.fixture
def farm(standing_farm: Farm) -> Farm:
    """A tracker and a server that is registered there, in working order."""
    standing_farm.renew()
    return standing_farm


@pytest.fixture
def tracker(farm_client: Client, farm: Farm) -> Iterator[Any]:
    """The client's connection to the tracker; the farm's one server is free."""
    with farm_client.connect_tracker(farm.tracker) as tracker:
        wait_for_queue(tracker, KEY, free=1)
        yield tracker
