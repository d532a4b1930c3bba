"""Measuring several peers in turn, round by round, and what came of it. Knows no peer.

Drift of the machine (a neighbour, a clock) hits whoever is measured at that moment. So all peers
are measured in each round, one after the other, and compared within the round.
"""

from __future__ import annotations

import contextlib
import gc
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from types import FrameType

Sampler = Callable[[], Sequence[float]]

STEP_LIMIT_S = 180.0


class StepTimeoutError(Exception):
    """A step of the bench did not end within its limit."""


class Outcome(NamedTuple):
    """What one peer reached on one line: the p50 of each round, or why there is none."""

    rounds: tuple[float, ...] = ()
    error: str = ""
    absent: bool = False

    @property
    def value(self) -> float | None:
        """The p50 over the rounds."""
        return statistics.median(self.rounds) if self.rounds else None

    def scaled(self, convert: Callable[[float], float]) -> Outcome:
        """The same in another unit."""
        return self._replace(rounds=tuple(convert(figure) for figure in self.rounds))


ABSENT = Outcome(absent=True)


def ratio(ours: Outcome, other: Outcome) -> float | None:
    """The p50 of the ratios within a round; of the p50s, where the rounds do not pair up."""
    if ours.value is None or not other.value:
        return None
    if len(ours.rounds) == len(other.rounds):
        pairs = zip(ours.rounds, other.rounds, strict=True)
        return statistics.median(mine / theirs for mine, theirs in pairs if theirs)
    return ours.value / other.value


def explain(error: BaseException) -> str:
    """One line for a footnote."""
    text = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {text}"[:300]


@contextlib.contextmanager
def step_limit(limit_s: float = STEP_LIMIT_S) -> Iterator[None]:
    """Raises StepTimeoutError in the main thread when the block takes longer: no peer hangs us."""

    def ring(signum: int, frame: FrameType | None) -> None:
        raise StepTimeoutError(f"not done within {limit_s:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Contest:
    """The peers that are measured together on one line.

    A peer that cannot take part, or fails in some round, gets its error as outcome; the others go
    on.
    """

    def __init__(self, rounds: int, missing: Mapping[str, Outcome] | None = None) -> None:
        self._rounds = rounds
        self._missing = dict(missing or {})
        self._samplers: dict[str, Sampler] = {}
        self._errors: dict[str, str] = {}

    def enter(self, name: str, prepare: Callable[[], Sampler]) -> None:
        """Lets `name` take part; `prepare` does what is not measured and gives the sampler."""
        try:
            with step_limit():
                self._samplers[name] = prepare()
        except Exception as error:  # any failure of a peer is a result, not our end
            self._errors[name] = explain(error)

    def fail(self, name: str, error: str) -> None:
        """Records that `name` could not even be started."""
        self._errors[name] = error

    def run(self) -> dict[str, Outcome]:
        """Measures all peers, in turn, round by round."""
        figures: dict[str, list[float]] = {name: [] for name in self._samplers}
        for _ in range(self._rounds):
            for name, sample in self._samplers.items():
                if name in self._errors:
                    continue
                try:
                    with step_limit(), _no_collection():
                        figures[name].append(statistics.median(sample()))
                except Exception as error:  # as in enter()
                    self._errors[name] = explain(error)
        outcomes = {name: Outcome(tuple(rounds)) for name, rounds in figures.items()}
        outcomes.update(self._missing)
        outcomes.update((name, Outcome(error=text)) for name, text in self._errors.items())
        self._samplers.clear()  # they hold tensors, which are to go before their session
        return outcomes


def each(action: Callable[[], Any], count: int) -> list[float]:
    """Seconds of each of `count` executions."""
    clock = time.perf_counter_ns
    samples = []
    for _ in range(count):
        start = clock()
        action()
        samples.append((clock() - start) / 1e9)
    return samples


def batches(
    action: Callable[[], Any], settle: Callable[[], Any], count: int, size: int = 50
) -> list[float]:
    """Seconds of one execution, for each batch of `size`; `settle` waits until all are done.

    For what may return before the other side is done: single executions would look too fast.
    """

    def batch() -> None:
        for _ in range(size):
            action()
        settle()

    return [lasted_s / size for lasted_s in each(batch, max(1, count // size))]


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage collection inside: it would hit whoever is measured just then (as timeit does)."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
