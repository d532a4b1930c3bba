"""P8 and P9: how long it takes until something can be used."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from .child import environment
from .goals import BARE, OURS
from .lease import KEY
from .rounds import Contest, Sampler
from .watch import TrackerWatch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .bench import Bench
    from .peers import Address, Stack

PYTEST_LIMIT_S = 90.0
TESTS = {
    "test_remote.py": """\
def test_remote(remote):
    assert remote.get_function("rpc.test.addone")(10) == 11
""",
    "test_local.py": """\
def test_local():
    assert 10 + 1 == 11
""",
}


def measure_programs(bench: Bench) -> None:
    """P8. Importing a package is not part of it, in either column."""
    entries = bench.contest("P8", {})
    for stack in bench.stacks:
        entries.enter(stack.name, lambda stack=stack: _tracker_sampler(stack))  # type: ignore[misc]
    if bench.with_bare:
        entries.enter(BARE, lambda: _bare_start)
    bench.add("P8.tracker", entries.run())
    entries = bench.contest("P8", {})
    with contextlib.ExitStack() as owner:
        for stack in bench.stacks:
            entries.enter(stack.name, _server_sampler(stack, owner))
        if bench.with_bare:
            entries.enter(BARE, lambda: _bare_start)
        bench.add("P8.server", entries.run())


def _tracker_sampler(stack: Stack) -> Sampler:
    def sample() -> list[float]:
        start = time.perf_counter()
        with stack.tracker() as address, TrackerWatch(address):
            return [time.perf_counter() - start]

    return sample


def _server_sampler(stack: Stack, owner: contextlib.ExitStack) -> Callable[[], Sampler]:
    def ready() -> Sampler:
        tracker: Address = owner.enter_context(stack.tracker())
        watch = owner.enter_context(TrackerWatch(tracker))

        def sample() -> list[float]:
            _wait_none_free(watch)
            start = time.perf_counter()
            with stack.server(tracker=tracker, key=KEY):
                watch.wait_free(KEY)
                return [time.perf_counter() - start]

        return sample

    return ready


def _wait_none_free(watch: TrackerWatch, limit_s: float = 10.0) -> None:
    """The tracker has seen that the server of the round before is gone."""
    until = time.monotonic() + limit_s
    while watch.free(KEY):
        if time.monotonic() > until:
            raise TimeoutError(f"a server that was ended is listed as free after {limit_s:g} s")
        time.sleep(0.001)


def _bare_start() -> list[float]:
    """A Python that says one word over a pipe."""
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-S", "-E", "-c", "print('up')"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        return [time.perf_counter() - start]


def measure_pytest(bench: Bench) -> None:
    """P9: ours only, as TVM has no plugin. The figure is a difference within a round."""
    if bench.stack(OURS) is None:
        bench.add("P9", bench.missing())
        return
    folder = bench.folder / "pytest"
    folder.mkdir(exist_ok=True)
    for name, text in TESTS.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    local: list[float] = []

    def sample() -> list[float]:
        remote_s = _run_pytest(folder, "test_remote.py")
        local_s = _run_pytest(folder, "test_local.py")
        local.append(local_s)
        return [remote_s - local_s]

    entries = Contest(bench.rounds("P9"))
    entries.enter(OURS, lambda: sample)
    outcomes = entries.run()
    note = (
        f"the run with a local test takes {sorted(local)[len(local) // 2]:.2f} s" if local else ""
    )
    bench.add("P9", outcomes, note)


def _run_pytest(folder: Path, name: str) -> float:
    """Seconds of a whole run; only our plugin is loaded, so that both runs differ in the test."""
    arguments = ("--rpc-key", KEY, "--rpc-servers", "1", "-q", "-p", "no:cacheprovider", name)
    ignored = ("TVM_TRACKER_HOST", "TVM_TRACKER_PORT", "TVM_TRACKER_KEY", "PYTEST_ADDOPTS")
    variables = {name: value for name, value in environment().items() if name not in ignored}
    variables["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "pytest_tvmrpc.plugin", *arguments],
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
        raise RuntimeError(f"pytest {name} ended with {done.returncode}: {' | '.join(lines)}")
    return elapsed_s
