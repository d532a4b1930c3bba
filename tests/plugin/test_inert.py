"""A run without remote tests starts nothing and imports nothing of the stack."""

from __future__ import annotations

import subprocess
import sys
from typing import Callable, List, Set

import pytest

Run = Callable[..., pytest.RunResult]
Arguments = "tuple[str, ...]"

STACK = (
    *("client", "server", "session", "tracker", "proxy", "protocol", "runtime", "background"),
    *("network", "rpc", "exec"),
)

SPY = """
    import os, platform, socket, subprocess, sys, threading
    import pytest

    platform.platform()  # asks a program, once, on behalf of others

    def refuse(*arguments, **options):
        raise AssertionError("a run without remote tests started something")

    start_thread = threading.Thread.start

    def start(thread):
        if not type(thread).__module__.startswith("execnet") and "execnet" not in repr(
            getattr(thread, "_target", None)
        ):
            refuse()
        start_thread(thread)

    socket.socket.__init__ = refuse
    threading.Thread.start = start
    IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ
    if IS_WORKER or not any(word in ("-n", "2") for word in sys.argv):
        subprocess.Popen.__init__ = refuse

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure():
        loaded = [name for name in sys.modules if name.startswith("pytest_tvmrpc.")]
        place = os.environ.get("PYTEST_XDIST_WORKER", "main")
        with open(f"loaded-{place}", "w") as file:
            print(*loaded, file=file)
"""

PLUGIN = {
    *("pytest_tvmrpc", "pytest_tvmrpc.plugin", "pytest_tvmrpc.options", "pytest_tvmrpc.settings"),
    "pytest_tvmrpc.fixtures",
    *(f"pytest_tvmrpc.fixtures.{name}" for name in ("artifacts", "benchmark", "devices")),
    *(f"pytest_tvmrpc.fixtures.{name}" for name in ("remote", "wider")),
}
"""What is loaded with the plugin."""

COLLECTING = {
    *("pytest_tvmrpc.hooks", "pytest_tvmrpc.running", "pytest_tvmrpc.running.selection"),
    # for the header
    *("pytest_tvmrpc.running.capacity", "pytest_tvmrpc.reporting"),
    *("pytest_tvmrpc.reporting.terminal", "pytest_tvmrpc.wording"),
}
"""What is loaded when tests are only collected."""


@pytest.fixture(autouse=True)
def _no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The spy looks for what the outer run may have, too."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)


def loaded(plain: pytest.Pytester, place: str = "main") -> Set[str]:
    """The modules of ours that a process of the run had at its end."""
    return set((plain.path / f"loaded-{place}").read_text().split())


def of_the_stack(names: Set[str]) -> Set[str]:
    return {name for name in names if name.split(".")[1] in STACK}


@pytest.mark.parametrize(
    "arguments",
    [
        *(("-p", "no:xdist"), ("-n", "0"), ("-p", "no:terminal"), ("-q",), ("-x", "--lf")),
        *(("-p", "no:cacheprovider"), ("--rpc-key=a", "--rpc-key=b", "--rpc-summary=full")),
        ("--rpc-durations=5", "--rpc-reruns=2", "--rpc-tracker=127.0.0.1:1"),
    ],
    ids=" ".join,
)
def test_a_local_run_starts_nothing(
    plain: pytest.Pytester, run_apart: Run, arguments: Arguments
) -> None:
    """No process, no socket, no thread, and no module of the stack."""
    plain.makeconftest(SPY)
    plain.makepyfile("def test_local(): pass")
    result = run_apart(*arguments)
    assert result.ret == 0
    names = loaded(plain)
    assert "pytest_tvmrpc.plugin" in names
    # An address is checked by the one module that reads them.
    allowed = {"pytest_tvmrpc.network"} if "--rpc-tracker" in str(arguments) else set()
    assert of_the_stack(names) <= allowed
    result.stdout.no_fnmatch_line("*= remote devices =*")


