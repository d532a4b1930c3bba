"""The command line of the bench: ``python -m harness.bench --help``."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy

from . import (
    bulk,
    kernel,
    latency,
    lease,
    loop,
    machine,
    memory,
    pipelines,
    report,
    roundtrips,
    runs,
    start,
    tracker,
)
from .bench import Bench
from .goals import BARE, COLUMNS, ITEMS
from .peers import Absent, Stack, find_stacks
from .rounds import explain
from .table import markdown, render

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

MEASURES: dict[str, Callable[[Bench], None]] = {
    "P1": latency.measure_call,
    "P1b": pipelines.measure,
    "P2": latency.measure_tensor_call,
    "P3": bulk.measure_tensors,
    "P4": latency.measure_copy,
    "P5": latency.measure_allocation,
    "P6": lease.measure,
    "P7": bulk.measure_files,
    "P8": start.measure_programs,
    "P9": runs.measure_start,
    "P10": memory.measure,
    "P11": tracker.measure,
    "P12": runs.measure_many,
    "P15": loop.measure,
    "P14": roundtrips.measure,
}

EPILOG = f"""\
items
{chr(10).join(f"  {item.name:<5} {item.work}" for item in ITEMS.values())}

how it is measured
  Round by round: ours, TVM, bare, ours, TVM, bare ... A figure is the p50 of the p50s of the
  rounds; a ratio is the p50 of the ratios within a round, so that drift of the machine cancels.
  P1, P2, P4 and P5 have client and server on one core. Everything is on the loopback.
  "C" is our client with the server in C, "TVM-C" TVM's client with it; their goals have lines of
  their own.
  "bare" is the least that Python and the kernel can do: one send, one answer, no protocol.
  TVM needs apache-tvm and tornado; without them its column says so.

examples
  python -m harness.bench                        everything, some minutes
  python -m harness.bench --quick                fewer rounds, about one minute
  python -m harness.bench --only P1,P14          these only
  python -m harness.bench --only P1 --rounds 50  a steadier figure
  python -m harness.bench --peers ours,bare      without TVM
"""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Options, checked."""
    parser = argparse.ArgumentParser(
        prog="python -m harness.bench",
        description="Measures this package beside TVM and beside bare sockets, in one run.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", type=_items, default=list(ITEMS), metavar="P1,P3", help="these items only"
    )
    parser.add_argument("--rounds", type=_positive, metavar="N", help="rounds of every item")
    parser.add_argument("--quick", action="store_true", help="fewer rounds; coarser figures")
    parser.add_argument(
        "--peers",
        type=_peers,
        default=set(COLUMNS),
        metavar="ours,C,TVM-C,TVM,bare",
        help="who is measured (default: all)",
    )
    parser.add_argument(
        "--legacy",
        action="store_true",
        help="our client speaks the dialect of TVM 0.8 to 0.20 with our server",
    )
    parser.add_argument(
        "--json", type=Path, default=Path("bench.json"), metavar="FILE", help="default: %(default)s"
    )
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="write the table for docs/benchmarks.md, too"
    )
    parser.add_argument("--check", action="store_true", help="exit status 1 when a goal is not met")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the table, writes the file; whatever happens, ends what it started."""
    options = parse(arguments)
    signal.signal(signal.SIGTERM, _stop)
    machine.adopt_orphans()
    try:
        with tempfile.TemporaryDirectory(prefix="tvmrpc-bench-") as folder:
            return _run(options, Path(folder))
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted\n")
        return 130
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # from here it is a matter of moments
        machine.end_processes(machine.descendants())


def _run(options: argparse.Namespace, folder: Path) -> int:
    began, began_s = datetime.datetime.now(datetime.timezone.utc), time.monotonic()
    stacks, absent = find_stacks(options.peers, is_legacy=options.legacy)
    bench = Bench(
        stacks,
        absent,
        folder,
        kernel.build(folder),
        rounds=options.rounds,
        quick=options.quick,
        with_bare=BARE in options.peers,
        progress=sys.stderr,
    )
    with contextlib.ExitStack() as finish:
        finish.callback(_finish, bench, options, _facts(stacks, absent, options, began), began_s)
        for item in options.only:
            _measure(bench, item)
    missed = any(row.is_met is False for row in bench.rows)
    return 1 if options.check and missed else 0


def _measure(bench: Bench, item: str) -> None:
    before = machine.descendants()
    with bench.announced(item):
        try:
            MEASURES[item](bench)
        except Exception as error:  # an item that fails as a whole does not end the run
            sys.stderr.write(f"{explain(error)} ... ")
        # TVM's helpers outlive the process that started them.
        machine.end_processes(machine.descendants() - before)


def _finish(
    bench: Bench, options: argparse.Namespace, facts: dict[str, object], began_s: float
) -> None:
    """Shows what there is, also after an interrupt."""
    if not bench.rows:
        return
    sys.stdout.write("\n" + render(bench.rows))
    facts["lasted_s"] = round(time.monotonic() - began_s, 1)
    report.write(options.json, bench.rows, facts)
    if options.markdown:
        options.markdown.write_text(markdown(bench.rows), encoding="utf-8")
    sys.stdout.write(f"figures of all rounds: {options.json}\n")
    sys.stdout.flush()


def _facts(
    stacks: Sequence[Stack],
    absent: Sequence[Absent],
    options: argparse.Namespace,
    began: datetime.datetime,
) -> dict[str, object]:
    versions = {stack.name: stack.version for stack in stacks}
    versions.update((name, f"absent: {reason}") for name, reason in absent)
    return {
        "began": began.isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "versions": {**versions, "numpy": numpy.__version__},
        "options": {
            "only": options.only,
            "rounds": options.rounds,
            "quick": options.quick,
            "legacy": options.legacy,
        },
    }


def _items(text: str) -> list[str]:
    by_upper = {name.upper(): name for name in ITEMS}
    said = [name.strip() for name in text.split(",") if name.strip()]
    names = [by_upper.get(name.upper(), name) for name in said]
    unknown = [name for name in names if name not in ITEMS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(
            f"no item {', '.join(unknown) or 'named'}; there are {', '.join(ITEMS)}"
        )
    return [name for name in ITEMS if name in names]


def _peers(text: str) -> set[str]:
    by_lower = {name.lower(): name for name in COLUMNS}
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in by_lower]
    if unknown or not names:
        raise argparse.ArgumentTypeError(
            f"no peer {', '.join(unknown) or 'named'}; there are {', '.join(COLUMNS)}"
        )
    return {by_lower[name] for name in names}


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"want a number of at least 1, got {text!r}")
    return int(text)


def _stop(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
