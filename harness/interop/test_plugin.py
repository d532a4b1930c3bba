"""The plugin at TVM's tracker, with TVM's servers, as somebody has them who has a farm already."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Iterator

import pytest

import pytest_tvmrpc
from pytest_tvmrpc import rpc

from .clients import HOST
from .servers import KEY, Launcher, Program, wait_for_queue

if TYPE_CHECKING:
    from collections.abc import Sequence

LIMIT_S = 50
TESTS = """
import pytest

@pytest.mark.parametrize("number", range(8))
def test_many(remote, number):
    assert remote.get_function("testing.echo")(number) == number
"""
CRASHING = """
import os

def test_before(remote): pass

def test_crash(remote, pytestconfig):
    path = pytestconfig.rootpath / "was_here"
    if not path.exists():
        path.touch()
        os._exit(9)

def test_behind(remote): pass
"""

BENCHMARK = """
def test_measured(remote, remote_benchmark):
    echo = remote.get_function("testing.echo")
    result = remote_benchmark(echo, 1, device=remote.cpu(0), flop=1, min_time_s=0.001)
    assert len(result.samples_s) == 10
    assert 0 < result.min_s <= result.median_s
    assert result.number > 100
    assert result.model == "unknown"  # TVM's servers do not say what they run on
"""


@pytest.fixture(scope="module", params=["tvm", "ours"])
def tracker(request: pytest.FixtureRequest, launcher: Launcher) -> Iterator[Program]:
    """A tracker of either kind with two servers of TVM's."""
    tracker = launcher.tracker(request.param)
    servers = [launcher.server("tvm", KEY, tracker) for _ in range(2)]
    yield tracker
    for program in (*servers, tracker):
        launcher.stop(program)


@pytest.fixture
def arguments(tracker: Program) -> Sequence[str]:
    """What a user writes to use the tracker; both servers are free."""
    with rpc.connect_tracker(HOST, tracker.port) as session:
        wait_for_queue(session, KEY, free=2)
    return (f"--rpc-tracker={HOST}:{tracker.port}", f"--rpc-key={KEY}")


def run_pytest(folder: Path, tests: str, *arguments: str) -> str:
    """What pytest prints with these tests, which have to pass."""
    (folder / "test_it.py").write_text(tests, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    ours = str(Path(pytest_tvmrpc.__file__).parents[1])
    dropped = ("TVM_TRACKER_", "PYTEST_")
    variables = {name: text for name, text in os.environ.items() if not name.startswith(dropped)}
    variables.update(PYTHONPATH=ours, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    plugins = ("-p", "pytest_tvmrpc.plugin", "-p", "xdist", "-p", "no:cacheprovider")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, "-W", "error", *arguments],
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_workers_share_the_devices(tmp_path: Path, arguments: Sequence[str]) -> None:
    """Two workers, two servers: each test passes, and each server had some."""
    shown = run_pytest(tmp_path, TESTS, "-n", "2", "-v", *arguments)
    assert "scheduling tests via FarmScheduling" in shown
    assert "8 passed" in shown
    devices = [line for line in shown.splitlines() if line.startswith(f"{KEY}@{HOST}:")]
    assert len(devices) == 2, shown


def test_auto(tmp_path: Path, arguments: Sequence[str]) -> None:
    """The tracker says how many workers there shall be."""
    shown = run_pytest(tmp_path, TESTS, "-n", "auto", *arguments)
    assert f"rpc: 2 workers, as the tracker has 2 {KEY}, 2 free" in shown


def test_a_crashed_worker_frees_its_device(tmp_path: Path, arguments: Sequence[str]) -> None:
    """The test runs again in another worker, and no device is missing afterwards."""
    shown = run_pytest(tmp_path, CRASHING, "-n", "2", "--rpc-reruns=1", *arguments)
    assert "3 passed" in shown
    assert "crashed while running" in shown


def test_a_benchmark(tmp_path: Path, arguments: Sequence[str]) -> None:
    """TVM's server measures what `remote_benchmark` asks for; the next run finds the result."""
    shown = run_pytest(tmp_path, BENCHMARK, "--rpc-bench-save=main", *arguments)
    assert f"saved as 'main': .rpc-benchmarks/unknown-{KEY}/" in shown
    shown = run_pytest(tmp_path, BENCHMARK, "--rpc-bench-compare=main", *arguments)
    (row,) = [line for line in shown.splitlines() if line.startswith(f"{KEY} ")]
    assert " main " in row
    assert row.endswith("test_it.py::test_measured testing.echo")
    assert "COMPARED" not in shown
