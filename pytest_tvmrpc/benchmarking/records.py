"""One benchmark: what was measured on a device, and how it compares. Measures and compares nothing.

A record is made where the test runs, travels in the test's `Attempt`, and is what a stored run is
made of: plain values, seconds, nothing rounded.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from typing import Any, List, Mapping

import pytest

from .. import wording
from ..wording import percent
from . import statistics

DERIVED = ("median_s", "mad_s", "iqr_s", "q1_s", "q3_s", "min_s", "gflops", "gbps")
"""What `Benchmark.to_json` adds for readers that have no statistics of their own."""

COMPARED = (
    *("verdict", "baseline", "baseline_at", "baseline_median_s", "change", "p_value", "limit"),
    *("visible", "earlier", "between", "fails", "note"),
)
"""What belongs to a comparison, and is not stored."""

SLOWER, FASTER, SAME, NOISY, NEW = "slower", "faster", "same", "noisy", "new"
"""The verdicts of a comparison; without one a benchmark has none."""


@dataclass(frozen=True)
class Benchmark:
    """A function measured on a device, and what became of its comparison with a stored run.

    Attributes:
        test: the node id of the test, without the device key that it ran on.
        name: of the function, or the one that it was given; no two of a test are the same.
        key: the device key.
        model: what kind of device it is.
        device: which one it was, as ``key@host:port``.
        started_at: in seconds since the epoch.
        number: calls in each sample.
        samples_s: seconds for one call, a mean over `number`.
        flop: floating-point operations of one call; 0 if not said.
        nbytes: bytes that one call reads and writes; 0 if not said.
        verdict: one of those above; empty if nothing was compared.
        baseline: the name of the stored run with which it was compared; empty if it has none.
        baseline_at: when that was stored, in seconds since the epoch.
        baseline_median_s: the median then.
        change: by which part the median grew; negative if it is faster.
        p_value: how likely ranks as extreme are by chance.
        limit: the smallest change that counts.
        visible: the smallest change that is seen nine times in ten, given the spread of the
            samples and that of earlier runs; -1 if there are too few samples for any.
        earlier: how many stored runs say how much runs differ.
        between: by which part they do, as a standard deviation; -1 if they are too few to say.
        fails: whether the test fails for it.
        note: what the user should know about the comparison.
    """

    test: str
    name: str
    key: str
    model: str
    device: str
    started_at: float
    number: int
    samples_s: list[float]
    flop: float = 0
    nbytes: float = 0
    verdict: str = ""
    baseline: str = ""
    baseline_at: float = 0.0
    baseline_median_s: float = 0.0
    change: float = 0.0
    p_value: float = 1.0
    limit: float = 0.0
    visible: float = 0.0
    earlier: int = 0
    between: float = -1.0
    fails: bool = False
    note: str = ""

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """What a benchmark has in common with itself in another run."""
        return self.test, self.name, self.model, self.key

    @property
    def where(self) -> str:
        """The key; the address if the session was opened without one."""
        return self.key or self.device

    @property
    def median_s(self) -> float:
        """The sample in the middle."""
        return statistics.median(self.samples_s)

    @property
    def mad_s(self) -> float:
        """The median distance from it."""
        return statistics.mad(self.samples_s)

    @property
    def iqr_s(self) -> float:
        """The distance between the quartiles."""
        return statistics.iqr(self.samples_s)

    @property
    def q1_s(self) -> float:
        """The lower quartile."""
        return statistics.quantile(self.samples_s, 0.25)

    @property
    def q3_s(self) -> float:
        """The upper quartile."""
        return statistics.quantile(self.samples_s, 0.75)

    @property
    def min_s(self) -> float:
        """The fastest sample."""
        return min(self.samples_s)

    @property
    def gflops(self) -> float:
        """Floating-point operations in a second at the median, in thousand millions; 0: unknown."""
        return self._rate(self.flop)

    @property
    def gbps(self) -> float:
        """Bytes in a second at the median, in thousand millions; 0: unknown."""
        return self._rate(self.nbytes)

    def _rate(self, work: float) -> float:
        return work / self.median_s / 1e9 if self.median_s > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """The same as plain values, with what follows from them."""
        return {**asdict(self), **{name: getattr(self, name) for name in DERIVED}}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Benchmark:
        """What `to_json` gave; names that are not known here are left out.

        Raises:
            ValueError, TypeError: it is none.
        """
        made = cls(**{name: values[name] for name in _NAMES if name in values})
        texts = (made.test, made.name, made.key, made.model)
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("test, name, key and model of a benchmark are not all text")
        if not made.samples_s or not all(isinstance(s, (int, float)) for s in made.samples_s):
            raise ValueError(f"samples_s of {made.name} is no list of numbers")
        return made

    def __str__(self) -> str:
        """For ``print`` in a test: ``gemm on jetson: 1.20 ms (MAD 0.8 %, ...), 28 GFLOP/s``."""
        rates = [f"{self.gflops:.3g} GFLOP/s"] if self.flop else []
        rates += [f"{self.gbps:.3g} GB/s"] if self.nbytes else []
        spread = f"MAD {self.percent(self.mad_s)}, IQR {self.percent(self.iqr_s)}"
        counts = f"{len(self.samples_s)} samples of {self.number} calls"
        return ", ".join(
            [f"{self.name} on {self.where}: {seconds(self.median_s)} ({spread}, {counts})", *rates]
        )

    def percent(self, duration_s: float) -> str:
        """A duration as a part of the median."""
        return percent(duration_s / self.median_s) if self.median_s > 0 else "-"


_NAMES = [field.name for field in fields(Benchmark)]

benchmarks_key = pytest.StashKey[List[Benchmark]]()
"""What a test has measured so far, in the stash of its item."""


def seconds(duration_s: float) -> str:
    """A duration with three digits: ``1.20 ms``, ``345 us``, ``2.00 s``."""
    return wording.seconds(duration_s, digits=3)


def without_key(nodeid: str, key: str) -> str:
    """A test's node id without the device key among its parameters.

    ``test_a.py::test_conv[jetson-3x3]`` and ``[rpi4-3x3]`` are one test on two devices.
    """
    start, bracket, rest = nodeid.partition("[")
    if not bracket or not rest.endswith("]"):
        return nodeid
    parameters = rest[:-1]
    found = re.search(rf"(?:^|-){re.escape(key)}(?=-|$)", parameters) if key else None
    if found:
        parameters = (parameters[: found.start()] + parameters[found.end() :]).removeprefix("-")
    return f"{start}[{parameters}]" if parameters else start
