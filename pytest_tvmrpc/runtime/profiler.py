"""Calls of a module's functions, each of them timed where it runs. Measures once, repeats nothing.

`profiling` measures one function many times; a profile is of what a program does.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

from ..dlpack import DEVICE_TYPES
from .device.api import Device
from .module import Module
from .report import Count, Duration, Percent, Report
from .tensor import Tensor

__all__ = ["Profile", "profile"]


class _Call(NamedTuple):
    """One call, timed."""

    name: str
    device: str
    shapes: str
    duration_us: float


class Profile:
    """The functions of a module, which are timed as they are called.

    A call waits for the device before and after it, so that its duration is the function's own.
    That of a remote module is taken by its server; a server of TVM's cannot do that, and then the
    network is a part of it: the report's configuration says which it is, under ``Clock``.

    Args:
        module: here or on a server.
        device: what to wait for; by default the device of a call's first tensor, or a CPU.

    Attributes:
        module: as given.
    """

    def __init__(self, module: Module, device: Optional[Device] = None) -> None:
        if not isinstance(module, Module):
            raise TypeError(f"{module!r} is no module; expected what load_module returns")
        if device is not None and not isinstance(device, Device):
            raise TypeError(f"{device!r} is no device; expected e.g. runtime.cpu(0), or None")
        self.module = module
        self._device = device
        self._calls: List[_Call] = []
        self._timed: Dict[Any, Callable[..., Any]] = {}
        self._clock = ""

    def get_function(self, name: str) -> Callable[..., Any]:
        """A function of the module; its calls are timed, and return what the function returns.

        Raises:
            AttributeError: the module has no such function, nor has one that it imports.
        """
        __tracebackhide__ = True
        self.module.get_function(name, query_imports=True)

        def call(*args: Any) -> Any:
            __tracebackhide__ = True
            return self._call(name, args)

        return call

    def __getitem__(self, name: str) -> Callable[..., Any]:
        __tracebackhide__ = True
        return self.get_function(name)

    def __call__(self, *args: Any) -> Any:
        """A call of the module's entry."""
        __tracebackhide__ = True
        return self._call(self.module.entry_name, args)

    def __enter__(self) -> Profile:
        return self

    def __exit__(self, *exception: object) -> None:
        self._timed.clear()

    @property
    def report(self) -> Report:
        """Name, device, duration, count and shapes of all calls so far that returned.

        Durations are in microseconds, shapes those of the tensors among the arguments
        (``float32[2, 3], int8[4]``), percentages of all calls together.
        """
        total = sum(call.duration_us for call in self._calls)
        devices = dict.fromkeys(call.device for call in self._calls)
        return Report(
            [self._entries(call, total) for call in self._calls],
            {device: self._sums(device, total) for device in devices},
            {"Clock": self._clock} if self._clock else {},
        )

    def _call(self, name: str, args: Sequence[Any]) -> Any:
        __tracebackhide__ = True
        device = self._device or _device_of(args) or self.module.host_device()
        timed = self._timed.get((name, device))
        if timed is None:
            timed, self._clock = self.module.make_timed(name, device)
            self._timed[name, device] = timed
        shapes = ", ".join(_shape_text(arg) for arg in args if isinstance(arg, Tensor))
        result, duration_s = timed(*args)
        self._calls.append(_Call(name, _device_text(device), shapes, duration_s * 1e6))
        return result

    @staticmethod
    def _entries(call: _Call, total_us: float) -> Dict[str, Any]:
        return {
            "Name": call.name,
            "Duration (us)": Duration(call.duration_us),
            "Percent": _percent(call.duration_us, total_us),
            "Device": call.device,
            "Count": Count(1),
            "Argument Shapes": call.shapes,
        }

    def _sums(self, device: str, total_us: float) -> Dict[str, Any]:
        durations = [call.duration_us for call in self._calls if call.device == device]
        return {
            "Duration (us)": Duration(sum(durations)),
            "Percent": _percent(sum(durations), total_us),
            "Device": device,
            "Count": Count(len(durations)),
        }

    def __repr__(self) -> str:
        return f"<Profile of {self.module!r}, {len(self._calls)} calls>"


def profile(module: Module, device: Optional[Device] = None) -> Profile:
    """The functions of a module, which are timed as they are called.

    ::

        with runtime.profile(module) as profile:
            profile["add"](a, b, c)
            profile["mul"](c, c, d)
        print(profile.report.table())

    Args:
        module: of this machine or of a session.
        device: what a call waits for; by default the device of its first tensor, or a CPU.

    Returns:
        A `Profile`: its functions are those of the module, its ``report`` is of all their calls.

    Raises:
        TypeError: this is no module, or no device.
    """
    return Profile(module, device)


def _percent(part: float, whole: float) -> Percent:
    return Percent(100 * part / whole if whole else 100.0)


def _device_of(args: Sequence[Any]) -> Optional[Device]:
    return next((arg.device for arg in args if isinstance(arg, Tensor)), None)


def _device_text(device: Device) -> str:
    """``cpu0``, as TVM names devices in reports."""
    kinds = (name for name, number in DEVICE_TYPES.items() if number == device.device_type)
    return f"{next(kinds, device.device_type)}{device.index}"


def _shape_text(tensor: Tensor) -> str:
    return f"{tensor.dtype}[{', '.join(map(str, tensor.shape))}]"
