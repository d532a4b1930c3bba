"""How long a function takes: the measuring loop and its result. Knows nothing of what it calls."""

from __future__ import annotations

import functools
import gc
import itertools
import math
import os
import struct
import time
from typing import TYPE_CHECKING, Any, Callable, List, NamedTuple, Optional, Sequence, Tuple, Union

from ..data_type import integer_of
from ..dlpack import DeviceType
from .report import Count, Duration, Percent, Ratio, Report

if TYPE_CHECKING:
    from .device.api import Device
    from .function import CompiledLoop, PackedFunc

__all__ = [
    "BenchmarkResult",
    "Count",
    "Duration",
    "Percent",
    "Ratio",
    "Report",
    "TimeEvaluator",
    "TimedCall",
    "Timing",
    "local_evaluator",
    "measure",
    "timed_call",
]


COMPILED, INTERPRETED = "compiled", "python"
"""The loops of a measurement."""


class BenchmarkResult:
    """Durations in seconds, each the mean of some calls.

    Args:
        results: the durations, at least one.
        loop: which loop made the calls: `COMPILED`, whose own share of a call is a few
            nanoseconds, or `INTERPRETED`, that of Python, with some hundreds. Empty if it is not
            known, as with servers of TVM.

    Attributes:
        results, mean, std (of the population), median, min, max: all in seconds.
        loop: as given.
    """

    __slots__ = ("loop", "max", "mean", "median", "min", "results", "std")

    def __init__(self, results: Sequence[float], loop: str = "") -> None:
        self.results: Tuple[float, ...] = tuple(map(float, results))
        self.loop = loop
        if not self.results:
            raise ValueError("no durations were measured; repeat must be 1 or more")
        count, ordered = len(self.results), sorted(self.results)
        middle = count // 2
        self.min = ordered[0]
        self.max = ordered[-1]
        self.mean = math.fsum(ordered) / count
        self.median = (ordered[middle] + ordered[-1 - middle]) / 2
        self.std = math.sqrt(math.fsum((result - self.mean) ** 2 for result in ordered) / count)

    @classmethod
    def from_bytes(
        cls, received: Union[bytes, bytearray, memoryview], *, tells_loop: bool = False
    ) -> BenchmarkResult:
        """From what a time evaluator returns: doubles, little-endian.

        Args:
            tells_loop: whether the last of them says which loop measured, as `to_bytes` writes it.

        Raises:
            ValueError: no doubles, or none that can be a duration.
        """
        count, rest = divmod(len(received), 8)
        if rest:
            raise ValueError(f"{len(received)} bytes are no doubles; expected a multiple of 8")
        results = struct.unpack(f"<{count}d", received)
        if not all(abs(result) < _LONGEST_S for result in results):  # nor for NaN
            raise ValueError(f"{max(results, key=abs)!r} is no duration in seconds")
        if not tells_loop:
            return cls(results)
        return cls(results[:-1], COMPILED if results[-1:] == (1.0,) else INTERPRETED)

    def to_bytes(self, *, tells_loop: bool = False) -> bytes:
        """What `from_bytes` reads."""
        last = (float(self.loop == COMPILED),) if tells_loop else ()
        return struct.pack(f"<{len(self.results) + len(last)}d", *self.results, *last)

    def __reduce__(self) -> Tuple[Any, ...]:
        return BenchmarkResult, (self.results, self.loop)

    def __repr__(self) -> str:
        return (
            f"BenchmarkResult(min={self.min}, mean={self.mean}, median={self.median}, "
            f"max={self.max}, std={self.std}, results={self.results})"
        )

    def __str__(self) -> str:
        titles = ("mean (ms)", "median (ms)", "max (ms)", "min (ms)", "std (ms)")
        values = (self.mean, self.median, self.max, self.min, self.std)
        return (
            "Execution time summary:\n"
            + " ".join(f"{title:^12}" for title in titles)
            + "\n"
            + " ".join(f"{value * 1000:^12.4f}" for value in values)
            + " " * 15
        )


_INT32_MAX = 2**31 - 1
_LONGEST_S = 1e12  # sums and squares of more might be no numbers any more
_DAY_MS = 24 * 60 * 60 * 1000


