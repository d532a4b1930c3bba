"""RPCSession: one server's functions, files, modules and devices. Opens no connection."""

from __future__ import annotations

import contextlib
import os
import warnings
import weakref
from typing import TYPE_CHECKING, Any, Iterator, Optional, Tuple, Union

from .. import dlpack
from ..dlpack import TensorRecord
from ..errors import LocalProtocolError
from ..owners import not_copied
from ..protocol.codes import RPCCode
from ..protocol.values import FunctionHandle, ModuleHandle, ObjectHandle, TensorResult
from ..runtime.device.names import device as find_device
from ..runtime.module import Module
from ..runtime.tensor import Tensor
from ..session.interface import OUTPUT
from .files import Source, metered, name_of, opened, progress_shown, write_whole
from .functions import PLAIN, ModuleOnServer, RemoteFunction, RemoteModule, ServerFunctions
from .objects import RemoteObject
from .output import RemoteOutput, bounds, read
from .pipeline import Pipeline
from .tensors import RemoteDevice, RemoteDeviceAPI, ReturnedMemory
from .values import plain

if TYPE_CHECKING:
    from types import TracebackType

    from ..session.channel import Meter
    from ..session.endpoint import Endpoint


@not_copied("pass host, port and key, and connect there")
class RPCSession:
    """A session with a server, made by `connect` or `TrackerSession.request`.

    It ends with `close()`, at the end of its ``with`` block, or when it and everything that
    came from it have been dropped.

    Attributes:
        peer: the server's host and port.
        key: the device key that was asked for; empty if none was.
        meter: the session's calls, bytes and seconds.
        queued_s: seconds that the tracker's queue took.
        connect_s: seconds that connection and handshake took.
        ask: the endpoint's own ``call``, for the functions of the session.
    """

    def __init__(self, endpoint: Endpoint, peer: Tuple[str, int]) -> None:
        self.peer = peer
        self.key = ""
        self.queued_s = 0.0
        self.connect_s = 0.0
        self._endpoint = endpoint
        # Also at the end of the process: TVM's server does not survive an answer that nobody takes.
        weakref.finalize(self, _end, endpoint, f"{peer[0]}:{peer[1]}")
        self.ask = endpoint.call
        self._handles = ServerFunctions(endpoint, peer)
        self._api = RemoteDeviceAPI(endpoint, self._handles.known)

    # Life

    @property
    def closed(self) -> bool:
        """Whether the session is over, by `close()` or because the connection was lost."""
        return self._endpoint.closed_because is not None

    @property
    def lost(self) -> bool:
        """Whether the session ended by neither this side nor a limit; known with the next request.

        So it is if the server or its process is gone or was killed, if the process crashed, if
        somebody ended the session (`SessionKickedError`), and if the server broke the protocol.
        It is not after `close()`, after Ctrl-C or another exception within a request, or when a
        limit was reached: ``call_timeout``, ``session_timeout``, the server's idle limit.
        """
        return self._endpoint.is_lost

    @property
    def is_ours(self) -> bool:
        """Whether the server that was connected to is one of this package, rather than TVM's."""
        return self._endpoint.is_ours

    @property
    def dialect(self) -> str:
        """Which encoding the server speaks: ``ffi`` (TVM 0.21 and later; ours) or ``legacy``."""
        return self._endpoint.dialect.name

    @property
    def meter(self) -> Meter:
        """What went over the session so far."""
        return self._endpoint.meter

    def close(self) -> None:
        """Ends the session; the server frees everything at once. May be called twice.

        Functions, modules and tensors of the session may outlive it; using one raises
        `ConnectionLostError`.
        """
        self._endpoint.close()

    def __enter__(self) -> RPCSession:
        return self

    def __exit__(
        self,
        exc_type: Optional[type],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()

    @property
    def address(self) -> str:
        """The server's key and address, as messages name them: ``rpi@10.0.0.5:9090``."""
        host, port = self.peer
        place = f"{host}:{port}" if port else host  # a session of this process has none
        return f"{self.key}@{place}" if self.key else place

    def __repr__(self) -> str:
        state = f"closed: {self._endpoint.closed_because}" if self.closed else "open"
        return f"<{type(self).__name__} {self.address}, {state}>"

    # Functions and modules

    def get_function(self, name: str) -> RemoteFunction:
        """A global function of the server.

        Raises:
            AttributeError: the server has none of this name.
        """
        handle = self._endpoint.syscall(RPCCode.GET_GLOBAL_FUNC, name)
        if not handle:
            raise AttributeError(
                f"Module has no function '{name}': the server at {self.peer[0]}:{self.peer[1]} "
                "has no global function of this name"
            )
        function = RemoteFunction(self, int(handle), name)
        function.place = (None, name)
        return function

    def pipeline(self) -> Pipeline:
        """Many calls at once, none of which waits for the answer to another.

        ::

            with remote.pipeline() as p:
                calls = [p.call(function, x) for x in range(1000)]
            results = [call.result() for call in calls]
        """
        return Pipeline(self, self._endpoint)

    def system_lib(self) -> RemoteModule:
        """The module of the functions that are linked into the server.

        Raises:
            AttributeError: the server has no such module.
        """
        for name in ("ffi.SystemLib", "runtime.SystemLib"):  # TVM from 0.22 on; before
            with contextlib.suppress(AttributeError):
                function = self.get_function(name)
                break
        else:
            raise AttributeError(
                f"the server at {self.peer[0]}:{self.peer[1]} has neither function ffi.SystemLib "
                "nor runtime.SystemLib"
            )
        module: RemoteModule = function()
        return module

    def load_module(self, path: Union[str, "os.PathLike[str]"]) -> RemoteModule:
        """Loads a library that was uploaded.

        What only has to be linked (``.o``, ``.tar``, ``.c``, ``.cc``, ``.cpp``, ``.cxx``) is linked
        by the server's compiler.

        Args:
            path: its name on the server, as `upload` was told or chose it.

        Raises:
            RemoteError: it is not there, or does not fit the server's machine; a `CompilerError`,
                too, if it has to be linked and there is no compiler, or it refused.
        """
        name = os.fspath(path)
        loaded: RemoteModule = self.call_server("load_module", name)
        loaded.name = name
        return loaded

    # Files

    def upload(self, data: Source, target: Optional[str] = None) -> None:
        """Puts a file into the session's directory on the server.

        Args:
            data: the path of a local file, the bytes themselves (or what has them, such as an
                array), or a binary file, which is read from where it stands to its end.
            target: its name there; a local file's own name by default.

        Raises:
            ValueError: bytes without a target.
            FileNotFoundError: there is no such local file.
            RemoteError: the server refused, e.g. a name that leads outside of the directory.
        """
        name = target or name_of(data)
        if not name:
            raise ValueError("target must present when file is a bytearray")
        channel = self._endpoint.channel
        with opened(data) as content, progress_shown(channel, f"uploading {name}"):
            nbytes = len(content)
            with metered(self.meter):
                self.call_server("upload", name, content)
        self.meter.upload_nbytes += nbytes

    def download(self, path: str, target: Union[str, "os.PathLike[str]", None] = None) -> bytearray:
        """The content of a file in the session's directory on the server.

        Args:
            target: the path of a local file, which is written, too; it appears whole or not at all.

        Raises:
            RemoteError: there is no such file.
        """
        content = self._fetch("download", path)
        if target is not None:
            write_whole(target, content)
        return content

    def download_linked_module(self, path: str) -> bytearray:
        """A library that was uploaded, linked by the server's compiler where it is not yet.

        Raises:
            RemoteError: it is not there, or cannot be linked, as with `load_module`.
        """
        return self._fetch("download_linked_module", path)

    def _fetch(self, function: str, path: str) -> bytearray:
        doing = f"downloading {path}"
        with progress_shown(self._endpoint.channel, doing), metered(self.meter):
            content = self.ask(self._handles.needed(function), (path,), doing)
        return content if isinstance(content, bytearray) else bytearray(content)

    def remove(self, path: str) -> None:
        """Removes a file or an empty directory from the session's directory.

        As with TVM's server, nothing is said when there is nothing to remove; what lies outside of
        the directory stays.
        """
        self.call_server("remove", path)

    def listdir(self, path: str = ".") -> str:
        """The names in a directory of the session, with commas between them.

        Raises:
            AttributeError: TVM's Python server has no such function.
        """
        names: str = self.call_server("listdir", path)
        return names

    # What it printed

    def output(self, since: int = 0, limit: Optional[int] = None) -> Optional[RemoteOutput]:
        """What the session's processes have printed on the server, to stdout or stderr.

        All that was written before this call is in it, by Python or by C; of all output the server
        keeps the last MiB. With ``limit=0`` it is the offset alone, to cut at::

            before = remote.output(limit=0).end
            function()
            print(remote.output(since=before).text)

        Behind a hop (``rpc.Connect``) it is what the last server printed. Processes that were
        started are heard as long as they have the session's stdout or stderr.

        Args:
            since: the offset in all output from which on it is wanted.
            limit: bytes at most, the last ones; None for all that there is.

        Returns:
            None if the server cannot tell: one of TVM, an older one of ours, no server at all.

        Raises:
            ValueError: a number is negative.
            ConnectionLostError: the session is over; after a crash, the error that said so has the
                last lines.
        """
        arguments = bounds(since, limit)
        handle = self.offered(OUTPUT)
        return read(self.call(handle, arguments, OUTPUT), arguments[0]) if handle else None

    @contextlib.contextmanager
    def limited(self, limit_s: float) -> Iterator[None]:
        """The requests in the block may take so long, whatever ``call_timeout`` says."""
        channel = self._endpoint.channel
        before = (channel.timeout_s, channel.timeout_argument) if channel is not None else None
        if before is None or self.closed:  # a session in this process has no limits
            yield
            return
        channel.limit(min(limit_s, before[0] or limit_s), "")
        try:
            yield
        finally:
            if not self.closed:
                channel.limit(*before)

    # Devices

    def device(self, dev_type: Union[int, str], dev_id: int = 0) -> RemoteDevice:
        """A device of the server: by TVM's name of its kind, or its number.

        Raises:
            ValueError: there is no such kind of device.
        """
        return RemoteDevice(find_device(dev_type, dev_id), self, self._api)

    def cpu(self, dev_id: int = 0) -> RemoteDevice:
        """The server's CPU."""
        return self.device("cpu", dev_id)

    def cuda(self, dev_id: int = 0) -> RemoteDevice:
        """A CUDA GPU of the server."""
        return self.device("cuda", dev_id)

    def cl(self, dev_id: int = 0) -> RemoteDevice:
        """An OpenCL device of the server."""
        return self.device("opencl", dev_id)

    def vulkan(self, dev_id: int = 0) -> RemoteDevice:
        """A Vulkan device of the server."""
        return self.device("vulkan", dev_id)

    def metal(self, dev_id: int = 0) -> RemoteDevice:
        """A Metal device of the server."""
        return self.device("metal", dev_id)

    def rocm(self, dev_id: int = 0) -> RemoteDevice:
        """A ROCm GPU of the server."""
        return self.device("rocm", dev_id)

    def ext_dev(self, dev_id: int = 0) -> RemoteDevice:
        """An extension device of the server."""
        return self.device("ext_dev", dev_id)

    def hexagon(self, dev_id: int = 0) -> RemoteDevice:
        """A Hexagon DSP of the server."""
        return self.device("hexagon", dev_id)

    def webgpu(self, dev_id: int = 0) -> RemoteDevice:
        """A WebGPU device of the server."""
        return self.device("webgpu", dev_id)

    # For the objects of this session

    def call(self, handle: int, arguments: Tuple[Any, ...], name: str) -> Any:
        """Calls a function by its handle; values are translated both ways."""
        __tracebackhide__ = True
        result = self.ask(handle, arguments, name, self.sent)
        return result if type(result) in PLAIN else self.received(result)

    def call_server(self, name: str, *arguments: Any) -> Any:
        """Calls one of the functions that every server has."""
        __tracebackhide__ = True
        return self.call(self._handles.needed(name), arguments, name)

    def offered(self, name: str) -> int:
        """The handle of a function that not every server has; 0 if this one has none."""
        return self._handles.offered(name)

    @property
    def is_idle(self) -> bool:
        """Whether the session is open, and no thread waits for an answer."""
        return self._endpoint.is_idle

    def release(self, handle: int, kind: type) -> None:
        """Lets go of a function, module or object, with the next request."""
        self._endpoint.release(handle, kind)

    def sent(self, value: Any) -> Any:
        """What stands for a value on the wire."""
        __tracebackhide__ = True
        if type(value) is Tensor:
            if getattr(value.memory, "endpoint", None) is not self._endpoint:
                raise ValueError(
                    f"a tensor on {value.device!r} is not on this server; "
                    "make it with tensor(array, remote.cpu(0)), or copy it there with copyto"
                )
            return value.record
        if isinstance(value, RemoteFunction):
            return FunctionHandle(self._own(value).handle)
        if isinstance(value, (RemoteModule, ModuleOnServer)):
            return ModuleHandle(self._own(value).handle)
        if isinstance(value, RemoteObject):
            return self._object_handle(value)
        if isinstance(value, RemoteDevice):
            return dlpack.Device(*self._own(value))
        if isinstance(value, dlpack.Device):
            raise ValueError(
                f"Can not pass in local device {value!r}; use one of the session, as remote.cpu(0)"
            )
        if isinstance(value, Module):
            raise ValueError("Cannot pass a non-RPC module to remote; load it there")
        if isinstance(value, TensorRecord):
            return value
        if isinstance(value, str):
            return str.__str__(value)  # of an enum's member, str() would be its name
        return plain(value)

    def _object_handle(self, value: RemoteObject) -> ObjectHandle:
        """What stands for an object.

        Raises:
            LocalProtocolError: the server is of TVM 0.21, which ends for good when it is sent one.
        """
        is_newer = self.is_ours or self.dialect == "legacy" or self.offered("ffi.SystemLib")
        if not is_newer:
            raise LocalProtocolError(
                f"{value!r} cannot be sent to a server of TVM 0.21; its index for objects is "
                "another one, and what it does not know ends it"
            )
        return ObjectHandle(self._own(value).handle)

    def _own(self, value: Any) -> Any:
        if value.session is not self:
            raise ValueError(
                f"Cannot pass {value!r} into a different remote session; "
                "get it from the session that it is passed to"
            )
        return value

    def received(self, result: Any) -> Any:
        """The object for what came over the wire."""
        kind = type(result)
        if kind is FunctionHandle:
            return RemoteFunction(self, int(result), "a returned function")
        if kind is ModuleHandle:
            return RemoteModule(self, int(result))
        if kind is ObjectHandle:
            return RemoteObject(self, int(result))
        if kind is TensorResult:
            record = result.record
            memory = ReturnedMemory(self._endpoint, record, result.handle)
            device = RemoteDevice(find_device(*record.device), self, self._api)
            return Tensor(memory, record.shape, record.dtype, device, record.byte_offset)
        if kind is dlpack.Device:
            return RemoteDevice(find_device(*result), self, self._api)
        return bytes(result) if kind is bytearray else result


def _end(endpoint: Endpoint, peer: str) -> None:
    """Closes a session that was dropped."""
    if endpoint.closed_because is not None:
        return
    endpoint.close("it was dropped")
    if endpoint.channel is not None:  # one in this process holds no device
        warnings.warn(
            f"the session with {peer} was dropped while it was open; close it, or use it with "
            "`with`, as its device is busy until then",
            ResourceWarning,
            stacklevel=2,
        )
