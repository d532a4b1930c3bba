"""The command line of the chaos: ``python -m harness.chaos --help``."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import gc
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_tvmrpc.runtime.native_programs import build_server
from pytest_tvmrpc.runtime.toolchain import compile_library

from ..bench import machine
from ..bench.rounds import explain, step_limit
from .scenarios import SCENARIOS
from .table import FAILED, PASSED, SKIPPED, Result, render, write
from .trial import SkipError, Trial

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

EPILOG = """\
how it is judged
  A scenario passes if everybody got what was due, in time, and if no program that took part
  holds more afterwards: memory (3 MiB are allowed, as heaps breathe), descriptors, processes,
  files. What came instead is in the table after a `!`.
  Everything happens on the loopback, or in a network of its own; nothing needs root.

examples
  python -m harness.chaos --quick                 a tenth of everything, some minutes
  python -m harness.chaos --only crashes,garbage  these only
  python -m harness.chaos --server native         with the server in C
  python -m harness.chaos --seed 7                the same chance again
"""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Options, checked."""
    parser = argparse.ArgumentParser(
        prog="python -m harness.chaos",
        description="Does to our programs what a year does, and says whether they survived.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", type=_names, default=list(SCENARIOS), metavar="NAME,...", help="these only"
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--list", action="store_true", help="say what there is, and end")
    parser.add_argument(
        "--server", choices=("python", "native"), default="python", help="which server of ours"
    )
    parser.add_argument("--seed", type=int, default=None, metavar="N", help="default: any")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs scenarios in turn, prints the table; whatever happens, ends what it started."""
    options = parse(arguments)
    if options.list:
        width = max(map(len, SCENARIOS))
        for name in options.only:
            sys.stdout.write(f"{name:<{width}}  {SCENARIOS[name].text}\n")
        return 0
    if options.seed is None:
        options.seed = random.randrange(1 << 32)
    signal.signal(signal.SIGTERM, _stop)
    machine.adopt_orphans()
    try:
        with tempfile.TemporaryDirectory(prefix="tvmrpc-chaos-") as folder:
            return _run(options, Path(folder))
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted\n")
        return 130
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # from here it is a matter of moments
        machine.end_processes(machine.descendants())


def _run(options: argparse.Namespace, folder: Path) -> int:
    began = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    library = Path(
        compile_library(Path(__file__).with_name("ends.c"), folder / "ends.so", options=["-w"])
    )
    results: list[Result] = []
    try:
        for name in options.only:
            results.append(_try(name, options, folder, library))
    finally:
        if results:  # also after an interrupt
            sys.stdout.write("\n" + render(results))
            sys.stdout.flush()
        if options.json:
            facts: dict[str, object] = {
                "began": began,
                "machine": machine.describe(),
                "options": {
                    "only": options.only,
                    "quick": options.quick,
                    "seed": options.seed,
                    "server": options.server,
                },
            }
            write(options.json, results, facts)
    return 1 if any(result.verdict == FAILED for result in results) else 0


def _try(name: str, options: argparse.Namespace, folder: Path, library: Path) -> Result:
    scenario = SCENARIOS[name]
    sys.stderr.write(f"{name}: {scenario.text} ... ")
    sys.stderr.flush()
    started, verdict, before = time.monotonic(), "", machine.descendants()
    with contextlib.ExitStack() as owner, _temporary(folder / name) as temp:
        trial = Trial(
            owner,
            temp,
            library,
            quick=options.quick,
            seed=options.seed,
            progress=sys.stderr,
            native=build_server() if options.server == "native" else None,
        )
        try:
            with step_limit(scenario.limit_s):
                scenario.run(trial)
                gc.collect()
                trial.judge_watches()
        except SkipError as error:
            verdict = SKIPPED
            trial.figures = [str(error)]
        except Exception as error:  # a scenario that breaks is a result, and the next one runs
            trial.failures.append(explain(error))
    machine.end_processes(machine.descendants() - before)
    verdict = verdict or (FAILED if trial.failures else PASSED)
    lasted_s = time.monotonic() - started
    sys.stderr.write(f"{verdict}, {lasted_s:.1f} s\n")
    parts = (tuple(trial.done), tuple(trial.figures), tuple(trial.failures))
    return Result(name, verdict, *parts, round(lasted_s, 1))


@contextlib.contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    """A temporary folder for one scenario, ours and that of all that we start."""
    folder.mkdir()
    kept, tempfile.tempdir = tempfile.tempdir, str(folder)
    outer = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(folder)
    try:
        yield folder
    finally:
        tempfile.tempdir = kept
        if outer is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = outer


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(
            f"no scenario {', '.join(unknown) or 'named'}; there are {', '.join(SCENARIOS)}"
        )
    return [name for name in SCENARIOS if name in names]


def _stop(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
