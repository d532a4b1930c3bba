"""Fixtures of the tests with older TVMs. ``pytest harness/peers -k 0.21`` runs those with one.

Each test runs with each peer that can be installed. The peer's programs and scripts run on its own
interpreter, in process groups that are killed at the end.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator, NamedTuple

import pytest

from harness.interop.servers import Launcher

from .environments import PEERS, MissingPeerError, Peer, environment

if TYPE_CHECKING:
    from harness.interop.servers import Program

HERE = Path(__file__).parent
FOLDER = Path(os.environ.get("PYTEST_TVMRPC_PEERS") or HERE.parents[1] / ".tox" / "peers-envs")
"""Where the virtual environments are, from one run to the next."""
SCRIPT_LIMIT_S = 300.0


class Ready(NamedTuple):
    """A peer that is installed."""

    peer: Peer
    python: str

    def run(self, script: str, *arguments: object) -> str:
        """What a script of this folder prints when this peer's interpreter runs it.

        Raises:
            AssertionError: it failed, or took too long.
        """
        command = [self.python, str(HERE / script), *map(str, arguments)]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            output, errors = process.communicate(timeout=SCRIPT_LIMIT_S)
        except subprocess.TimeoutExpired as late:
            raise AssertionError(f"{command}: not done after {late.timeout} s") from None
        finally:
            _kill_group(process)
        assert process.returncode == 0, f"{command}\n{output[-2000:]}\n{errors[-4000:]}"
        return output


def _kill_group(process: subprocess.Popen[str]) -> None:
    """Ends a script and the workers that TVM's tuners leave behind."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def lines_of(output: str) -> list[Any]:
    """The lines of JSON in it; TVM writes its log to the same place."""
    lines = []
    for line in output.splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines


@pytest.fixture(autouse=True)
def _nothing_outlives_a_test() -> None:
    """In place of the repository's guard: the peer's programs serve many tests.

    The launcher looks for what is left at the end.
    """


@pytest.fixture(scope="session", params=PEERS, ids=lambda peer: peer.name)
def ready(request: pytest.FixtureRequest) -> Ready:
    """A peer, installed when it is not yet."""
    try:
        return Ready(request.param, str(environment(request.param, FOLDER)))
    except MissingPeerError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def launcher(ready: Ready, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    """Starts the peer's programs and ours; none of them outlives the tests of this peer."""
    launcher = Launcher(tmp_path_factory.mktemp("programs"), ready.python)
    yield launcher
    launcher.close()


@pytest.fixture(scope="session")
def libraries(ready: Ready, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the peer's own compiler made."""
    folder = tmp_path_factory.mktemp("libraries")
    ready.run("client_cases.py", "compile", folder)
    return folder


@pytest.fixture(scope="session", params=["ours", "native"], ids=["python", "native"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which of our servers: the one in Python, or that in C."""
    return str(request.param)


@pytest.fixture(scope="session")
def our_server(launcher: Launcher, kind: str) -> Program:
    """One of our servers."""
    return launcher.server(kind)


@pytest.fixture(scope="session")
def their_server(launcher: Launcher) -> Program:
    """The peer's server."""
    return launcher.server("tvm")
