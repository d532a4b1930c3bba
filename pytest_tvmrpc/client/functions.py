"""Functions and modules of a server: called here, run there; freed when dropped."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional, Union

from ..dlpack import DataType, OpaquePointer
from ..runtime.function import PackedFunc
from ..runtime.module import Module
from ..runtime.profiling import BenchmarkResult
from .tensors import RemoteDevice

if TYPE_CHECKING:
    from ..runtime.device.api import Device
    from .session import RPCSession

PLAIN = frozenset((type(None), bool, int, float, str, bytes, DataType, OpaquePointer))
"""Types of results that are what they are; others stand for something of the server."""


class RemoteFunction(PackedFunc):
    """A function of a session's server.

    Raises, when called:
        RemoteError: it raised there; of the remote exception's type, too, where it is known.
        ConnectionLostError: the server or the session is gone.
    """

    __slots__ = ("_ask", "_sent", "handle", "session")

    def __init__(self, session: RPCSession, handle: int, name: str) -> None:
        self.name = name
        self.is_global = False
        self.session = session
        self.handle = handle
        self._ask = session.ask
        self._sent = session.sent

    def __call__(self, *args: Any) -> Any:
        __tracebackhide__ = True
        result = self._ask(self.handle, args, self.name, self._sent)
        return result if type(result) in PLAIN else self.session.received(result)

    def prepare(self, *args: Any) -> Callable[[], Any]:
        """The call of these arguments, to be made many times."""
        return functools.partial(self, *args)

    def __del__(self) -> None:
        self.session.release(self.handle)


class RemoteObject:
    """Something of the server that is no tensor, function or module; it can be passed back."""

    __slots__ = ("handle", "session")

    def __init__(self, session: RPCSession, handle: int) -> None:
        self.session = session
        self.handle = handle

    def __del__(self) -> None:
        self.session.release(self.handle)


class RemoteModule(Module):
    """A module that a session's server has loaded."""

    kind = "rpc"

    def __init__(self, session: RPCSession, handle: int) -> None:
        super().__init__()
        self.session = session
        self.handle = handle
        self._functions: Dict[str, RemoteFunction] = {}

    def find_function(self, name: str) -> Optional[PackedFunc]:
        """The server's function of this name, looked up once; imports are always searched."""
        known = self._functions.get(name)
        if known is None:
            found = self.session.call_server("ModuleGetFunction", self, name, True)
            if found is None:
                return None
            known = self._functions[name] = found
            known.name = name
        return known

    def import_module(self, module: Module) -> None:
        """Lets this module's code, on the server, find the functions of another one there."""
        self.session.call_server("ImportModule", self, module)
        super().import_module(module)

    def time_evaluator(
        self,
        func_name: str,
        dev: Device,
        number: int = 10,
        repeat: int = 1,
        min_repeat_ms: int = 0,
        limit_zero_time_iterations: int = 100,
        cooldown_interval_ms: int = 0,
        repeats_to_cooldown: int = 1,
        cache_flush_bytes: int = 0,
        f_preproc: Union[str, Callable[..., Any]] = "",
    ) -> Callable[..., BenchmarkResult]:
        """A function that measures calls of `func_name` on the server, without the network.

        Arguments and result are those of `Module.time_evaluator`; the device is the session's.

        Raises:
            RemoteError: the module has no such function, or the settings make no sense.
            ValueError: the device is not one of this session.
        """
        if callable(f_preproc):
            raise ValueError("f_preproc is the name of a function of the server, not a function")
        if not (isinstance(dev, RemoteDevice) and dev.session is self.session):
            raise ValueError(f"{dev!r} is not a device of this session; use e.g. remote.cpu(0)")
        measure = self.session.call_server(
            "runtime.RPCTimeEvaluator",
            self,
            func_name,
            dev.device_type,
            dev.device_id,
            number,
            repeat,
            min_repeat_ms,
            limit_zero_time_iterations,
            cooldown_interval_ms,
            repeats_to_cooldown,
            cache_flush_bytes,
            f_preproc,
        )
        measure.name = f"measuring {func_name}"
        meter = self.session.meter

        def evaluate(*args: Any) -> BenchmarkResult:
            result = BenchmarkResult.from_bytes(measure(*args))
            # The device lets `number` grow to reach min_repeat_ms, and does not say how far.
            meter.device_s += max(sum(result.results) * number, repeat * min_repeat_ms / 1000)
            return result

        return evaluate

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            self.session.release(self.handle)

    def __repr__(self) -> str:
        return f"Module(rpc, {self.handle:x})"
