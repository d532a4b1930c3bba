"""Functions and modules of a server: called here, run there; freed when dropped."""

from __future__ import annotations

import contextlib
import functools
import os
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

from ..data_type import DataType
from ..dlpack import OpaquePointer
from ..errors import LibraryError, RemoteError, RPCError
from ..owners import not_copied
from ..protocol.values import FunctionHandle, ModuleHandle
from ..runtime.function import PackedFunc
from ..runtime.module import Module, Path, described
from ..runtime.profiling import BenchmarkResult, TimedCall, TimeEvaluator, Timing, timed_call
from .files import write_whole
from .tensors import PACKET_LIMIT, RemoteDevice

if TYPE_CHECKING:
    from ..runtime.device.api import Device
    from ..session.endpoint import Endpoint
    from .session import RPCSession

PLAIN = frozenset((type(None), bool, int, float, str, bytes, DataType, OpaquePointer))
"""Types of results that are what they are; others stand for something of the server."""


_USUAL = (
    "tvm.rpc.server.upload",
    "tvm.rpc.server.load_module",
    "tvm.rpc.server.ModuleGetFunction",
    "runtime.RPCTimeEvaluator",
    "tvm.rpc.server.download",
    PACKET_LIMIT,
)
"""What nearly every session needs, looked up together when the first of them is."""


class ServerFunctions:
    """The handles of a server's functions by name, each looked up once.

    Args:
        peer: the server's host and port, for messages.

    Attributes:
        known: those that have been looked up; 0 for one that the server has not.
    """

    def __init__(self, endpoint: Endpoint, peer: Tuple[str, int]) -> None:
        self.known: Dict[str, int] = {}
        self._endpoint = endpoint
        self._peer = peer

    def needed(self, name: str) -> int:
        """One that every server has, by its short name; the usual ones are looked up along with it.

        Raises:
            AttributeError: the server has no such function.
        """
        full_name = name if name.startswith(("runtime.", "tvmrpc.")) else f"tvm.rpc.server.{name}"
        handle = self.known.get(full_name)
        if handle is None:
            names = [full_name, *(usual for usual in _USUAL if usual != full_name)]
            names = [wanted for wanted in names if wanted not in self.known]
            self.known.update(zip(names, self._endpoint.get_functions(names)))
            handle = self.known[full_name]
        if not handle:
            raise AttributeError(
                f"the server at {self._peer[0]}:{self._peer[1]} has no function {full_name}"
            )
        return handle

    def offered(self, name: str) -> int:
        """One that not every server has; 0 if this one has none."""
        handle = self.known.get(name)
        if handle is None:
            (handle,) = self._endpoint.get_functions([name])
            self.known[name] = handle
        return handle


@not_copied("open a session there, and get it from that")
class RemoteFunction(PackedFunc):
    """A function of a session's server.

    Attributes:
        place: where the server finds it by name: its module, or None for a global one; with the
            name. None if it has no name there.

    Raises, when called:
        RemoteError: it raised there; of the remote exception's type, too, where it is known.
        ConnectionLostError: the server or the session is gone.
    """

    __slots__ = ("_ask", "_sent", "handle", "place", "session")

    def __init__(self, session: RPCSession, handle: int, name: str) -> None:
        self.name = name
        self.is_global = False
        self.session = session
        self.handle = handle
        self.place: Optional[Tuple[Optional[ModuleOnServer], str]] = None
        self._ask = session.ask
        self._sent = session.sent

    def __call__(self, *args: Any) -> Any:
        __tracebackhide__ = True
        result = self._ask(self.handle, args, self.name, self._sent)
        return result if type(result) in PLAIN else self.session.received(result)

    def prepare(self, *args: Any) -> Callable[[], Any]:
        """The call of these arguments, to be made many times."""
        return functools.partial(self, *args)

    def make_evaluator(
        self, device: Device, timing: Timing, preproc: Union[str, Callable[..., Any]] = ""
    ) -> TimeEvaluator:
        """A function that takes the arguments of this one and measures its calls on the server.

        Raises:
            RemoteError: the settings make no sense to the server.
            ValueError: the server cannot find the function by name, the device is not one of this
                session, or the server's TVM lacks a setting.
        """
        if self.place is None:
            raise ValueError(
                f"{self.name} cannot be measured: the server measures what it finds by name; take "
                "the function from a module, as module['gemm'], or by remote.get_function"
            )
        return _make_evaluator(self.session, *self.place, device, timing, preproc)

    def __repr__(self) -> str:
        return f"<RemoteFunction {self.name or 'without a name'} on {self.session.address}>"

    def __del__(self) -> None:
        self.session.release(self.handle, FunctionHandle)


