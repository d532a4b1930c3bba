"""What a benchmark says of itself, to people and to JSON."""

from __future__ import annotations

import json
from typing import Callable

import pytest

from pytest_tvmrpc.benchmarking.records import Benchmark, seconds, without_key
from pytest_tvmrpc.wording import percent

Make = Callable[..., Benchmark]


def test_what_follows_from_the_samples(make: Make) -> None:
    """Median, quartiles, the fastest, and rates at the median."""
    one = make(1e-3, [1.0, 2.0, 3.0, 4.0, 5.0], flop=6e6, nbytes=3e6)
    found = [one.median_s, one.mad_s, one.q1_s, one.q3_s, one.iqr_s, one.min_s]
    assert found == pytest.approx([3e-3, 1e-3, 2e-3, 4e-3, 2e-3, 1e-3])
    assert (one.gflops, one.gbps) == pytest.approx((2.0, 1.0))
    assert make(0.0, flop=1.0).gflops == 0.0


def test_for_people(make: Make) -> None:
    """One line, with the rates that are known."""
    one = make(1e-3, [0.9, 1.0, 1.1], flop=2e7)
    assert str(one) == (
        "gemm on jetson: 1.00 ms (MAD 10 %, IQR 10 %, 3 samples of 10 calls), 20 GFLOP/s"
    )
    assert str(make(key="", device="10.0.0.7:9090")).startswith("gemm on 10.0.0.7:9090: ")


def test_json_and_back(make: Make) -> None:
    """Nothing is lost, and what a newer version adds is left out."""
    one = make(flop=8, verdict="same", baseline="main")
    values = {**json.loads(json.dumps(one.to_json())), "new": 1}
    assert values["median_s"] == one.median_s
    assert values["gflops"] == one.gflops
    assert Benchmark.from_json(values) == one


@pytest.mark.parametrize(
    "wrong", [{"samples_s": []}, {"samples_s": ["fast"]}, {"test": 5}, {"samples_s": 3}]
)
def test_json_that_is_none(make: Make, wrong: dict[str, object]) -> None:
    """It is refused rather than met again in the arithmetic."""
    with pytest.raises((ValueError, TypeError)):
        Benchmark.from_json({**make().to_json(), **wrong})
    with pytest.raises(TypeError):
        Benchmark.from_json({"name": "gemm"})


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [
        (2.0, "2.00 s"),
        (0.9996, "1.00 s"),
        (0.9994, "999 ms"),
        (1.204e-3, "1.20 ms"),
        (12.04e-3, "12.0 ms"),
        (345.4e-6, "345 us"),
        (60.5e-9, "60.5 ns"),
        (0.0, "0.00 ns"),
        (754.0, "754 s"),
    ],
)
def test_seconds(duration_s: float, text: str) -> None:
    """Three digits in the unit that fits."""
    assert seconds(duration_s) == text


def test_percent() -> None:
    """A digit behind the point where it means something."""
    assert [percent(part) for part in (0.0, 0.008, 0.0996, 0.12, -0.05)] == [
        *("0.0 %", "0.8 %", "10 %", "12 %", "-5.0 %")
    ]


@pytest.mark.parametrize(
    ("nodeid", "name"),
    [
        ("test_a.py::test_b", "test_a.py::test_b"),
        ("test_a.py::test_b[rpi-4]", "test_a.py::test_b"),
        ("test_a.py::test_b[rpi-4-3x3]", "test_a.py::test_b[3x3]"),
        ("test_a.py::test_b[3x3-rpi-4]", "test_a.py::test_b[3x3]"),
        ("test_a.py::test_b[3x3-rpi-4-same]", "test_a.py::test_b[3x3-same]"),
        ("test_a.py::test_b[rpi-40]", "test_a.py::test_b[rpi-40]"),
        ("test_a.py::test_b[[x]-rpi-4]", "test_a.py::test_b[[x]]"),
    ],
)
def test_the_name_without_the_key(nodeid: str, name: str) -> None:
    """A test is the same on each device, wherever the key stands among its parameters."""
    assert without_key(nodeid, "rpi-4") == name
