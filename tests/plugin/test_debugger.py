"""pytest --pdb keeps the device, and says so."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Callable, List

import pytest

if TYPE_CHECKING:
    from .farms import Farm

STOPS = """
    import sys
    from acts import FARM, add_one
    from pytest_tvmrpc import rpc

    def held():
        "The devices that are held, as the tracker says; for the debugger."
        with rpc.connect_tracker(*FARM["tracker"]) as tracker:
            return [str(s.port) for s in tracker.who().servers if s.holder is not None]

    def test_stops(remote):
        assert add_one(remote) == 3

    def test_after(remote):
        assert len(held()) == 1

    def test_local():
        assert 0
"""


@pytest.fixture(name="debug")
def _debug(
    plain: pytest.Pytester, loading: List[str], lasting_farm: Farm, deadline_s: float
) -> Callable[..., str]:
    """``debug(commands, *arguments)``: what a pytest prints that reads them from its stdin."""
    plain.makepyfile(STOPS)

    def debug(commands: str, *arguments: str) -> str:
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--pdb", *loading]
        done = subprocess.run(
            [*command, *lasting_farm.arguments, *arguments],
            cwd=plain.path,
            input=commands,
            capture_output=True,
            text=True,
            timeout=6 * deadline_s,
        )
        assert not done.stderr
        return done.stdout

    return debug


def test_the_device_stays_leased(debug: Callable[..., str], lasting_farm: Farm) -> None:
    """It can be used at the prompt; to go on gives it back, and a local test has nothing to say."""
    text = debug("p held()\np add_one(remote, 40)\ncontinue\ncontinue\n")
    ports = [name.rpartition(":")[2] for name in lasting_farm.servers]
    (line,) = (line for line in text.splitlines() if "leased while you debug" in line)
    port = line.rpartition(":")[2]
    assert line == f"rpc: leased while you debug: board@127.0.0.1:{port}"
    assert port in ports
    assert f"(Pdb) ['{port}']" in text
    assert "(Pdb) 41" in text
    assert "rpc: its server ends the session an hour after the last call" in text
    assert "2 failed, 1 passed" in text
    lasting_farm.settle()


def test_a_session_with_a_limit(
    debug: Callable[..., str], lasting_farm: Farm, wait_until: Callable[..., None]
) -> None:
    """It is said how much of it is left; to quit gives the device back."""
    text = debug("quit\n", "--rpc-session-timeout=90")
    assert "rpc: the session ends in 9" in text or "rpc: the session ends in 8" in text
    assert "(option: --rpc-session-timeout)" in text
    assert "Quitting debugger" in text
    assert "1 failed in" in text
    wait_until(lambda: len(lasting_farm.free()) == 2, "the device is free")
