"""A run without remote tests starts nothing and imports nothing of the stack."""

from __future__ import annotations

import subprocess
import sys
from typing import Callable

import pytest

Run = Callable[..., pytest.RunResult]

STACK = ("client", "server", "session", "tracker", "protocol", "runtime", "background", "network")

SPY = """
    import multiprocessing, os, socket, subprocess, sys, threading

    def refuse(*arguments, **options):
        raise AssertionError("a run without remote tests started something")

    subprocess.Popen.__init__ = refuse
    socket.socket.__init__ = refuse
    threading.Thread.start = refuse

    def pytest_unconfigure(config):
        stack = [name for name in sys.modules if name.startswith("pytest_tvmrpc.")]
        print("\\nloaded:", " ".join(sorted(stack)))
"""


@pytest.mark.parametrize(
    "arguments", [("-p", "no:xdist"), ("-n", "0"), ("-p", "no:terminal"), ("-q",)]
)
def test_a_local_run_starts_nothing(
    plain: pytest.Pytester, run_apart: Run, arguments: "tuple[str, ...]"
) -> None:
    """No process, no socket, no thread, and no module of the stack."""
    plain.makeconftest(SPY)
    plain.makepyfile("def test_local(): pass")
    result = run_apart("-s", *arguments)
    assert result.ret == 0
    loaded = next(line for line in result.outlines if line.startswith("loaded:"))
    assert not [part for part in STACK if f"pytest_tvmrpc.{part}" in loaded.split()]
    result.stdout.no_fnmatch_line("*remote devices*")


@pytest.mark.parametrize("arguments", [("--collect-only",), ("--co", "-q"), ("--co", "-n", "2")])
def test_collecting_starts_nothing(
    plain: pytest.Pytester, run_apart: Run, arguments: "tuple[str, ...]"
) -> None:
    """--collect-only shows the parametrised tests, and starts nothing."""
    plain.makeconftest(SPY)
    plain.makepyfile("def test_remote(remote): pass")
    result = run_apart("-s", "--rpc-key=b", "--rpc-key=a", *arguments)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*test_remote[[]b[]]*", "*test_remote[[]a[]]*"])
    assert any(line.startswith("loaded:") for line in result.outlines)


def test_importing_the_plugin_is_light() -> None:
    """Neither the stack nor numpy, nor anything else that pytest does not load by itself."""
    code = (
        "import sys, pytest; before = set(sys.modules); import pytest_tvmrpc.plugin; "
        "print(*sorted(set(sys.modules) - before))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    ours = {
        "pytest_tvmrpc",
        "pytest_tvmrpc.errors",
        "pytest_tvmrpc.fixtures",
        "pytest_tvmrpc.fixtures.devices",
        "pytest_tvmrpc.fixtures.remote",
        "pytest_tvmrpc.fixtures.stack",
        "pytest_tvmrpc.options",
        "pytest_tvmrpc.plugin",
    }
    assert set(result.stdout.split()) <= ours
