"""RemoteSession: has it done by another server. What a hop is on the machine in the middle.

Handles are passed on as they are. Each side speaks its own dialect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Sequence, Tuple

from ..dlpack import Device, OpaquePointer, TensorRecord
from ..errors import LocalProtocolError
from ..protocol.codes import RPCCode
from ..protocol.handshake import parse_client_key
from ..protocol.values import FunctionHandle, ModuleHandle, ObjectHandle, TensorResult
from .buffers import unfilled
from .interface import OUTPUT
from .opening import Wanted, open_session

if TYPE_CHECKING:
    from ..data_type import DataType
    from .endpoint import Endpoint
    from .interface import Session, Sink

ONWARD_LIMIT_S = 8.0
"""How long the connection to the next server may take, and again its answer: a little less than
a client's own patience, so that it learns which of the two was not there."""

Printed = Callable[..., bytes]
"""The function `OUTPUT` of a server."""

_PRINTED = (1 << 64) - 1
"""Its handle; nothing can be at this address there."""

_END_NBYTES = 8
_LAST_NBYTES = 4096
_LAST_LINES = 20

_HANDLES = (FunctionHandle, ModuleHandle, ObjectHandle)


def connect_onward(arguments: Sequence[Any]) -> RemoteSession:
    """The session that ``rpc.Connect(host, port, key, enable_logging, *constructor)`` makes.

    Raises:
        ValueError: these are not its arguments.
        RPCError: the server there cannot be reached, or refused.
    """
    given = [*arguments, "", False][: max(4, len(arguments))]  # the last two can be left out
    host, port, key, is_logged, *constructor = given if len(arguments) >= 2 else [None] * 4
    if not (isinstance(host, str) and type(port) is int and isinstance(key, str)):
        raise ValueError(
            f"rpc.Connect with {list(arguments)!r}; expected a host, a port, a key and whether to "
            "log, and then the constructor of one more session, if any"
        )
    words = parse_client_key((key if key.startswith("client:") else f"client:{key}").encode())
    # Of two servers in a row, the one behind shall be the one that is found missing.
    limit_s = min(ONWARD_LIMIT_S + constructor.count("rpc.Connect"), 9.5)
    wanted = Wanted(
        host,
        port,
        words.match_key,
        words.session_timeout,
        connect_timeout=limit_s,
        handshake_timeout=limit_s,
        is_logged=bool(is_logged),
    )
    endpoint = open_session(wanted, constructor)
    endpoint.channel.limit(None, "")  # the client decides how long it waits
    return RemoteSession(endpoint)


def start_onward(
    arguments: Sequence[Any],
    printed: Optional[Printed],
    folder: str,
    ended: Optional[Callable[[int], object]] = None,
) -> RemoteSession:
    """The session that ``rpc.PopenSession(program)`` makes: with a program, started for it here.

    Args:
        arguments: the program's path on this machine, or its bytes, and then what stands in its
            command line before the two descriptors, if anything.
        printed: tells what this process, and so the program, has printed; None: nobody can.
        folder: the session's, in which the program has its own: it goes with the session, also if
            the program is killed with all that it started.
        ended: is told how the program ended, before a client is; see `Output`.

    Raises:
        ValueError: these are not its arguments.
        StartError: the program cannot be started, or ended at once.
    """
    from .program import Limits, Output, open_program

    if not arguments or not all(isinstance(word, str) for word in arguments[1:]):
        raise ValueError(
            f"rpc.PopenSession with {len(arguments)} arguments; expected the path of a program or "
            "its bytes, and then what stands in its command line, each a str"
        )

    def last_lines() -> str:
        lines = b"" if printed is None else printed(0, _LAST_NBYTES)[_END_NBYTES:]
        text = "\n".join(lines.decode("utf-8", "replace").splitlines()[-_LAST_LINES:])
        return f"; it printed last:\n{text}" if text else "; it printed nothing"

    limits = Limits(ONWARD_LIMIT_S, None)  # the client decides how long it waits
    endpoint = open_program(
        arguments[0], arguments[1:], Output(None, last_lines, ended, folder), limits
    )
    return RemoteSession(endpoint, printed)


