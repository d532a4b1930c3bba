"""Benchmarks that nobody had to measure."""

from __future__ import annotations

from typing import Any, Callable, Sequence

import pytest

from pytest_tvmrpc.benchmarking.records import Benchmark
from pytest_tvmrpc.records import Attempt, Run, TestRecord

Make = Callable[..., Benchmark]

STEADY = (0.99, 1.0, 1.0, 1.0, 1.01, 0.995, 1.005, 1.0, 0.998, 1.002)
"""Ten samples around 1, with little noise."""


@pytest.fixture(name="make")
def _make() -> Make:
    """``make(1e-3)``: samples around a millisecond; the other fields by name."""

    def make(median_s: float = 1e-3, samples: Sequence[float] = STEADY, **given: Any) -> Benchmark:
        values: dict[str, Any] = {
            "test": "test_a.py::test_gemm",
            "name": "gemm",
            "key": "jetson",
            "model": "Orin",
            "device": "jetson@127.0.0.1:9091",
            "started_at": 1000.0,
            "number": 10,
            "samples_s": [median_s * sample for sample in samples],
        }
        return Benchmark(**{**values, **given})

    return make


@pytest.fixture(name="run_of")
def _run_of() -> Callable[..., Run]:
    """``run_of(a, b, verdict="failed")``: a run with a test of that verdict for each benchmark."""

    def run_of(*benchmarks: Benchmark, verdict: str = "passed", ended_at: float = 2000.0) -> Run:
        tests = [
            TestRecord(one.test, attempts=[Attempt(1, verdict, benchmarks=[one.to_json()])])
            for one in benchmarks
        ]
        return Run(started_at=1000.0, ended_at=ended_at, tests=tests)

    return run_of