@not_copied("open a session there, and get it from that")
class ModuleOnServer:
    """What a module and its functions have in common: the server keeps it for the last of them."""

    __slots__ = ("handle", "session")

    def __init__(self, session: RPCSession, handle: int) -> None:
        self.session = session
        self.handle = handle

    def __del__(self) -> None:
        self.session.release(self.handle, ModuleHandle)


NAMES = "tvmrpc.server.function_names"
MISSING = "tvmrpc.server.missing_function"
FILE = "tvmrpc.server.module_file"
"""What a server of ours tells of a module: its functions, why there is none, its bytes."""

_OLD_ENTRY = "__tvm_main__"
"""What calling a module calls on servers of TVM up to 0.21; `Module.entry_name` since then."""


class RemoteModule(Module):
    """A module that a session's server has loaded.

    Attributes:
        name: of its file on the server; empty if it has none.
    """

    kind = "rpc"

    def __init__(self, session: RPCSession, handle: int, name: str = "") -> None:
        super().__init__()
        self.session = session
        self.handle = handle
        self.name = name
        self._there = ModuleOnServer(session, handle)
        if session.dialect == "legacy":
            self.entry_name = _OLD_ENTRY
        self._functions: Dict[str, RemoteFunction] = {}

    def find_function(self, name: str) -> Optional[PackedFunc]:
        """The server's function of this name, looked up once; imports are always searched."""
        known = self._functions.get(name)
        if known is None:
            there = name
            found = self.session.call_server("ModuleGetFunction", self, there, True)
            if found is None and name == Module.entry_name:  # TVM 0.21 speaks the FFI dialect, too
                there = _OLD_ENTRY
                found = self.session.call_server("ModuleGetFunction", self, there, True)
            if found is None:
                return None
            known = self._functions[name] = found
            known.name = name
            known.place = (self._there, there)
        return known

    def function_names(self) -> List[str]:
        """The names of all functions; of a server of TVM, which cannot tell, those found so far."""
        handle = self.session.offered(NAMES)
        if not handle:
            return sorted(self._functions)
        text: str = self.session.call(handle, (self,), NAMES)
        return text.split("\n") if text else []

    def _hint(self, name: str) -> str:
        handle = self.session.offered(MISSING)
        return str(self.session.call(handle, (self, name), MISSING)) if handle else ""

    def import_module(self, module: Module) -> None:
        """Lets this module's code, on the server, find the functions of another one there."""
        self.session.call_server("ImportModule", self, module)
        super().import_module(module)

    def clear_imports(self) -> None:
        """Lets this module's code, on the server, find no functions of other modules any more.

        Raises:
            LibraryError: the server is of TVM up to 0.20, which cannot do that.
        """
        name = "ffi.ModuleClearImports"
        handle = self.session.offered(name)
        if not handle:
            raise LibraryError(
                f"{self!r} keeps what it imports: its server has no function {name}, as TVM up to "
                "0.20 has none; load the module again"
            )
        self.session.call(handle, (self,), name)
        super().clear_imports()
        self._functions.clear()  # some may be of those

    def inspect_source(self, fmt: str = "") -> str:
        """The source that the server has of the module; empty where it has none."""
        for name in ("ffi.ModuleInspectSource", "runtime.ModuleGetSource"):
            handle = self.session.offered(name)
            if handle:
                return str(self.session.call(handle, (self, fmt), name))
        return ""

    def get_write_formats(self) -> Sequence[str]:
        """That of a library, which the server has linked."""
        return ["so"] if self.name else []

    def write_to_file(self, file_name: Path, fmt: str = "") -> None:
        """Fetches the library that the server has loaded, linked there if it was not yet.

        From a server of TVM comes what is under its name today.

        Raises:
            LibraryError: the module is of no file, or `fmt` is none of `get_write_formats`.
            RemoteError: the file is gone, or was replaced since it was loaded.
            OSError: the local file cannot be written.
        """
        if not self.name:
            raise LibraryError(
                f"{self!r} cannot be written to {os.fspath(file_name)}: it is of no file; expected "
                "a module that load_module returned"
            )
        if fmt not in ("", "so"):
            raise LibraryError(f"{self!r} cannot be written in the format {fmt!r}; expected 'so'")
        handle = self.session.offered(FILE)
        if handle:
            content = self.session.ask(handle, (self,), FILE, self.session.sent)
        else:
            content = self.session.download_linked_module(self.name)
        write_whole(file_name, content)

    def _names_now(self) -> List[str]:
        """The names, for display: never waits for another request, and never raises."""
        if self.session.is_idle:
            with contextlib.suppress(RPCError):
                return self.function_names()
        return sorted(self._functions)

    def make_evaluator(
        self,
        name: str,
        device: Device,
        timing: Timing,
        preproc: Union[str, Callable[..., Any]],
    ) -> TimeEvaluator:
        """`time_evaluator` on the server, without the network.

        Raises:
            RemoteError: the module has no such function, or the settings make no sense.
            ValueError: the device is not one of this session, or its TVM lacks a setting.
        """
        if name == Module.entry_name:  # under the name that the server has for it
            entry = self.find_function(name)
            name = entry.place[1] if isinstance(entry, RemoteFunction) and entry.place else name
        return _make_evaluator(self.session, self._there, name, device, timing, preproc)

    def host_device(self) -> Device:
        """The CPU of the server."""
        return self.session.cpu(0)

    def make_timed(self, name: str, device: Device) -> Tuple[TimedCall, str]:
        """What makes one call on the server; a server of ours takes its time there, too."""
        session = self.session
        if not session.is_ours:
            function = self.get_function(name, query_imports=True)
            return timed_call(function, device), "of the client, with the network"
        _check_device(session, device)
        there = session.call_server(
            "tvmrpc.server.timed", self._there, name, device.device_type, device.device_id
        )
        there.name = name

        def call(*args: Any) -> Tuple[Any, float]:
            __tracebackhide__ = True
            result = there(*args)
            return result, session.call_server("tvmrpc.server.seconds", there)

        return call, "of the server"

    def __repr__(self) -> str:
        what = f"{self.name or 'no file'} on {self.session.address}"
        return described("rpc", what, self._names_now())