class RemoteSession:
    """A session at the other end of an endpoint, in the form of one that is here.

    Args:
        endpoint: owned; closed with the session.
        printed: tells what the session printed, if that is known here: its program prints to where
            this process does.

    Attributes:
        known: see `Session`.
    """

    def __init__(self, endpoint: Endpoint, printed: Optional[Printed] = None) -> None:
        self._endpoint = endpoint
        self._printed = printed
        self._kinds: Dict[int, Tuple[type, int]] = {}
        self.known: Dict[bytes, Any] = {}

    @property
    def is_ours(self) -> bool:
        """Whether the server there is one of this package."""
        return self._endpoint.is_ours

    def close(self) -> None:
        """Ends the session there, too."""
        self._endpoint.close()

    def resolve(self, value: Any) -> Any:
        """Handles, devices and records are the other server's."""
        return value

    def construct(self, constructor: Sequence[Any]) -> Session:
        """Nothing: what comes behind this session was said when it was opened."""
        raise LocalProtocolError("a session that is passed on cannot be constructed once more")

    # Functions

    def get_function(self, name: str) -> int:
        """Handle of a global function there, or of the one that is here."""
        if name == OUTPUT and self._printed is not None:
            return _PRINTED
        handle = int(self._endpoint.syscall(RPCCode.GET_GLOBAL_FUNC, name) or 0)
        if handle:
            self._holds(handle, FunctionHandle)
        return handle

    def call(self, handle: int, arguments: List[Any]) -> Any:
        """Calls a function there."""
        if handle == _PRINTED and self._printed is not None:
            return self._printed(*arguments)
        result = self._endpoint.call(handle, arguments, "a call that is passed on")
        kind = type(result)
        if kind is TensorResult:
            self._holds(result.handle, kind)
        elif kind in _HANDLES:
            self._holds(int(result), kind)
        return result

    def open_sink(self, handle: int, arguments: List[Any], nbytes: int) -> Optional[Sink]:
        """No function takes its argument in parts: it has to be here before it can be sent on."""
        return None

    def free(self, handle: int) -> None:
        """Releases something there, with the next request."""
        if handle == _PRINTED:
            return
        kind, count = self._kinds.pop(handle, (TensorResult, 1))
        if count > 1:
            self._kinds[handle] = kind, count - 1
        self._endpoint.release(handle, kind)

    def _holds(self, handle: int, kind: type) -> None:
        """The client got a handle; when it lets go, an older server has to be told its kind."""
        _, count = self._kinds.get(handle, (kind, 0))
        self._kinds[handle] = kind, count + 1

    # Memory

    def memory(self, record: TensorRecord, nbytes: int) -> memoryview:
        """Room for what the client will send; `written` sends it on."""
        return memoryview(unfilled(nbytes))

    def content(self, record: TensorRecord, nbytes: int) -> memoryview:
        """What is in the memory there."""
        target = memoryview(unfilled(nbytes))
        self._endpoint.copy_from_remote(record, target)
        return target

    def written(self, record: TensorRecord, content: memoryview) -> None:
        """Sends on what the client sent."""
        self._endpoint.copy_to_remote(record, content, is_awaited=True)

    def alloc(self, device: Device, nbytes: int, alignment: int, dtype: DataType) -> int:
        """Memory there."""
        return self._asked(RPCCode.DEV_ALLOC_DATA, device, nbytes, alignment, dtype)

    def alloc_tensor(self, record: TensorRecord, scope: Optional[str], chosen: int = 0) -> int:
        """Memory for a tensor there; a client chooses no handles behind a server of TVM."""
        more = (OpaquePointer(chosen),) if chosen else ()
        return self._asked(RPCCode.DEV_ALLOC_DATA_WITH_SCOPE, record, scope, *more)

    def free_data(self, device: Device, handle: int) -> None:
        """Releases memory there, with the next request."""
        self._endpoint.defer(RPCCode.DEV_FREE_DATA, device, OpaquePointer(handle))

    def copy_among(self, source: TensorRecord, target: TensorRecord, stream: int) -> None:
        """Copies from tensor to tensor there."""
        self._asked(RPCCode.COPY_AMONG_REMOTE, source, target, OpaquePointer(stream))

    # Devices

    def set_device(self, device: Device) -> None:
        """Selects a device there."""
        self._asked(RPCCode.DEV_SET_DEVICE, device)

    def get_attr(self, device: Device, attribute: int) -> Any:
        """A property of a device there."""
        return self._endpoint.syscall(RPCCode.DEV_GET_ATTR, device, attribute)

    def sync(self, device: Device, stream: int) -> None:
        """Waits for the stream's work."""
        self._asked(RPCCode.DEV_STREAM_SYNC, device, OpaquePointer(stream))

    def create_stream(self, device: Device) -> int:
        """A stream there."""
        return self._asked(RPCCode.DEV_CREATE_STREAM, device)

    def free_stream(self, device: Device, stream: int) -> None:
        """Releases a stream."""
        self._asked(RPCCode.DEV_FREE_STREAM, device, OpaquePointer(stream))

    def set_stream(self, device: Device, stream: int) -> None:
        """Makes a stream the current one."""
        self._asked(RPCCode.DEV_SET_STREAM, device, OpaquePointer(stream))

    def get_stream(self, device: Device) -> int:
        """The current stream."""
        return self._asked(RPCCode.DEV_GET_CURRENT_STREAM, device)

    def _asked(self, code: int, *values: Any) -> int:
        return int(self._endpoint.syscall(code, *values) or 0)