class Timing(NamedTuple):
    """How to measure: what ``time_evaluator`` takes, in its order.

    Attributes:
        number: calls in one measurement; it grows when they take less than `min_repeat_ms`, and
            keeps its grown value.
        repeat: measurements.
        min_repeat_ms: what one measurement takes at least, in milliseconds.
        limit_zero_time_iterations: after so many measurements of exactly 0 s, `min_repeat_ms` is
            given up.
        cooldown_interval_ms: how long to sleep after a measurement, in milliseconds.
        repeats_to_cooldown: after every how many measurements that is.
        cache_flush_bytes: how much to copy before each measurement, so that caches hold something
            else.
    """

    number: int = 10
    repeat: int = 1
    min_repeat_ms: int = 0
    limit_zero_time_iterations: int = 100
    cooldown_interval_ms: int = 0
    repeats_to_cooldown: int = 1
    cache_flush_bytes: int = 0

    def checked(self) -> Timing:
        """The same, with plain integers.

        Raises:
            TypeError: a setting is no integer; the message names it.
            ValueError: one is out of its range.
        """
        return Timing(*map(_checked, self._fields, self))


def flush_and_preproc(
    cache_flush_bytes: Any, f_preproc: Union[str, Callable[..., Any]]
) -> Tuple[int, Union[str, Callable[..., Any]]]:
    """The last two arguments of a time evaluator, of which older versions of TVM have the second.

    Args:
        cache_flush_bytes: of `Timing`; a text or a function is meant for the other.
        f_preproc: a function, or the name of a global one.

    Raises:
        TypeError: both are for `f_preproc`, or that is neither a function nor a name.
    """
    flush_bytes = cache_flush_bytes
    if isinstance(flush_bytes, str) or callable(flush_bytes):
        if f_preproc:
            raise TypeError(
                f"cache_flush_bytes is {flush_bytes!r}; expected an integer, since f_preproc is "
                "given, too"
            )
        f_preproc, flush_bytes = flush_bytes, 0
    if not isinstance(f_preproc, str) and not callable(f_preproc):
        raise TypeError(f"f_preproc is {f_preproc!r}; expected a function or its name")
    return flush_bytes, f_preproc


_LIMITS = {
    "number": (1, _INT32_MAX),
    "repeat": (1, 1_000_000),  # each is a double in the answer
    "min_repeat_ms": (0, _DAY_MS),
    "limit_zero_time_iterations": (0, _INT32_MAX),
    "cooldown_interval_ms": (0, _DAY_MS),
    "repeats_to_cooldown": (1, _INT32_MAX),
    "cache_flush_bytes": (0, 1 << 30),  # no cache is larger, and it is taken twice
}


def _checked(name: str, value: Any) -> int:
    least, most = _LIMITS[name]
    number = integer_of(value)
    if number is None:
        raise TypeError(f"{name} is {value!r}; expected an integer from {least} to {most}")
    if not least <= number <= most:
        raise ValueError(f"{name} is {value!r}; expected an integer from {least} to {most}")
    return number


class TimeEvaluator:
    """A function that takes the arguments of another one, and measures its calls.

    Args:
        name: of the function that is measured.
        timing: how it is measured.
        measure: what does it: takes the arguments, returns the durations.

    Attributes:
        name, timing: as given.
    """

    __slots__ = ("_measure", "name", "timing")

    def __init__(self, name: str, timing: Timing, measure: Callable[..., BenchmarkResult]) -> None:
        self.name = name
        self.timing = timing
        self._measure = measure

    def __call__(self, *args: Any) -> BenchmarkResult:
        """Measure calls with these arguments."""
        __tracebackhide__ = True
        return self._measure(*args)

    def __repr__(self) -> str:
        usual = Timing()
        settings = [
            f"{name}={value}"
            for name, value in self.timing._asdict().items()
            if name in ("number", "repeat") or value != getattr(usual, name)
        ]
        return f"<TimeEvaluator of {self.name}, {', '.join(settings)}>"


def local_evaluator(
    name: str,
    function: PackedFunc,
    device: Device,
    timing: Timing,
    preproc: Optional[Callable[..., Any]] = None,
) -> TimeEvaluator:
    """The measurement of a function of this machine.

    Args:
        name: what the function is called.
        function: what is measured.
        device: what is waited for before the clock is read.
        timing: how, checked.
        preproc: called with the arguments before each measurement, and not timed.

    Raises:
        DeviceError: nobody drives such devices here.
    """
    _ = device.api  # which raises

    def measured(*args: Any) -> BenchmarkResult:
        before = functools.partial(preproc, *args) if preproc else None
        loop = function.prepare_loop(*args)
        if loop is None:
            time_calls = functools.partial(_time_calls, function.prepare(*args), device.sync)
            return BenchmarkResult(measure(time_calls, device.sync, timing, before), INTERPRETED)
        time_calls = functools.partial(_time_loop, loop, device)
        return BenchmarkResult(measure(time_calls, device.sync, timing, before), COMPILED)

    return TimeEvaluator(name, timing, measured)