def test_workers_of_a_local_run_start_nothing(plain: pytest.Pytester, run_apart: Run) -> None:
    """Under pytest-xdist, too: neither the controller nor a worker does."""
    pytest.importorskip("xdist")
    plain.makeconftest(SPY)
    plain.makepyfile("def test_a(): pass\ndef test_b(): pass\ndef test_c(): pass")
    result = run_apart("-n", "2")
    result.assert_outcomes(passed=3)
    for place in ("main", "gw0", "gw1"):
        names = loaded(plain, place)
        assert "pytest_tvmrpc.plugin" in names
        assert not of_the_stack(names)
    assert not list(plain.path.parent.rglob("tvmrpc-*"))
    result.stdout.no_fnmatch_line("*= remote devices =*")


@pytest.mark.parametrize("arguments", [(), ("-n", "2")], ids=" ".join)
def test_the_spy_sees(
    plain: pytest.Pytester, loading: List[str], deadline_s: float, arguments: Arguments
) -> None:
    """A run with a remote test is found out, with and without workers."""
    plain.makeconftest(SPY)
    plain.makepyfile("def test_remote(remote): pass")
    arguments = (*loading, "--rpc-connect-timeout=1", *arguments)
    result = plain.runpytest_subprocess(*arguments, timeout=6 * deadline_s)
    assert result.ret != 0
    assert "started something" in result.stdout.str() + result.stderr.str()
    assert of_the_stack(loaded(plain))


@pytest.mark.parametrize(
    "arguments",
    [
        *(("--collect-only",), ("--co", "-q"), ("--co", "-n", "2"), ("--co", "-p", "no:xdist")),
        *(("--co", "-x", "--lf"), ("--co", "-p", "no:cacheprovider")),
    ],
    ids=" ".join,
)
def test_collecting_starts_nothing(
    plain: pytest.Pytester, run_apart: Run, arguments: Arguments
) -> None:
    """--collect-only shows the parametrised tests, and starts nothing."""
    plain.makeconftest(SPY)
    plain.makepyfile("def test_remote(remote): pass")
    keys = ("--rpc-key=b", "--rpc-key=a")
    result = run_apart(*keys, *arguments)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*test_remote[[]b[]]*", "*test_remote[[]a[]]*"])
    assert loaded(plain) <= PLUGIN | COLLECTING


def test_collecting_writes_nothing(plain: pytest.Pytester, run: Run) -> None:
    """The reports of the last run stay as they are."""
    plain.makepyfile("def test_remote(remote): pass")
    reports = [plain.path / name for name in ("run.jsonl", "farm.html", "farm.md")]
    for report in reports:
        report.write_text("of the last run")
    names = ("--rpc-report=run.jsonl", "--rpc-html=farm.html", "--rpc-markdown=farm.md")
    result = run("--co", *names, "--rpc-bench-save=main", "--rpc-artifacts=on", "--rpc-progress")
    assert result.ret == 0
    assert [report.read_text() for report in reports] == 3 * ["of the last run"]
    result.stdout.no_fnmatch_line("rpc: wrote*")
    assert not list(plain.path.glob("*rpc-[ab]*"))


@pytest.mark.parametrize("arguments", [("--version",), ("-VV",), ("--help",), ("--markers",)])
def test_what_pytest_tells_starts_nothing(
    plain: pytest.Pytester, run_apart: Run, arguments: Arguments
) -> None:
    """Even if the tracker that the settings name is not there."""
    plain.makeini("[pytest]\nrpc_tracker = 127.0.0.1:1\n")
    plain.makeconftest(SPY)
    assert run_apart(*arguments).ret == 0


def modules_after(code: str) -> Set[str]:
    """What a piece of code imports that pytest does not load by itself."""
    program = (
        "import sys, pytest\n"
        "parser = pytest.Parser(_ispytest=True)\n"
        f"before = set(sys.modules)\n{code}\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


def test_importing_the_plugin_is_light() -> None:
    """Its own few modules; no other of ours, not numpy, and nothing else that pytest lacks."""
    assert modules_after("import pytest_tvmrpc.plugin") == PLUGIN


def test_declaring_the_options_is_light() -> None:
    """What pytest has done before it shows its version: no more modules than that."""
    code = "from pytest_tvmrpc import plugin; plugin.pytest_addoption(parser)"
    assert modules_after(code) == PLUGIN
