"""Tests of the measuring loop, counted instead of timed, and of its result."""

from __future__ import annotations

import functools
import gc
import itertools
import math
import pickle
import random
import struct
import time

import numpy as np
import pytest

from pytest_tvmrpc.runtime import profiling
from pytest_tvmrpc.runtime.profiling import BenchmarkResult, Timing


class Clock:
    """The time of these tests: it goes on only when a function says that it took some."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ns = 0
        self.slept_s: list[float] = []
        monkeypatch.setattr(profiling.time, "perf_counter_ns", lambda: self.now_ns)
        monkeypatch.setattr(profiling.time, "sleep", self.slept_s.append)

    def taking(self, duration_ns: int) -> Run:
        return Run(self, duration_ns)


class Run:
    """A function that counts its calls and takes its time."""

    def __init__(self, clock: Clock, duration_ns: int) -> None:
        self.clock, self.duration_ns, self.calls = clock, duration_ns, 0

    def __call__(self) -> None:
        self.calls += 1
        self.clock.now_ns += self.duration_ns


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def nothing() -> None:
    """Waits for a device that is always ready."""


def measure(run, sync, preproc=None, **settings):
    """The loop, with its settings by name."""
    time_calls = functools.partial(profiling._time_calls, run, sync)
    return profiling.measure(time_calls, sync, Timing(**settings).checked(), preproc)


@pytest.mark.parametrize(("number", "repeat"), [(1, 1), (3, 2), (10, 1), (1, 7)])
def test_number_of_calls(clock, number, repeat):
    """One call to warm up, then number * repeat; a result for each repeat."""
    run = clock.taking(2_000)
    results = measure(run, nothing, number=number, repeat=repeat)
    assert run.calls == 1 + number * repeat
    assert results == pytest.approx([2e-6] * repeat)


def test_warm_up_is_not_timed(clock):
    """What the first call loads does not count."""
    durations = itertools.chain([10**9], itertools.repeat(1_000))

    def run() -> None:
        clock.now_ns += next(durations)

    assert measure(run, nothing, number=2, repeat=2) == pytest.approx([1e-6, 1e-6])


def test_wait_for_the_device_is_timed(clock):
    """The clock stops when the device is done, not when it was asked."""
    run, sync = clock.taking(0), clock.taking(500)
    assert measure(run, sync, number=5) == pytest.approx([1e-7])
    assert sync.calls == 3  # after the warm-up, before and after the calls


def test_number_grows_until_a_repeat_takes_long_enough(clock):
    """1 ms asked of a function of 10 us: 10 calls, then 101; the next repeat starts with these."""
    run = clock.taking(10_000)
    results = measure(run, nothing, number=10, repeat=2, min_repeat_ms=1)
    assert run.calls == 1 + 10 + 101 + 101
    assert results == pytest.approx([1e-5, 1e-5])


def test_number_grows_by_the_golden_ratio_at_least(clock):
    """A function that turns out faster than it seemed is measured again with 1.618 times more."""
    durations = itertools.chain([0], [100_000] * 10, [60_000] * 16, itertools.repeat(1_000_000))
    calls = []

    def run() -> None:
        calls.append(1)
        clock.now_ns += next(durations)

    measure(run, nothing, number=10, min_repeat_ms=1)
    assert len(calls) == 1 + 10  # 1 ms is reached at once

    calls.clear()
    durations = itertools.chain([0], [99_000] * 10, [60_000] * 16, itertools.repeat(1_000_000))
    measure(run, nothing, number=10, min_repeat_ms=1)
    assert len(calls) == 1 + 10 + 16 + 25


def test_durations_of_zero_end_after_a_limit(clock):
    """A clock that stands still does not hang the loop."""
    run = clock.taking(0)
    results = measure(run, nothing, number=2, min_repeat_ms=5, limit_zero_time_iterations=7)
    assert run.calls == 1 + 2 * 7
    assert results == [0.0]
    assert measure(run, nothing, min_repeat_ms=5, limit_zero_time_iterations=0) == [0.0]


def test_cooldown_after_every_so_many_repeats(clock):
    """After repeat 0, then after each that is a multiple."""
    measure(clock.taking(1), nothing, repeat=5, cooldown_interval_ms=250, repeats_to_cooldown=2)
    assert clock.slept_s == [0.25, 0.25, 0.25]
    measure(clock.taking(1), nothing, repeat=5, repeats_to_cooldown=2)
    assert len(clock.slept_s) == 3


def test_preparation_before_each_repeat(clock):
    """It is called for each repeat, not timed, and not for each growth of number."""
    preproc = clock.taking(10**9)
    results = measure(
        clock.taking(1_000), nothing, number=1, repeat=3, min_repeat_ms=1, preproc=preproc
    )
    assert preproc.calls == 3
    assert results == pytest.approx([1e-6] * 3)


def test_cache_flush_does_not_change_the_count(clock):
    """Flushing is a matter between the timings."""
    run = clock.taking(1_000)
    assert measure(run, nothing, number=2, cache_flush_bytes=100_000) == pytest.approx([1e-6])
    assert run.calls == 3


@pytest.mark.parametrize("was_enabled", [True, False])
def test_garbage_collector_rests_while_the_clock_runs(was_enabled):
    """And is as it was afterwards, also if the function raises."""
    seen = []

    def run() -> None:
        seen.append(gc.isenabled())
        if len(seen) == 4:
            raise KeyError("boom")

    enabled_before = gc.isenabled()
    (gc.enable if was_enabled else gc.disable)()
    try:
        with pytest.raises(KeyError):
            measure(run, nothing, number=10)
        assert gc.isenabled() is was_enabled
        assert seen == [False] * 4
    finally:
        (gc.enable if enabled_before else gc.disable)()


def test_real_time_is_measured():
    """With the real clock, a function that takes a millisecond takes about that."""

    def run() -> None:
        end = time.perf_counter() + 0.001
        while time.perf_counter() < end:
            pass

    (result,) = measure(run, nothing, number=3)
    assert 0.001 <= result < 1


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("number", 0),
        ("number", -1),
        ("number", 2**31),
        ("number", 1.5),
        ("number", "10"),
        ("repeat", 0),
        ("repeat", 10**12),
        ("min_repeat_ms", -1),
        ("min_repeat_ms", 2**62),
        ("limit_zero_time_iterations", -1),
        ("cooldown_interval_ms", -1),
        ("repeats_to_cooldown", 0),
        ("cache_flush_bytes", -1),
        ("cache_flush_bytes", 2**50),
        ("cache_flush_bytes", None),
        ("repeat", True),
        ("repeat", float("nan")),
    ],
)
def test_absurd_options_are_refused_by_name(option, value):
    """Before anything is called."""
    calls = []
    error = ValueError if type(value) is int else TypeError
    with pytest.raises(error, match=f"{option} is .*; expected an integer from"):
        measure(lambda: calls.append(1), nothing, **{option: value})
    assert not calls


def test_text_is_tvms():
    """Character by character, blanks at the end included; recorded from TVM 0.27."""
    result = BenchmarkResult((0.1, 0.2, 0.4))
    assert repr(result) == (
        "BenchmarkResult(min=0.1, mean=0.23333333333333336, median=0.2, max=0.4, "
        "std=0.12472191289246473, results=(0.1, 0.2, 0.4))"
    )
    assert str(result) == (
        "Execution time summary:\n"
        " mean (ms)   median (ms)    max (ms)     min (ms)     std (ms)  \n"
        "  233.3333     200.0000     400.0000     100.0000     124.7219                 "
    )
    assert str(BenchmarkResult([1e-6, 2.5e-6])).endswith(
        "\n   0.0018       0.0018       0.0025       0.0010       0.0008                  "
    )


@pytest.mark.parametrize("count", [1, 2, 3, 10, 101])
def test_statistics_are_numpys(count):
    """Mean, population deviation, median of even and odd counts, least and most."""
    values = [random.Random(count).random() * 1e-3 for _ in range(count)]
    result = BenchmarkResult(values)
    assert result.results == tuple(values)
    assert (result.min, result.max) == (min(values), max(values))
    assert result.mean == pytest.approx(np.mean(values), rel=1e-14)
    assert result.std == pytest.approx(np.std(values), rel=1e-12)
    assert result.median == np.median(values)


def test_result_travels():
    """As the bytes of the protocol, and pickled, as between the processes of pytest-xdist."""
    result = BenchmarkResult((1e-6, 2e-6))
    assert result.to_bytes() == struct.pack("<2d", 1e-6, 2e-6)
    for copy in (
        BenchmarkResult.from_bytes(result.to_bytes()),
        BenchmarkResult.from_bytes(memoryview(bytearray(result.to_bytes()))),
        *(pickle.loads(pickle.dumps(result, protocol)) for protocol in range(5)),
    ):
        assert repr(copy) == repr(result)
        assert copy.results == (1e-6, 2e-6)


@pytest.mark.parametrize(
    "received",
    [
        *(b"", b"1234567", b"123456789"),
        *(struct.pack("<2d", 1, wrong) for wrong in (1e300, -1e300, math.inf, math.nan)),
    ],
)
def test_bytes_that_are_no_durations_are_refused(received):
    """A server of another kind does not pass for one that measures."""
    with pytest.raises(ValueError, match=r"no doubles|no duration"):
        BenchmarkResult.from_bytes(received)
