"""Whether a benchmark has become slower: a rank test, a smallest change, earlier runs. No output.

A rank test alone would find the smallest change, if there are enough samples; a limit alone would
take noise for a change; and both only see what differs within a run. All three have to agree.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Sequence

from ..wording import percent
from . import statistics
from .records import FASTER, NEW, NOISY, SAME, SLOWER, Benchmark, seconds

if TYPE_CHECKING:
    from ..options import Options

LIMIT = 0.05
"""The smallest change that counts when the user names none."""

ALPHA = 0.01
"""A change is believed if chance alone made one like it less often than this."""

LEAST_SAMPLES = 5
"""On each side. One sample against a hundred may have a small p, and yet be an outlier."""

LEAST_RUNS = 3
"""Earlier runs without which nothing is known of how much runs differ."""

MOST_RUNS = 10
"""Earlier runs that are looked at, the newest: what was long ago says little."""

_POWER = 3.7
"""Standard errors of a difference that the rank test sees nine times in ten at `ALPHA`."""

_NINE_IN_TEN = 1.28
"""Standard deviations below a mean of which nine in ten values lie above."""


def wanted_run(options: Options) -> str | None:
    """The name of the stored run to compare with; empty for the newest, None for none."""
    if options.bench_compare is None and options.bench_fail is not None:
        return ""
    return options.bench_compare


def compare(
    current: Benchmark,
    baseline: Benchmark,
    run: str,
    run_at: float,
    earlier: Sequence[Benchmark] = (),
) -> Benchmark:
    """The benchmark with the outcome of its comparison; `fails` is left as it is.

    Args:
        current: with its `limit`.
        baseline: the same benchmark in a stored run.
        run: the name of that run.
        run_at: when it was stored, in seconds since the epoch.
        earlier: the same benchmark in stored runs, one after the other; they tell how much runs
            differ.
    """
    if _work(current) != _work(baseline):
        return replace(
            current,
            verdict=NEW,
            note=f"{run!r} measured other work ({_work(baseline)}; now {_work(current)})",
        )
    alike = [one.median_s for one in earlier if _work(one) == _work(current) and one.median_s > 0]
    between = statistics.wander(alike) if len(alike) >= LEAST_RUNS else -1.0
    before, now = baseline.median_s, current.median_s
    change = now / before - 1 if before > 0 else 0.0
    first, second = (current, baseline) if change >= 0 else (baseline, current)
    outcome = replace(
        current,
        baseline=run,
        baseline_at=run_at,
        baseline_median_s=before,
        change=change,
        p_value=statistics.rank_test(first.samples_s, second.samples_s),
        earlier=len(alike),
        between=between,
    )
    outcome = replace(outcome, visible=smallest_visible(outcome, baseline))
    verdict = _verdict(outcome)
    return replace(outcome, verdict=verdict, note=_doubt(outcome) if verdict == NOISY else "")


def _verdict(one: Benchmark) -> str:
    is_large = abs(one.change) > one.limit
    if one.visible < 0:
        return NOISY
    if is_large and one.p_value < ALPHA and abs(one.change) > explained(one):
        return SLOWER if one.change > 0 else FASTER
    return NOISY if is_large or one.visible > one.limit else SAME


def explained(one: Benchmark) -> float:
    """The change up to which it may be one of those between runs of the same; 0 if not known.

    Three standard deviations, and more while few runs tell how large one is. Of runs that differ
    by chance alone, 1 to 2 in 100 are beyond it, with three earlier runs as with ten.
    """
    return 3 * (1 + 3 / one.earlier) * one.between if one.between >= 0 else 0.0


def is_between_runs(one: Benchmark) -> bool:
    """Whether what hides changes is rather what runs differ by than the noise within them."""
    return explained(one) > one.visible / 2 >= 0


def missing(current: Benchmark, run: str) -> Benchmark:
    """The benchmark with the outcome that there is nothing to compare it with."""
    which = f"no stored run {run!r}" if run else "no stored run"
    note = f"{which} of {current.key or 'no key'} on {current.model} has it"
    return replace(current, verdict=NEW, note=note)


def smallest_visible(current: Benchmark, baseline: Benchmark) -> float:
    """The smallest change, as a part of the baseline, that would be seen nine times in ten.

    -1 if there are too few samples to believe in any, or nothing to be part of.

    Args:
        current: with what is known of earlier runs.
        baseline: what it is compared with.
    """
    counts = len(current.samples_s), len(baseline.samples_s)
    if min(counts) < LEAST_SAMPLES or baseline.median_s <= 0:
        return -1.0
    errors = (statistics.spread(one.samples_s) for one in (current, baseline))
    variance = sum(error**2 / count for error, count in zip(errors, counts))
    within = _POWER * math.sqrt(variance) / baseline.median_s
    if current.between < 0:
        return within
    both_runs = math.sqrt(2) * current.between
    return math.hypot(within, explained(current) + _NINE_IN_TEN * both_runs)


def describe(benchmark: Benchmark) -> str:
    """A comparison in one line, as a failing test says it."""
    direction = "slower" if benchmark.change >= 0 else "faster"
    return (
        f"{benchmark.name} on {benchmark.where}: {seconds(benchmark.median_s)}, baseline "
        f"{benchmark.baseline!r} {seconds(benchmark.baseline_median_s)}: "
        f"{percent(abs(benchmark.change))} {direction} (limit {100 * benchmark.limit:g} %), "
        f"{_chance(benchmark)}, noise (MAD) {benchmark.percent(benchmark.mad_s)}; "
        f"{_between(benchmark)}"
    )


def _between(one: Benchmark) -> str:
    if one.between >= 0:
        return f"earlier runs vary by {percent(one.between)}"
    runs = f"{one.earlier} earlier run{'' if one.earlier == 1 else 's'}"
    return f"{runs}: how much runs differ is not known; --rpc-bench-save several runs to teach it"


def _doubt(one: Benchmark) -> str:
    """Why a comparison has no other result."""
    if one.baseline_median_s <= 0:
        return "the baseline took no time that its clock could see"
    if one.visible < 0:
        return f"too few samples to see any change, {LEAST_SAMPLES} on each side are needed"
    if one.visible > one.limit:
        cause = f"{_between(one)}: " if is_between_runs(one) else ""
        return f"{cause}changes below {percent(one.visible)} cannot be seen"
    return f"the medians differ by more than the limit, the samples hardly ({_chance(one)})"


def _chance(one: Benchmark) -> str:
    return f"p = {one.p_value:.1g}" if one.p_value >= 1e-4 else "p < 0.0001"


def _work(benchmark: Benchmark) -> str:
    return f"flop {benchmark.flop:g}, bytes {benchmark.nbytes:g}"
