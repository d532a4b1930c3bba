"""Calls of a module's functions, timed one by one."""

from __future__ import annotations

import time
from typing import Any, Dict, List, Optional

import numpy as np
import pytest

from pytest_tvmrpc import runtime
from pytest_tvmrpc.runtime.function import PackedFunc
from pytest_tvmrpc.runtime.profiling import Count, Report


class Functions(runtime.Module):
    """A module of Python functions."""

    kind = "functions"

    def __init__(self, **functions: Any) -> None:
        super().__init__()
        self.functions: Dict[str, PackedFunc] = {
            name: PackedFunc(function) for name, function in functions.items()
        }

    def find_function(self, name: str) -> Optional[PackedFunc]:
        return self.functions.get(name)


def fill(tensor: runtime.Tensor, value: float) -> None:
    tensor.copyfrom(np.full(tensor.shape, value, str(tensor.dtype)))


def columns(report: Report, name: str) -> List[Any]:
    return [call[name] for call in report.calls]


def test_what_a_report_says() -> None:
    """Each call, with what it was called with, how long it took, and its part of the whole."""
    tensor = runtime.empty((2, 3), "float32")
    shared = runtime.empty((4,), "int8")
    module = Functions(fill=fill, wait=lambda *_: time.sleep(0.02), main=lambda x: x + 1)
    with runtime.profile(module) as profile:
        profile["fill"](tensor, 2.5)
        profile.get_function("wait")(tensor, shared)
        assert profile(41) == 42
    assert tensor.numpy().tolist() == [[2.5] * 3] * 2
    report = profile.report
    assert columns(report, "Name") == ["fill", "wait", "main"]
    assert columns(report, "Device") == ["cpu0"] * 3
    assert columns(report, "Count") == [Count(1)] * 3
    assert columns(report, "Argument Shapes") == ["float32[2, 3]", "float32[2, 3], int8[4]", ""]
    durations = [duration.microseconds for duration in columns(report, "Duration (us)")]
    assert durations[1] >= 20_000
    percents = [percent.percent for percent in columns(report, "Percent")]
    assert sum(percents) == pytest.approx(100)
    assert percents[1] == pytest.approx(100 * durations[1] / sum(durations))
    total = report.device_metrics["cpu0"]
    assert total["Count"] == Count(3)
    assert total["Duration (us)"].microseconds == pytest.approx(sum(durations))  # type: ignore[union-attr]
    longest = report.calls[durations.index(max(durations))]["Name"]
    assert report.table().splitlines()[1].startswith(f"{longest} ")
    assert Report.from_json(report.json()).calls[0]["Name"] == "fill"


def test_a_call_that_fails() -> None:
    """Its error is the function's; the report has the other calls."""
    module = Functions(good=lambda: 1, bad=lambda: 1 // 0)
    profile = runtime.profile(module)
    profile["good"]()
    with pytest.raises(ZeroDivisionError):
        profile["bad"]()
    profile["good"]()
    assert columns(profile.report, "Name") == ["good", "good"]
    with pytest.raises(AttributeError, match="'none'"):
        profile["none"]
    assert repr(profile) == f"<Profile of {module!r}, 2 calls>"


def test_no_calls() -> None:
    """Are a report, too."""
    assert runtime.profile(Functions()).report == Report([], {}, {})


def test_the_device_that_is_waited_for() -> None:
    """It is the one that is named, before and after the function; else that of a tensor."""
    order: List[str] = []

    class Api(type(runtime.cpu(0).api)):  # type: ignore[misc]  # a class that is found at run time
        def sync(self, device: Any, stream: int) -> None:
            order.append("sync")

    class Slow(runtime.Device):
        api = Api()

    profile = runtime.profile(Functions(f=lambda: order.append("f")), Slow(12, 3))
    profile["f"]()
    assert order == ["sync", "f", "sync"]
    assert columns(profile.report, "Device") == ["ext_dev3"]
    assert profile.report.configuration == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("module",), "is no module"), ((Functions(), "cpu"), "is no device")],
)
def test_what_cannot_be_profiled(arguments: Any, message: str) -> None:
    """It is refused at once."""
    with pytest.raises(TypeError, match=message):
        runtime.profile(*arguments)
    with pytest.raises(TypeError, match=message):
        runtime.Profile(*arguments)
