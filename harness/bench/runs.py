"""P9 and P12: what a whole run of pytest costs. Nothing here looks into one."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

from .child import environment
from .goals import OURS
from .lease import KEY
from .rounds import Contest, Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .bench import Bench

PYTEST_LIMIT_S = 90.0
PLUGIN = ("-p", "pytest_tvmrpc.plugin")
TESTS = {
    "test_remote.py": """\
def test_remote(remote):
    assert remote.get_function("rpc.test.addone")(10) == 11
""",
    "test_local.py": """\
def test_local():
    assert 10 + 1 == 11
""",
    "test_many.py": """\
import os

import pytest


@pytest.mark.parametrize("number", range(int(os.environ["BENCH_TESTS"])))
def test_many(remote, number):
    addone = remote.get_function("rpc.test.addone")
    for _ in range(10):
        assert addone(number) == number + 1
""",
}
REPORTS = (
    *("--rpc-report=run.jsonl", "--rpc-html=run.html", "--rpc-markdown=run.md"),
    *("--junitxml=run.xml", "--rpc-durations=10", "--rpc-summary=full"),
)


def measure_start(bench: Bench) -> None:
    """P9: ours only, as TVM has no plugin. The figures are differences within a round."""
    if bench.stack(OURS) is None:
        bench.add("P9", bench.missing())
        return
    folder = _folder(bench)
    local: list[float] = []

    def more() -> list[float]:
        remote_s = _run_pytest(folder, "test_remote.py")
        local.append(_run_pytest(folder, "test_local.py"))
        return [remote_s - local[-1]]

    def version() -> list[float]:
        with_s, without_s = [], []
        for _ in range(bench.calls(10)):
            with_s.append(_run_pytest(folder, "--version"))
            without_s.append(_run_pytest(folder, "--version", plugin=()))
        return [min(with_s) - min(without_s)]

    entries = Contest(bench.rounds("P9"))
    entries.enter(OURS, lambda: more)
    outcomes = entries.run()
    note = f"the run with a local test takes {_middle(local):.2f} s" if local else ""
    bench.add("P9", outcomes, note)
    entries = Contest(bench.rounds("P9"))
    entries.enter(OURS, lambda: version)
    bench.add("P9.version", entries.run())


def measure_many(bench: Bench) -> None:
    """P12: many short remote tests, on one device, on two, and with every report that there is."""
    if bench.stack(OURS) is None:
        bench.add("P12", bench.missing())
        return
    folder, count = _folder(bench), bench.calls(1000)
    many = ("test_many.py", "--rpc-servers=2")
    figures: dict[str, list[float]] = {"one": [], "gain": [], "reports": []}

    def sample() -> list[float]:
        local_s = _run_pytest(folder, "test_local.py")
        one_s = _run_pytest(folder, *many, tests=count) - local_s
        two_s = _run_pytest(folder, *many, "-n", "2", "-p", "xdist", tests=count)
        idle_s = _run_pytest(folder, "test_local.py", "-n", "2", "-p", "xdist")
        # pytest's own JUnit file is in both: what is measured is our part of it, and our own files.
        junit_s = _run_pytest(folder, *many, "--junitxml=run.xml", tests=count)
        with_reports_s = _run_pytest(folder, *many, *REPORTS, tests=count)
        figures["one"].append(count / one_s)
        figures["gain"].append(one_s / (two_s - idle_s))
        figures["reports"].append((with_reports_s - junit_s) / count)
        return [one_s]

    entries = Contest(bench.rounds("P12"))
    entries.enter(OURS, lambda: sample)
    outcome = entries.run()[OURS]
    for line, name in (("P12", "one"), ("P12.gain", "gain"), ("P12.reports", "reports")):
        figure = outcome if outcome.error else Outcome(tuple(figures[name]))
        bench.add(line, {OURS: figure})


def _middle(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def _folder(bench: Bench) -> Path:
    folder = bench.folder / "pytest"
    folder.mkdir(exist_ok=True)
    for name, text in TESTS.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    return folder


def _run_pytest(
    folder: Path, *arguments: str, tests: int = 1, plugin: Sequence[str] = PLUGIN
) -> float:
    """Seconds of a whole run; only our plugin is loaded, so that runs differ in their tests."""
    ignored = ("TVM_TRACKER_HOST", "TVM_TRACKER_PORT", "TVM_TRACKER_KEY", "PYTEST_ADDOPTS")
    variables = {name: value for name, value in environment().items() if name not in ignored}
    variables.update(PYTEST_DISABLE_PLUGIN_AUTOLOAD="1", BENCH_TESTS=str(tests))
    key = ("--rpc-key", KEY) if plugin else ()
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugin, *key, "-q", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=PYTEST_LIMIT_S,
        check=False,
    )
    elapsed_s = time.perf_counter() - start
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines()[-6:]
        command = " ".join(arguments)
        raise RuntimeError(f"pytest {command} ended with {done.returncode}: {' | '.join(lines)}")
    return elapsed_s
