"""The section "benchmarks": its table, and what it says about what was not compared."""

from __future__ import annotations

import inspect
import io
from dataclasses import replace
from pathlib import Path
from typing import Callable, Sequence

import pytest
from _pytest.terminal import TerminalReporter

from pytest_tvmrpc.benchmarking import store
from pytest_tvmrpc.benchmarking.records import Benchmark
from pytest_tvmrpc.fixtures.benchmark import RemoteBenchmark
from pytest_tvmrpc.options import Options
from pytest_tvmrpc.records import Run
from pytest_tvmrpc.reporting import benchmarks as table

Make = Callable[..., Benchmark]
RunOf = Callable[..., Run]
Section = Callable[..., "list[str]"]


@pytest.fixture(name="section")
def _section(pytestconfig: pytest.Config, tmp_path: Path) -> Section:
    """``section(run, bench_compare="main")``: the lines of the section, after its head."""

    def section(run: Run, saved: "Sequence[Path] | None" = (), **options: object) -> list[str]:
        out = io.StringIO()
        reporter = TerminalReporter(pytestconfig, out)
        chosen = Options(bench_dir=str(tmp_path), **options)  # type: ignore[arg-type]
        table.write_benchmarks(reporter, run, chosen, saved)
        head, *lines = out.getvalue().splitlines() or [""]
        assert not head or " benchmarks " in head
        return lines

    return section


def test_the_table(make: Make, run_of: RunOf, section: Section) -> None:
    """Aligned, sorted with numbers as numbers, columns that nobody fills left out, names last."""
    small = make(1e-3, test="test_a.py::test_gemm[64]", flop=2e6)
    large = make(2.5, test="test_a.py::test_gemm[128]", key="rpi", model="BCM2711")
    assert section(run_of(large, small)) == [
        "key      median    MAD    IQR  GFLOP/s  samples  benchmark",
        "jetson  1.00 ms  0.2 %  0.3 %        2  10 x 10  test_a.py::test_gemm[64] gemm",
        "rpi      2.50 s  0.2 %  0.3 %        -  10 x 10  test_a.py::test_gemm[128] gemm",
        "jetson: Orin",
        "rpi: BCM2711",
    ]


@pytest.mark.parametrize(
    ("width", "missing"),
    [
        (79, []),
        (78, ["MAD"]),
        (71, ["MAD", "IQR"]),
        (64, ["MAD", "IQR", "samples"]),
        (20, ["MAD", "IQR", "samples"]),
    ],
)
def test_a_narrow_terminal(make: Make, width: int, missing: "list[str]") -> None:
    """What can be missed is left out until all fits, and no more than that."""
    one = make(test="test_a.py::test_gemm[128]", flop=2e6)
    head, line = table.lines([one], width)
    every = table.lines([one], 200)
    assert len(every[1]) == 79
    assert head.split() == [name for name in every[0].split() if name not in missing]
    assert len(line) <= width or len(missing) == 3


def test_what_devices_say(make: Make, run_of: RunOf, section: Section, tmp_path: Path) -> None:
    """Names, keys and models move no cursor, in the table and in what is said about it."""
    evil = "\x1b[2Jboard\n"
    one = make(name=evil, key=evil, model=evil, verdict="new", note=f"no run of {evil} has it")
    saved = store.save(run_of(one), tmp_path, evil)
    shown = section(run_of(one), saved, bench_compare=evil, bench_save=evil)
    assert all(line.isprintable() for line in shown)
    assert sum(r"\x1b[2Jboard\n" in line for line in shown) >= 5


def test_a_comparison(make: Make, run_of: RunOf, section: Section) -> None:
    """Change and verdict; what fails its test is in capitals."""
    compared = {"baseline": "main", "baseline_median_s": 1e-3, "limit": 0.05}
    run = run_of(
        make(name="a", verdict="slower", change=0.101, fails=True, **compared),
        make(name="b", verdict="faster", change=-0.2, **compared),
        make(name="c", verdict="same", change=-0.004, **compared),
        make(name="d", verdict="noisy", change=0.3, note="too few", visible=-1.0, **compared),
    )
    lines = section(run, bench_compare="main")
    assert [line.split("main ")[1].split(" test_a")[0].split() for line in lines[1:5]] == [
        ["1.00", "ms", "+10", "%", "SLOWER"],
        ["1.00", "ms", "-20", "%", "faster"],
        ["1.00", "ms", "-0.4", "%", "same"],
        ["1.00", "ms", "+30", "%", "noisy"],
    ]
    assert lines[-3:-1] == [
        "SLOWER: 1 benchmark of 4 by more than 5 %: test_a.py::test_gemm a (jetson)",
        "noisy: too few: test_a.py::test_gemm d (jetson)",
    ]
    assert lines[-1].startswith("noise hides changes of 5 %, the limit: measure with more repeats")


