"""When a benchmark counts as slower, faster, the same, or as too noisy to tell."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from typing import Callable, Sequence

import pytest

from pytest_tvmrpc.benchmarking import comparison
from pytest_tvmrpc.benchmarking.records import Benchmark
from pytest_tvmrpc.options import Options

Make = Callable[..., Benchmark]

STEADY = (0.99, 1.0, 1.0, 1.0, 1.01, 0.995, 1.005, 1.0, 0.998, 1.002)
NOISY = (0.7, 1.3, 0.8, 1.2, 0.9, 1.1, 1.0, 1.0, 0.75, 1.25)


def _compared(
    current: Benchmark, baseline: Benchmark, earlier: Sequence[Benchmark] = ()
) -> Benchmark:
    return comparison.compare(current, baseline, "main", 500.0, earlier)


@pytest.mark.parametrize(
    ("median_s", "verdict"),
    [(1e-3, "same"), (1.04e-3, "same"), (1.1e-3, "slower"), (0.9e-3, "faster")],
)
def test_both_have_to_agree(make: Make, median_s: float, verdict: str) -> None:
    """A change counts beyond the limit; below it, it may be as certain as it likes."""
    result = _compared(make(median_s, limit=0.05), make())
    assert result.verdict == verdict
    assert result.change == pytest.approx(median_s / 1e-3 - 1)
    assert (result.baseline, result.baseline_at) == ("main", 500.0)
    assert result.baseline_median_s == pytest.approx(1e-3)
    if verdict != "same":
        assert result.p_value < 1e-4
    assert not result.fails


def test_a_median_beyond_the_limit_may_be_chance(make: Make) -> None:
    """Samples that overlap widely are no evidence; that they are noisy is said, and how much."""
    current = make(1.1e-3, NOISY, limit=0.05)
    result = _compared(current, make(1e-3, NOISY))
    assert result.change == pytest.approx(0.1)
    assert result.verdict == "noisy"
    assert result.p_value > 0.01
    assert result.visible > 0.2
    assert re.fullmatch(r"changes below \d+ % cannot be seen", result.note)


def test_a_change_that_noise_cannot_hide(make: Make) -> None:
    """However large the spread: twice as slow is slower."""
    assert _compared(make(2e-3, NOISY, limit=0.05), make(1e-3, NOISY)).verdict == "slower"


def test_too_few_samples(make: Make) -> None:
    """With four on each side the rank test can find nothing, and that is said."""
    few = (1.0, 1.0, 1.01, 0.99)
    result = _compared(make(2e-3, few, limit=0.05), make(1e-3, few))
    assert (result.verdict, result.visible) == ("noisy", -1.0)
    assert result.note == "too few samples to see any change, 5 on each side are needed"
    five = (*few, 1.0)
    assert _compared(make(2e-3, five, limit=0.05), make(1e-3, five)).verdict == "slower"


def test_one_sample_against_many(make: Make) -> None:
    """It may be an outlier like any other: neither slower nor the same."""
    many = [1.0 + 0.0001 * place for place in range(120)]
    result = _compared(make(1e-3, [1.5], limit=0.05), make(1e-3, many))
    assert result.change > 0.4
    assert (result.verdict, result.visible) == ("noisy", -1.0)


def test_the_same_has_no_change_that_counts(make: Make) -> None:
    """Medians beyond the limit are never "the same", however little the samples scatter."""
    coarse = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.06, 1.06, 1.06, 1.06)
    now = (1.0, 1.0, 1.0, 1.06, 1.06, 1.06, 1.06, 1.06, 1.06, 1.06)
    calm = tuple(1 + (value - 1) / 1e4 for value in STEADY)
    for samples, baseline in ((now, coarse), ((*calm[:5], *[1.1] * 6), calm)):
        result = _compared(make(1e-3, samples, limit=0.05), make(1e-3, baseline))
        assert result.change > result.limit
        assert result.verdict in ("noisy", "slower")
    hardly = replace(result, verdict="", visible=0.01, p_value=0.016)
    assert comparison._verdict(hardly) == "noisy"
    assert comparison._doubt(hardly) == (
        "the medians differ by more than the limit, the samples hardly (p = 0.02)"
    )


def _earlier(make: Make, *medians: float) -> list[Benchmark]:
    return [make(1e-3 * median) for median in medians]


def test_runs_that_differ(make: Make) -> None:
    """What earlier runs of the same differ by is no regression, and their number is said."""
    earlier = _earlier(make, 1.0, 1.05, 0.98, 1.06, 1.01, 0.97, 1.04, 1.0)
    result = _compared(make(1.1e-3, limit=0.05), make(), earlier)
    assert (result.verdict, result.earlier) == ("noisy", 8)
    assert 0.03 < result.between < 0.06
    assert result.visible > comparison.explained(result) > 0.1
    assert re.fullmatch(
        r"earlier runs vary by 4\.\d %: changes below \d\d % cannot be seen", result.note
    )
    assert _compared(make(2e-3, limit=0.05), make(), earlier).verdict == "slower"
    assert _compared(make(0.5e-3, limit=0.05), make(), earlier).verdict == "faster"
    assert _compared(make(1e-3, limit=0.05), make(), earlier).verdict == "noisy"


def test_runs_that_agree(make: Make) -> None:
    """A quiet board: earlier runs take nothing from the limit."""
    earlier = _earlier(make, 1.0, 1.002, 0.999, 1.001)
    assert _compared(make(1.06e-3, limit=0.05), make(), earlier).verdict == "slower"
    assert _compared(make(1.04e-3, limit=0.05), make(), earlier).verdict == "same"


def test_a_step_in_the_past(make: Make) -> None:
    """That the code became faster once does not hide that it is slower again."""
    levels = (1.5, 1.502, 1.498, 1.5, 1.501, 1.0, 1.001, 0.999, 1.002, 1.0)
    result = _compared(make(1.2e-3, limit=0.05), make(), _earlier(make, *levels))
    assert result.between < 0.01
    assert result.verdict == "slower"


@pytest.mark.parametrize("known", [0, 1, 2])
def test_too_few_runs(make: Make, known: int) -> None:
    """How much runs differ is not known then, the limit alone decides, and the message says so."""
    earlier = _earlier(make, 1.0, 2.0)[:known]
    result = _compared(make(1.2e-3, limit=0.05), make(), earlier)
    assert (result.verdict, result.earlier, result.between) == ("slower", known, -1.0)
    runs = "1 earlier run" if known == 1 else f"{known} earlier runs"
    assert comparison.describe(result).endswith(
        f"; {runs}: how much runs differ is not known; --rpc-bench-save several runs to teach it"
    )


def test_runs_of_other_work(make: Make) -> None:
    """They say nothing about this one."""
    earlier = [make(median, flop=9.0) for median in (1e-3, 2e-3, 3e-3, 4e-3)]
    result = _compared(make(1.2e-3, limit=0.05), make(), earlier)
    assert (result.verdict, result.earlier) == ("slower", 0)


@pytest.mark.parametrize(("between", "runs"), [(0.02, 5), (0.03, 3), (0.05, 10)])
def test_identical_code_on_a_noisy_machine(make: Make, between: float, runs: int) -> None:
    """A gate of 5 % that has seen a few runs does not fail what runs differ by anyway."""
    chance = random.Random(4)

    def measured() -> Benchmark:
        level = 1 + chance.gauss(0, between)
        return make(level, [chance.gauss(1, 0.01) for _ in range(10)], limit=0.05)

    once = twice = 0
    for _ in range(400):
        earlier = [measured() for _ in range(runs)]
        slower = [_compared(measured(), earlier[-1], earlier).verdict == "slower" for _ in "ab"]
        once += slower[0]
        twice += all(slower)
    assert once <= 12  # 3 in 100; without earlier runs 5, 13, and 23
    assert twice <= 4  # 1 in 100; without them 1, 5, and 11


def test_other_work(make: Make) -> None:
    """A benchmark whose work has changed is a new one, and the note says what it was."""
    result = _compared(make(2e-3, flop=2e9, limit=0.05), make(flop=1e9))
    assert result.verdict == "new"
    assert result.note == (
        "'main' measured other work (flop 1e+09, bytes 0; now flop 2e+09, bytes 0)"
    )


def test_a_baseline_of_nothing(make: Make) -> None:
    """Medians of 0 seconds, from a clock that is too coarse, are noise, not an error."""
    result = _compared(make(limit=0.05), make(0.0))
    assert (result.verdict, result.change) == ("noisy", 0.0)
    assert result.note == "the baseline took no time that its clock could see"


def test_what_is_visible_is_seen(make: Make) -> None:
    """Of changes as large as the smallest visible one, nine in ten are found."""
    chance = random.Random(5)

    def samples(median: float) -> list[float]:
        return [chance.gauss(median, 0.03) for _ in range(10)]

    visible = 3.7 * 0.03 * (2 / 10) ** 0.5
    found = sum(
        _compared(make(1, samples(1 + visible), limit=1e-6), make(1, samples(1))).verdict
        == "slower"
        for _ in range(400)
    )
    assert 0.82 < found / 400 < 0.97


def test_the_same_is_seldom_slower(make: Make) -> None:
    """Of pairs from one distribution, about one in a hundred has a p that small."""
    chance = random.Random(6)
    pairs = [[[chance.gauss(1, 0.1) for _ in range(10)] for _ in "ab"] for _ in range(600)]
    slower = sum(
        _compared(make(1, a, limit=1e-9), make(1, b)).verdict == "slower" for a, b in pairs
    )
    assert slower <= 14


def test_in_one_line(make: Make) -> None:
    """What a failing test says."""
    earlier = _earlier(make, 1.0, 1.003, 1.0)
    result = _compared(make(1.2e-3, limit=0.05), make(), earlier)
    assert comparison.describe(result) == (
        "gemm on jetson: 1.20 ms, baseline 'main' 1.00 ms: 20 % slower (limit 5 %), p < 0.0001, "
        "noise (MAD) 0.2 %; earlier runs vary by 0.2 %"
    )


def test_missing(make: Make) -> None:
    """The note says which run was looked for."""
    assert comparison.missing(make(), "").note == "no stored run of jetson on Orin has it"
    result = comparison.missing(make(), "main")
    assert result.verdict == "new"
    assert result.note == "no stored run 'main' of jetson on Orin has it"


@pytest.mark.parametrize(
    ("compare", "fail", "wanted"),
    [(None, None, None), ("", None, ""), ("main", 0.1, "main"), (None, 0.1, "")],
)
def test_the_run_to_compare_with(
    compare: "str | None", fail: "float | None", wanted: "str | None"
) -> None:
    """A limit alone compares with the newest run."""
    options = Options(bench_compare=compare, bench_fail=fail)
    assert comparison.wanted_run(options) == wanted
