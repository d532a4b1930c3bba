"""DirectEndpoint: asks a session of this very process. No packets, no connection.

It has the requests of `Endpoint`, so that whatever is made for a session with a server also works
with one here, and raises what that would raise.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Callable, List, NoReturn, Optional, Sequence

from ..dlpack import Device, OpaquePointer, TensorRecord
from ..errors import ConnectionLostError, RemoteError, remote_error
from ..protocol.codes import RPCCode
from ..protocol.dialect import FFI
from ..protocol.requests import REQUESTS, answered, fitted
from ..protocol.values import (
    ByteSource,
    FunctionHandle,
    ModuleHandle,
    ObjectHandle,
    TensorResult,
)
from .channel import Meter
from .conversation import clock
from .later import Pending
from .serving import describe

if TYPE_CHECKING:
    from .local import LocalSession

_PLAIN = frozenset((type(None), bool, int, float, str, bytes))
_RESOLVED = frozenset((TensorRecord, Device, FunctionHandle, ModuleHandle, ObjectHandle))


class DirectEndpoint:
    """The requests of an `Endpoint`, answered by a session here.

    Args:
        session: does what is asked for.

    Attributes:
        dialect, is_ours, is_lost, meter, closed_because: as an endpoint's.
    """

    dialect = FFI
    is_ours = True
    is_lost = False
    takes_handles = False
    channel = None

    def __init__(self, session: LocalSession) -> None:
        self.meter = Meter()
        self.closed_because: Optional[str] = None
        self._session = session

    @property
    def is_idle(self) -> bool:
        """As an endpoint's: there is nobody to wait for."""
        return self.closed_because is None

    def call(
        self,
        handle: int,
        arguments: Sequence[Any],
        name: str,
        translate: Optional[Callable[[Any], Any]] = None,
    ) -> Any:
        """Calls a function of the session; handles are returned as they are."""
        __tracebackhide__ = True
        values = [self._resolved(value, translate) for value in arguments]
        return self._done(lambda: self._session.call(handle, values))

    def start(
        self,
        handle: int,
        arguments: Sequence[Any],
        name: str,
        translate: Optional[Callable[[Any], Any]] = None,
    ) -> Pending:
        """Calls a function; there is nothing to wait for."""
        pending = Pending(name, _read_nothing, self.abandon)
        try:
            pending.value = self.call(handle, arguments, name, translate)
            pending.is_done = True
        except RemoteError as error:
            pending.fail(error)
        return pending

    def finish(self, pending: Optional[Pending] = None) -> None:
        """Everything is finished already."""

    def abandon(self, pending: Pending) -> None:
        """Nobody will ask for this result: what it holds is let go."""
        value, pending.value = pending.value, None
        if isinstance(value, TensorResult):
            self.release(value.handle, TensorResult)
        elif isinstance(value, (FunctionHandle, ModuleHandle, ObjectHandle)):
            self.release(value, type(value))

    def syscall(self, code: int, *values: Any) -> Any:
        """Has the session do what a request of this code asks for."""
        __tracebackhide__ = True
        return self._done(lambda: self._asked(code, values))

    def _asked(self, code: int, values: Sequence[Any]) -> Any:
        row = REQUESTS[code]
        method = getattr(self._session, row.method)
        return answered(row, method(*fitted(row, list(values))))

    def get_functions(self, names: Sequence[str]) -> List[int]:
        """Looks several functions up; 0 stands for one that is not there."""
        return [int(self.syscall(RPCCode.GET_GLOBAL_FUNC, name)) for name in names]

    def syscalls(self, requests: Sequence[Sequence[Any]]) -> List[Any]:
        """Several requests, each its code and its values."""
        return [self.syscall(code, *values) for code, *values in requests]

    def allocate(self, record: TensorRecord, scope: Optional[str]) -> int:
        """Memory for a tensor of this form; its handle."""
        return int(self.syscall(RPCCode.DEV_ALLOC_DATA_WITH_SCOPE, record, scope))

    def copy_to_remote(
        self, record: TensorRecord, content: memoryview, *, is_awaited: bool = False
    ) -> None:
        """Copies bytes into memory of the session."""

        def copy() -> None:
            target = self._session.memory(record, len(content))
            target[:] = content
            self._session.written(record, target)

        self._done(copy)

    def copy_from_remote(self, record: TensorRecord, target: memoryview) -> None:
        """Copies memory of the session into the target."""

        def copy() -> None:
            target[:] = self._session.content(record, len(target))

        self._done(copy)

    def defer(self, code: int, *values: Any) -> None:
        """Does it now; errors of frees matter to nobody."""
        if self.closed_because is None:
            with contextlib.suppress(Exception):  # of a destructor, which could only print it
                self._asked(code, values)

    def release(self, handle: int, kind: type) -> None:
        """Frees a function, module, object or tensor."""
        self.defer(RPCCode.FREE_HANDLE, OpaquePointer(handle))

    def close(self, because: str = "it was closed") -> None:
        """Ends the session. May be called twice."""
        if self.closed_because is None:
            self.closed_because = because
            self._session.close()

    def _resolved(self, value: Any, translate: Optional[Callable[[Any], Any]]) -> Any:
        """What the function gets for an argument, if a server's could have got it.

        Raises:
            LocalProtocolError: no packet can carry it.
        """
        if translate is not None and type(value) not in _PLAIN and type(value) not in _RESOLVED:
            value = translate(value)
        if isinstance(value, (bytearray, memoryview)):
            return bytes(value)
        if type(value) in _RESOLVED:
            return self._session.resolve(value)
        FFI.encode_values((value,))
        return value

    def _done(self, work: Callable[[], Any]) -> Any:
        """Does it, counted and with its errors in the form that a server's have."""
        __tracebackhide__ = True
        if self.closed_because is not None:
            self._refuse_as_closed()
        started = clock()
        try:
            result = work()
        except (Exception, SystemExit) as error:  # whatever a request raises is its answer
            raise remote_error(describe(error)) from error
        finally:
            self.meter.calls += 1
            self.meter.call_s += clock() - started
        if type(result) is ByteSource:
            with result.file:
                return bytearray(result.file.read(result.nbytes))
        return result

    def _refuse_as_closed(self) -> NoReturn:
        raise ConnectionLostError(f"the session in this process is over: {self.closed_because}")


def _read_nothing(start: int, end: int) -> None:
    """No answer comes in a packet."""
