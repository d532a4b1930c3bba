"""The section "benchmarks" at the end of a run. Only formatting; colours are the reporter's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Iterable, NamedTuple, Sequence

from ..benchmarking import comparison, store
from ..benchmarking.records import FASTER, NEW, NOISY, SLOWER, Benchmark, seconds
from ..benchmarking.remarks import remarks
from ..wording import percent, printable

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

    from ..options import Options
    from ..records import Run

GAP = "  "

COLOURS = {SLOWER: "yellow", FASTER: "green", NOISY: "yellow", NEW: "yellow"}

DISPENSABLE = ("MAD", "IQR", "samples")
"""Columns that are left out where the terminal is narrow, in this order."""


class Column(NamedTuple):
    """A column: what stands above it, and in the line of each benchmark."""

    title: str
    cells: list[str]
    is_text: bool = False


def write_benchmarks(
    reporter: TerminalReporter, run: Run, options: Options, saved: Sequence[Path] | None = ()
) -> None:
    """The section; nothing when nothing was measured and nobody asked for a comparison.

    Args:
        reporter: pytest's own.
        run: with the attempts of its tests.
        options: of the run.
        saved: the files in which the run's results were stored; None if that failed.
    """
    benchmarks = sorted(store.benchmarks_of(run), key=_place)
    here = reporter.config.invocation_params.dir
    stored = reporter.config.stash.get(store.store_key, None) or store.Store(options.bench_dir)
    notes = notes_on(benchmarks, options, stored, here)
    if options.bench_save and not saved and (run.tests or benchmarks):
        failed = saved is None
        reason = "writing failed" if failed else "no test that passed has measured anything"
        notes.append(f"nothing was saved: {reason}")
    if not benchmarks and not (notes and run.tests):
        return
    reporter.write_sep("=", "benchmarks")
    if benchmarks:
        head, *rows = lines(benchmarks, reporter.config.get_terminal_writer().fullwidth)
        reporter.write_line(head)
        for row, one in zip(rows, benchmarks):
            colour = "red" if one.fails else COLOURS.get(one.verdict)
            reporter.write_line(row, **({colour: True} if colour else {}))
    for line in models(benchmarks):
        reporter.write_line(printable(line))
    for note in notes:
        reporter.write_line(printable(note), yellow=True, bold=options.bench_fail is not None)
    for path in saved or ():
        reporter.write_line(printable(f"saved as {options.bench_save!r}: {_shown(path, here)}"))


def lines(benchmarks: Sequence[Benchmark], width: int) -> list[str]:
    """The table as aligned lines, its head first; columns that nobody fills are left out.

    Names are of any length: at the end of the line they move nothing.

    Args:
        benchmarks: one for each line.
        width: of the terminal; where it does not suffice, columns that can be missed are left out.
    """
    columns = [
        Column("key", [one.key or "-" for one in benchmarks], is_text=True),
        Column("median", [seconds(one.median_s) for one in benchmarks]),
        Column("MAD", [one.percent(one.mad_s) for one in benchmarks]),
        Column("IQR", [one.percent(one.iqr_s) for one in benchmarks]),
        Column("GFLOP/s", [_rate(one.gflops) for one in benchmarks]),
        Column("GB/s", [_rate(one.gbps) for one in benchmarks]),
        Column("samples", [f"{len(one.samples_s)} x {one.number}" for one in benchmarks]),
        Column("baseline", [_baseline(one) for one in benchmarks]),
        Column("change", [_change(one) for one in benchmarks]),
        Column("verdict", [_verdict(one) for one in benchmarks], is_text=True),
        Column("benchmark", [f"{one.test} {one.name}" for one in benchmarks], is_text=True),
    ]
    safe = [column._replace(cells=[*map(printable, column.cells)]) for column in columns]
    filled = [column for column in safe if any(cell not in ("", "-") for cell in column.cells)]
    for missed in DISPENSABLE:
        if max(map(len, _aligned(filled))) <= width:
            break
        filled = [column for column in filled if column.title != missed]
    return _aligned(filled)


def _aligned(columns: Sequence[Column]) -> list[str]:
    padded = []
    for title, cells, is_text in columns:
        width = max(map(len, (title, *cells)))
        pad = str.ljust if is_text else str.rjust
        padded.append([pad(cell, width) for cell in (title, *cells)])
    return [GAP.join(row).rstrip() for row in zip(*padded)]


def models(benchmarks: Iterable[Benchmark]) -> list[str]:
    """What kind of device each key stands for, a line for each."""
    kinds = dict.fromkeys((one.key or "-", one.model) for one in benchmarks)
    return [f"{key}: {model}" for key, model in sorted(kinds)]


def notes_on(
    benchmarks: Sequence[Benchmark], options: Options, stored: store.Store, here: Path
) -> list[str]:
    """What the user should read about the comparison, a line each; paths as seen from `here`."""
    run = comparison.wanted_run(options)
    if run is None:
        return []
    known = list(dict.fromkeys(one.name for one in stored.runs()))
    names = f"; stored there: {', '.join(known)}" if known else ""
    there = f" in {_shown(Path(options.bench_dir), here)}{names}"
    if not benchmarks:
        return [*stored.broken, "nothing was compared: no test has measured anything"]
    return [*stored.broken, *remarks(benchmarks, run, there)]


def _shown(path: Path, here: Path) -> str:
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _place(one: Benchmark) -> list[list[tuple[int, str]]]:
    """Where a benchmark stands: by its names, with numbers in them as numbers."""
    return [
        [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"(\d+)", text)]
        for text in (one.test, one.name, one.key, one.model)
    ]


def _rate(value: float) -> str:
    if not value:
        return "-"
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _baseline(one: Benchmark) -> str:
    return f"{one.baseline} {seconds(one.baseline_median_s)}" if one.baseline else ""


def _change(one: Benchmark) -> str:
    if not one.baseline:
        return ""
    return f"{'+' if one.change >= 0 else '-'}{percent(abs(one.change))}"


def _verdict(one: Benchmark) -> str:
    return one.verdict.upper() if one.fails else one.verdict
