"""The client of each age with our server, tracker and proxy."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Dict, Optional

import pytest

from harness.interop.clients import HOST
from harness.interop.servers import KEY

from .conftest import HERE, Ready, lines_of

if TYPE_CHECKING:
    from pathlib import Path

    from harness.interop.servers import Launcher, Program

CASES = re.findall(r"^def case_(\w+)", (HERE / "client_cases.py").read_text(), re.MULTILINE)
AT_A_TRACKER = ["tracker_summary", "tracker_request", "tracker_request_and_run"]
Problems = Dict[str, Optional[str]]


def problems(ready: Ready, verb: str, program: Program, libraries: Path) -> Problems:
    """What went wrong in each case; None where nothing did."""
    output = ready.run("client_cases.py", verb, HOST, program.port, KEY, libraries)
    return {line["case"]: line["problem"] for line in lines_of(output)}


@pytest.fixture(scope="session")
def direct(ready: Ready, our_server: Program, libraries: Path) -> Problems:
    """The peer's client, connected to our server."""
    return problems(ready, "direct", our_server, libraries)


@pytest.fixture(scope="session")
def proxied(ready: Ready, launcher: Launcher, libraries: Path, kind: str) -> Problems:
    """The peer's client at our proxy, which has our server."""
    proxy = launcher.proxy("ours")
    launcher.server(kind, proxy=proxy)
    return problems(ready, "direct", proxy, libraries)


@pytest.fixture(scope="session")
def tracked(ready: Ready, launcher: Launcher, libraries: Path, kind: str) -> Problems:
    """The peer's client at our tracker, which has our server."""
    tracker = launcher.tracker("ours")
    launcher.server(kind, tracker=tracker)
    return problems(ready, "tracker", tracker, libraries)


@pytest.fixture(scope="session")
def crossed(ready: Ready, launcher: Launcher, libraries: Path, kind: str) -> Problems:
    """The peer's client at the peer's own tracker, which has our server."""
    tracker = launcher.tracker("tvm")
    launcher.server(kind, tracker=tracker)
    return problems(ready, "tracker", tracker, libraries)


@pytest.mark.parametrize("case", CASES)
def test_at_our_server(direct: Problems, case: str) -> None:
    """Values, tensors, files, errors, and libraries that the peer's own compiler made."""
    assert direct[case] is None, direct[case]


@pytest.mark.parametrize("case", CASES)
def test_through_our_proxy(proxied: Problems, case: str) -> None:
    """The same, with a proxy of ours between client and server."""
    assert proxied[case] is None, proxied[case]


@pytest.mark.parametrize("case", AT_A_TRACKER)
def test_at_our_tracker(tracked: Problems, case: str) -> None:
    """It sees our server there, and gets a session on it."""
    assert tracked[case] is None, tracked[case]


@pytest.mark.parametrize("case", AT_A_TRACKER)
def test_our_server_at_their_tracker(crossed: Problems, case: str) -> None:
    """Our server registers at the peer's tracker, and serves whom that sends."""
    assert crossed[case] is None, crossed[case]


def test_every_case_was_run(direct: Any, proxied: Any, tracked: Any, crossed: Any) -> None:
    """A script that says less than it should is no success."""
    assert set(direct) == set(proxied) == set(CASES)
    assert set(tracked) == set(crossed) == set(AT_A_TRACKER)