def _make_evaluator(
    session: RPCSession,
    module: Optional[ModuleOnServer],
    name: str,
    device: Device,
    timing: Timing,
    preproc: Union[str, Callable[..., Any]],
) -> TimeEvaluator:
    """Measures a function of a module, or a global one, on the server."""
    if callable(preproc):
        raise ValueError("f_preproc is the name of a function of the server, not a function")
    _check_device(session, device)
    place = (module, name, device.device_type, device.device_id)
    measure, tells_loop = _make_measure(session, place, timing, preproc)
    measure.name = f"measuring {name}"
    meter = session.meter
    least_s = timing.repeat * timing.min_repeat_ms / 1000

    def measured(*args: Any) -> BenchmarkResult:
        result = BenchmarkResult.from_bytes(measure(*args), tells_loop=tells_loop)
        # The device lets `number` grow to reach min_repeat_ms, and does not say how far.
        meter.device_s += max(sum(result.results) * timing.number, least_s)
        return result

    return TimeEvaluator(name, timing, measured)


def _check_device(session: RPCSession, device: Device) -> None:
    if not (isinstance(device, RemoteDevice) and device.session is session):
        raise ValueError(f"{device!r} is not a device of this session; use e.g. remote.cpu(0)")


_TELL_LOOP = 1
"""What a server of ours is told behind the settings, see `session.measuring`."""

_LATER_SETTINGS = (
    (),
    ("cache_flush_bytes",),
    ("cache_flush_bytes", "limit_zero_time_iterations"),
    (
        "cache_flush_bytes",
        "limit_zero_time_iterations",
        "cooldown_interval_ms",
        "repeats_to_cooldown",
    ),
)
"""What a time evaluator does not take: from TVM 0.14 on, in 0.10 to 0.13, in 0.9, before."""


def _make_measure(
    session: RPCSession, place: Tuple[Any, ...], timing: Timing, preproc: str
) -> Tuple[RemoteFunction, bool]:
    """A measuring function of the server, with as many settings as its version of TVM takes.

    A session of the legacy dialect does not say which version it is; a server that is told one
    setting too many says so, and loses nothing by it. A server of ours takes one more than TVM's,
    unless it passes them on to one of TVM's.

    Returns:
        The function; whether its results say which loop measured.
    """
    made: RemoteFunction
    if session.is_ours:
        try:
            made = session.call_server(
                "runtime.RPCTimeEvaluator", *place, *timing, preproc, _TELL_LOOP
            )
            return made, True
        except RemoteError as error:
            if "arguments" not in str(error):
                raise
    if session.dialect != "legacy":
        made = session.call_server("runtime.RPCTimeEvaluator", *place, *timing, preproc)
        return made, False
    for missing in _LATER_SETTINGS:
        settings = [value for name, value in timing._asdict().items() if name not in missing]
        try:
            made = session.call_server("runtime.RPCTimeEvaluator", *place, *settings, preproc)
        except RemoteError as error:
            if missing == _LATER_SETTINGS[-1] or "arguments" not in str(error):
                raise
            continue
        lost = [name for name in missing if getattr(timing, name) != Timing._field_defaults[name]]
        if lost:
            raise ValueError(
                f"the server's TVM is too old for {', '.join(lost)} of time_evaluator; "
                "leave it at its default"
            )
        return made, False
    raise AssertionError("the last attempt returned or raised")
