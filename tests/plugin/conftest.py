"""A pytest inside the test: in a folder of its own, with our plugin and none of our environment."""

from __future__ import annotations

import importlib
import os
import pkgutil
from importlib.metadata import entry_points
from pathlib import Path
from typing import Callable, List

import pytest

import pytest_tvmrpc

PLUGIN = "pytest_tvmrpc.plugin"
KEPT = ("PYTEST_TVMRPC_GUARD", "PYTEST_TVMRPC_TEST_TIMEOUT_FACTOR")  # of the outer run

Run = Callable[..., pytest.RunResult]


@pytest.fixture(name="loading", scope="session")
def _loading() -> List[str]:
    """The arguments that load the plugin; none when its entry point is installed."""
    installed = any(point.value == PLUGIN for point in entry_points(group="pytest11"))
    return [] if installed else ["-p", PLUGIN]


@pytest.fixture(name="plain")
def _plain(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A pytester without settings for the plugin from the outer run."""
    for name in os.environ:
        if name.startswith(("TVM_TRACKER_", "PYTEST_TVMRPC_")) and name not in KEPT:
            monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", str(Path(pytest_tvmrpc.__file__).parents[1]))
    return pytester


@pytest.fixture(name="_everything", scope="session")
def _everything() -> None:
    """Loads what the plugin loads on demand.

    A pytest in this process forgets at its end what it was the first to import. Classes of ours
    would be there twice then, and one half of the later tests would not know the other half's.
    """
    for module in pkgutil.walk_packages(pytest_tvmrpc.__path__, "pytest_tvmrpc."):
        if module.name != PLUGIN and not module.name.endswith("__main__"):
            importlib.import_module(module.name)


@pytest.fixture(name="run")
def _run(plain: pytest.Pytester, loading: List[str], _everything: None) -> Run:
    """``run("-x")``: pytest in this process, with warnings as errors and no internal error."""

    def run(*arguments: str) -> pytest.RunResult:
        result = plain.runpytest_inprocess(*loading, "-W", "error", *arguments)
        result.stdout.no_fnmatch_line("*INTERNALERROR*")
        return result

    return run


@pytest.fixture(name="run_apart")
def _run_apart(plain: pytest.Pytester, loading: List[str], deadline_s: float) -> Run:
    """The same in a process of its own, as -n needs it; ended when it takes too long."""

    def run_apart(*arguments: str) -> pytest.RunResult:
        result = plain.runpytest_subprocess(
            *loading, "-W", "error", *arguments, timeout=6 * deadline_s
        )
        result.stdout.no_fnmatch_line("*INTERNALERROR*")
        return result

    return run_apart
