"""A pytest inside the test: in a folder of its own, with our plugin and none of our environment."""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Callable, Iterator, List

import pytest

import pytest_tvmrpc
from pytest_tvmrpc.errors import CompilerError
from pytest_tvmrpc.runtime.toolchain import compile_library

from .farms import ACTS, Farm

PLUGIN = "pytest_tvmrpc.plugin"
OTHERS = ("rerunfailures", "timeout", "html", "randomly", "pytest_cov", "hypothesispytest")
"""Plugins that may be installed, and are left out unless a test is about them. (Hypothesis takes a
third of the time in which a pytest starts.)"""
KEPT = ("PYTEST_TVMRPC_GUARD", "PYTEST_TVMRPC_TEST_TIMEOUT_FACTOR")  # of the outer run

Run = Callable[..., pytest.RunResult]


@pytest.fixture(name="loading", scope="session")
def _loading() -> List[str]:
    """The arguments that load the plugin, if its entry point is not installed, and no other."""
    points = entry_points(group="pytest11")
    out = [word for point in points if point.name in OTHERS for word in ("-p", f"no:{point.name}")]
    installed = any(point.value == PLUGIN for point in points)
    return out if installed else [*out, "-p", PLUGIN]


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


@pytest.fixture(name="faults", scope="session")
def _faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of kernels that go wrong."""
    output = tmp_path_factory.mktemp("faults") / "faults.so"
    try:
        return Path(compile_library(Path(__file__).with_name("faults.c"), output))
    except CompilerError as error:
        pytest.skip(str(error))


@pytest.fixture(name="acts")
def _acts(plain: pytest.Pytester) -> None:
    """``from acts import kill``, for the tests of the pytest inside."""
    plain.makepyfile(acts=ACTS)


@pytest.fixture(name="farm")
def _farm(plain: pytest.Pytester, acts: None) -> Iterator[Farm]:
    """A tracker of somebody else, on which there are two devices of the key `board`."""
    with Farm("board", "board") as farm:
        farm.write(plain.path)
        yield farm


@pytest.fixture(name="lone")
def _lone(plain: pytest.Pytester, acts: None) -> Iterator[Farm]:
    """The same with a single device."""
    with Farm("board") as farm:
        farm.write(plain.path)
        yield farm


@pytest.fixture(name="_farm_of_module", scope="module")
def _farm_of_module() -> Iterator[Farm]:
    with Farm("board", "board") as farm:
        yield farm


@pytest.fixture(name="lasting_farm")
def _lasting_farm(
    _farm_of_module: Farm, plain: pytest.Pytester, acts: None, wait_until: Callable[..., None]
) -> Farm:
    """The same for tests that leave it as it was; all its devices are free."""
    _farm_of_module.write(plain.path)
    wait_until(lambda: len(_farm_of_module.free()) == 2, "both devices are free")
    return _farm_of_module


@pytest.fixture(name="start")
def _start(
    plain: pytest.Pytester, loading: List[str]
) -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """``start(*arguments)``: a pytest that goes on beside the test, in a group of its own."""
    with contextlib.ExitStack() as stack:

        def start(*arguments: str) -> "subprocess.Popen[bytes]":
            command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *loading]
            process = subprocess.Popen(
                [*command, *arguments],
                cwd=plain.path,
                stdout=stack.enter_context(open(plain.path / "output.txt", "wb")),
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        yield start