def test_nothing_to_show(make: Make, run_of: RunOf, section: Section) -> None:
    """A run without benchmarks has no section, unless a comparison was asked for."""
    remote = run_of(make())
    remote.tests[0].attempts[0].benchmarks.clear()
    assert section(remote) == []
    assert section(Run(), bench_fail=0.05, bench_save="main") == []
    assert section(remote, bench_fail=0.05, bench_save="main") == [
        "nothing was compared: no test has measured anything",
        "nothing was saved: no test that passed has measured anything",
    ]


def test_no_baseline_at_all(make: Make, run_of: RunOf, section: Section, tmp_path: Path) -> None:
    """It cannot be overlooked, and says what is there and what to do."""
    new = make(verdict="new", note="no stored run 'mian' has it")
    store.save(run_of(make(name="other")), tmp_path, "main")
    assert section(run_of(new), bench_compare="mian", bench_fail=0.05)[-2:] == [
        f"NOTHING WAS COMPARED: no baseline 'mian' for any of 1 benchmark in {tmp_path}; stored "
        "there: main; store one with --rpc-bench-save=mian",
        "no baseline: no stored run 'mian' has it: test_a.py::test_gemm gemm (jetson)",
    ]


def test_some_have_no_baseline(make: Make, run_of: RunOf, section: Section) -> None:
    """They are counted, and the first ones named."""
    new = [make(name=f"n{number}", verdict="new", note="none has it") for number in range(7)]
    old = make(verdict="same", baseline="main", baseline_median_s=1e-3)
    assert section(run_of(old, *new), bench_compare="")[-2:] == [
        "NOT COMPARED: 7 benchmarks of 8 without a baseline",
        "no baseline: none has it: test_a.py::test_gemm n0 (jetson), test_a.py::test_gemm n1 "
        "(jetson), test_a.py::test_gemm n2 (jetson) and 4 more",
    ]


def test_many_notes(make: Make, run_of: RunOf, section: Section) -> None:
    """However many there are to say, a handful is said."""
    noisy = [make(name=f"n{number}", verdict="noisy", note=f"{number}") for number in range(12)]
    lines = section(run_of(*noisy), bench_compare="")
    assert sum(line.startswith("noisy: ") for line in lines) == 9
    assert lines[-1] == "noisy: and 4 more"


def test_broken_files_are_named(
    make: Make, run_of: RunOf, section: Section, tmp_path: Path
) -> None:
    """Also if another file had the baseline."""
    (good,) = store.save(run_of(make()), tmp_path, "main")
    bad = good.with_name("bad.json")
    bad.write_text("{")
    lines = section(run_of(make(verdict="same", baseline="main")), bench_compare="")
    assert any(line.startswith(f"{bad}: left out") for line in lines)


def test_saved(make: Make, run_of: RunOf, section: Section, tmp_path: Path) -> None:
    """The files are named."""
    saved = store.save(run_of(make()), tmp_path, "main")
    assert section(run_of(make()), saved, bench_save="main")[-1] == f"saved as 'main': {saved[0]}"


def test_could_not_be_saved(make: Make, run_of: RunOf, section: Section) -> None:
    """That is another thing than that there was nothing to save."""
    lines = section(run_of(make()), None, bench_save="main")
    assert lines[-1] == "nothing was saved: writing failed"


def test_the_outputs_in_the_docs(make: Make) -> None:
    """They have the columns that are printed today, and the arguments are those of the fixture."""
    page = (Path(__file__).parents[2] / "docs" / "benchmarking.md").read_text(encoding="utf-8")
    shown = {tuple(line.split()) for line in page.splitlines() if line.startswith("key   ")}
    alone = make(flop=1, nbytes=1)
    compared = replace(alone, baseline="main", baseline_median_s=1.0, verdict="same")
    assert shown == {
        tuple(table.lines([alone], 200)[0].split()),
        tuple(table.lines([compared], 80)[0].split()),
    }
    arguments = inspect.signature(RemoteBenchmark.__call__).parameters.values()
    for argument in arguments:
        if argument.kind is argument.KEYWORD_ONLY:
            assert f"{argument.name}={argument.default!r}".replace("'", '"') in page
