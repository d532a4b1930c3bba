"""What there is to say about the benchmarks of a run: all that was compared, and nothing twice."""

from __future__ import annotations

from typing import Any, Callable

from pytest_tvmrpc.benchmarking.records import Benchmark
from pytest_tvmrpc.benchmarking.remarks import remarks

Make = Callable[..., Benchmark]

COMPARED: "dict[str, Any]" = {"baseline": "main", "baseline_median_s": 1e-3, "limit": 0.05}


def test_nothing_was_asked(make: Make) -> None:
    """A run that compared nothing, or found nothing, has nothing to say."""
    assert remarks([]) == []
    assert remarks([make(), make(name="b", verdict="same", visible=0.01, **COMPARED)]) == []


def test_all_of_it(make: Make) -> None:
    """Failing ones first, then those without a baseline, then the noisy ones and what helps."""
    fails = make(name="f", verdict="slower", fails=True, **COMPARED)
    new = make(name="n", verdict="new", note="none has it")
    noisy = make(name="y", verdict="noisy", note="so noisy", visible=0.2, **COMPARED)
    assert remarks([fails, new, noisy]) == [
        "SLOWER: 1 benchmark of 3 by more than 5 %: test_a.py::test_gemm f (jetson)",
        "NOT COMPARED: 1 benchmark of 3 without a baseline",
        "no baseline: none has it: test_a.py::test_gemm n (jetson)",
        "noisy: so noisy: test_a.py::test_gemm y (jetson)",
        "noise hides changes of 5 %, the limit: measure with more repeats, a longer min_time_s or "
        "a cooldown_s, on a device with nothing else to do",
    ]
    assert remarks([new], "main", " in .b; stored there: x")[0] == (
        "NOTHING WAS COMPARED: no baseline 'main' for any of 1 benchmark in .b; stored there: x; "
        "store one with --rpc-bench-save=main"
    )


def test_noise_between_runs(make: Make) -> None:
    """More repeats are no remedy for it, and not advised."""
    noisy = make(verdict="noisy", note="x", visible=0.2, earlier=5, between=0.03, **COMPARED)
    assert remarks([noisy])[1:] == [
        "what differs from run to run hides changes of 5 %, the limit, and more repeats do not "
        "help: fix the clock of the device, leave it alone, or choose a limit that fits"
    ]


def test_a_doubt_that_is_no_noise(make: Make) -> None:
    """Where a change of the limit would have been seen, nothing is advised."""
    noisy = make(verdict="noisy", note="hardly", visible=0.01, **COMPARED)
    assert len(remarks([noisy])) == 1