TimedCall = Callable[..., Tuple[Any, float]]
"""Takes the arguments of a function; returns its result and its duration in seconds."""


def timed_call(function: Callable[..., Any], device: Device) -> TimedCall:
    """One call each time, between two waits for the device.

    Raises:
        DeviceError: nobody drives such devices here.
    """
    _ = device.api  # which raises

    def call(*args: Any) -> Tuple[Any, float]:
        __tracebackhide__ = True
        device.sync()
        start = time.perf_counter()
        result = function(*args)
        device.sync()
        return result, time.perf_counter() - start

    return call


def measure(
    time_calls: Callable[[int], int],
    sync: Callable[[], None],
    timing: Timing,
    preproc: Optional[Callable[[], Any]] = None,
) -> List[float]:
    """Call a function ``1 + number * repeat`` times and time all calls but the first.

    This is the loop of TVM (src/runtime/profiling.cc, WrapTimeEvaluator).

    Args:
        time_calls: makes so many calls, waits for the device, and says how many nanoseconds that
            took.
        sync: waits for the device.
        timing: how, checked.
        preproc: called before each measurement, and not timed.

    Returns:
        Seconds for one call, for each measurement.

    Raises:
        ValueError: there is not so much memory to flush the caches with.
    """
    number = timing.number
    min_repeat_ms = timing.min_repeat_ms
    flush = _cache_flusher(timing.cache_flush_bytes)
    results: List[float] = []
    process = os.getpid()
    time_calls(1)
    _check_process(process)
    for index in range(timing.repeat):
        if preproc is not None:
            preproc()
        elapsed_ns = zero_times = 0
        while True:
            if elapsed_ns:
                number = _more_calls(number, elapsed_ns, min_repeat_ms)
            flush()
            sync()
            elapsed_ns = time_calls(number)
            _check_process(process)
            zero_times += not elapsed_ns
            if elapsed_ns >= min_repeat_ms * 1_000_000 or number == _INT32_MAX:
                break
            if zero_times >= timing.limit_zero_time_iterations:
                break
        results.append(elapsed_ns / 1e9 / number)
        if timing.cooldown_interval_ms and index % timing.repeats_to_cooldown == 0:
            time.sleep(timing.cooldown_interval_ms / 1000)
    return results


def _check_process(process: int) -> None:
    """Ends the measuring in a child that the function left: each call would make twice as many."""
    if os.getpid() != process:
        raise RuntimeError("the function that is measured has forked, and its child returned")


def _more_calls(number: int, elapsed_ns: int, min_repeat_ms: int) -> int:
    wanted = min_repeat_ms / (elapsed_ns / 1e6 / number) + 1
    return min(int(max(wanted, number * 1.618)), _INT32_MAX)


def _time_calls(run: Callable[[], Any], sync: Callable[[], None], number: int) -> int:
    """Nanoseconds for so many calls, with no garbage collection among them."""
    clock = time.perf_counter_ns
    calls = itertools.repeat(None, number)
    had_gc = gc.isenabled()
    gc.disable()
    try:
        start = clock()
        for _ in calls:
            run()
        sync()
        return clock() - start
    finally:
        if had_gc:
            gc.enable()


def _time_loop(loop: CompiledLoop, device: Device, number: int) -> int:
    """The same with the loop in machine code, whose clock is that of `time.perf_counter_ns`."""
    had_gc = gc.isenabled()
    gc.disable()  # the function may call Python
    try:
        start, end = loop(number)
        if device.device_type == DeviceType.CPU:
            return end - start
        device.sync()
        return time.perf_counter_ns() - start
    finally:
        if had_gc:
            gc.enable()


def _cache_flusher(nbytes: int) -> Callable[[], None]:
    """Copies so many bytes: read, since large writes may go past the caches."""
    try:
        source, target = bytearray(nbytes), bytearray(nbytes)
    except MemoryError:
        raise ValueError(f"cache_flush_bytes is {nbytes}: there is not so much memory") from None

    def flush() -> None:
        target[:] = source

    return flush
