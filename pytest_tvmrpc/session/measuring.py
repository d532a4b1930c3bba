"""What a session measures of its functions. The loop itself is `runtime.profiling`'s."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Optional, Tuple

from ..runtime.device.names import device
from ..runtime.function import PackedFunc
from ..runtime.module import Module

if TYPE_CHECKING:
    from ..runtime.device.api import Device

__all__ = ["Measuring", "seconds_of"]


class Measuring:
    """Makes functions that measure others. Whatever a client sends is checked.

    Args:
        find: finds a global function of the session by name.
    """

    def __init__(self, find: Callable[[str], Optional[PackedFunc]]) -> None:
        self._everything = _Globals(find)

    def time_evaluator(
        self, module: Any, name: Any, device_type: Any, device_id: Any, *settings: Any
    ) -> PackedFunc:
        """Measures a function on the device; its results are doubles in bytes, seconds per call.

        The settings grew with TVM's versions: 8, 10, 11 or 12 arguments in all. The first seven
        and the last are always the same. A 13th, of our clients, asks which loop measured: then
        there is one more double behind the others, 1 for the compiled one, else 0.

        Raises:
            TypeError: an argument is of a wrong type.
            ValueError: there are too many or too few, or one is out of its range.
            AttributeError: the module has no such function.
            DeviceError: nobody drives such devices here.
        """
        if len(settings) not in (4, 6, 7, 8, 9):
            raise ValueError(
                f"a time evaluator of {4 + len(settings)} arguments; expected 8 or 10 to 13"
            )
        from ..runtime.profiling import Timing  # which most sessions never need

        tells_loop = bool(settings[8]) if len(settings) == 9 else False
        *given, preproc = settings[:8]
        if len(given) == 5:  # TVM 0.9 has the cool-down, but not the limit before it
            given.insert(3, Timing().limit_zero_time_iterations)
        if not isinstance(preproc, str):
            raise TypeError(f"f_preproc is {preproc!r}; expected the name of a function")
        evaluate = self._subject(module, name).make_evaluator(
            name,
            _device(device_type, device_id),
            Timing(*given).checked(),
            self._everything.find_function(preproc) if preproc else "",
        )
        return PackedFunc(
            lambda *values: evaluate(*values).to_bytes(tells_loop=tells_loop), f"measuring {name}"
        )

    def timed(self, module: Any, name: Any, device_type: Any, device_id: Any) -> PackedFunc:
        """A function whose calls are timed; `seconds_of` tells how long the last one took.

        Raises:
            TypeError, ValueError, AttributeError: as `time_evaluator`.
        """
        subject = self._subject(module, name)
        return _TimedFunction(name, subject.make_timed(name, _device(device_type, device_id))[0])

    def _subject(self, module: Any, name: Any) -> Module:
        """The module whose function is measured."""
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{module!r} is no module; expected one, or None for a global function")
        if not isinstance(name, str):
            raise TypeError(f"{name!r} is no name of a function; expected a str")
        return self._everything if module is None else module


def seconds_of(function: Any) -> float:
    """How long the last call of a function of `Measuring.timed` took.

    Raises:
        TypeError: it is no such function.
    """
    if not isinstance(function, _TimedFunction):
        raise TypeError(f"{function!r} takes no time; expected a function of tvmrpc.server.timed")
    return function.seconds


class _TimedFunction(PackedFunc):
    """A function that remembers how long its last call took.

    Args:
        name: of the function.
        timed: calls it, and returns its result and its seconds.
    """

    __slots__ = ("seconds",)

    def __init__(self, name: str, timed: Callable[..., Tuple[Any, float]]) -> None:
        self.seconds = 0.0

        def call(*args: Any) -> Any:
            result, self.seconds = timed(*args)
            return result

        super().__init__(call, name)


def _device(device_type: Any, device_id: Any) -> Device:
    numbers = (device_type, device_id)
    if not all(isinstance(number, int) and not isinstance(number, bool) for number in numbers):
        raise TypeError(f"{numbers!r} is no device; expected two integers")
    return device(device_type, device_id)


class _Globals(Module):
    """A session's global functions as a module: what is measured when no module is named."""

    kind = "global"

    def __init__(self, find: Callable[[str], Optional[PackedFunc]]) -> None:
        super().__init__()
        self._find_global = find

    def find_function(self, name: str) -> PackedFunc:
        found = self._find_global(name)
        if found is None:
            raise ValueError(f"Cannot find {name} in the global registry")
        return found
