"""Memory of a server's devices: allocated there, copied in and out, freed when dropped.

A `Tensor` on a `RemoteDevice` is an ordinary tensor whose device is driven over the session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Iterator, NoReturn, Optional, Tuple

from .. import dlpack
from ..dlpack import DeviceType, OpaquePointer, TensorRecord
from ..errors import DeviceError, RemoteProtocolError
from ..owners import not_copied
from ..protocol.codes import RPCCode
from ..protocol.values import TensorResult
from ..runtime.copying import not_in_this_process
from ..runtime.device.api import Device, DeviceAPI
from ..runtime.tensor import Tensor

if TYPE_CHECKING:
    from ..data_type import DataType
    from ..session.endpoint import Endpoint
    from .session import RPCSession

PACKET_LIMIT = "tvm.rpc.server.GetCRTMaxPacketSize"
"""A function of servers with little memory: the bytes of the longest packet that they can take."""

_OVERHEAD = 44
"""Bytes of a copy's packet beside its content, and beside 8 for each dimension of the tensor."""

_CPU = int(DeviceType.CPU)


@not_copied("open a session there, and get it from that")
class RemoteDevice(Device):
    """A device of a session's server."""

    session: RPCSession
    _driver: DeviceAPI

    def __new__(cls, device: dlpack.Device, session: RPCSession, api: DeviceAPI) -> RemoteDevice:
        made = super().__new__(cls, *device)
        made.session = session
        made._driver = api
        return made

    @property
    def api(self) -> DeviceAPI:
        """Has the server do it."""
        return self._driver

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, RemoteDevice)
            and tuple(self) == tuple(other)
            and self.session is other.session
        )

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((tuple(self), id(self.session)))

    def __repr__(self) -> str:
        return f"remote[{self.session.peer[0]}:{self.session.peer[1]}]:{Device(*self)!r}"


@not_copied("open a session there, and get it from that")
class RemoteMemory:
    """Memory that the server allocated for us."""

    __slots__ = ("_device", "data", "endpoint", "nbytes")

    def __init__(self, endpoint: Endpoint, device: dlpack.Device, data: int, nbytes: int) -> None:
        self.endpoint = endpoint
        self._device = device
        self.data = data
        self.nbytes = nbytes

    def __del__(self) -> None:
        self.endpoint.defer(RPCCode.DEV_FREE_DATA, self._device, OpaquePointer(self.data))


@not_copied("open a session there, and get it from that")
class ReturnedMemory:
    """Memory of a tensor that a function returned; kept alive there by the tensor's own handle."""

    __slots__ = ("_handle", "data", "endpoint", "nbytes")

    def __init__(self, endpoint: Endpoint, record: TensorRecord, handle: int) -> None:
        self.endpoint = endpoint
        self._handle = handle
        self.data = record.data
        self.nbytes = record.byte_offset + record.nbytes

    def __del__(self) -> None:
        if self._handle:
            self.endpoint.release(self._handle, TensorResult)


@not_copied("open a session there, and get it from that")
class RemoteDeviceAPI(DeviceAPI):
    """Drives all devices of one session's server.

    Args:
        handles: the session's functions of the server that have been looked up, by name.
    """

    def __init__(self, endpoint: Endpoint, handles: Dict[str, int]) -> None:
        self._endpoint = endpoint
        self._handles = handles
        self._limit: Optional[int] = None  # bytes of a packet; negative: none; None: not asked yet

    def get_attr(self, device: dlpack.Device, attribute: int) -> Any:
        """Asks the server."""
        return self._endpoint.syscall(RPCCode.DEV_GET_ATTR, dlpack.Device(*device), int(attribute))

    def alloc(
        self,
        device: dlpack.Device,
        shape: Tuple[int, ...],
        dtype: DataType,
        mem_scope: Optional[str],
    ) -> RemoteMemory:
        """Memory on the server, in one round trip at most."""
        place = dlpack.Device(*device)
        wanted = TensorRecord(0, place, shape, dtype)
        if PACKET_LIMIT in self._handles or self._endpoint.takes_handles:
            data = self._endpoint.allocate(wanted, mem_scope or None)
        else:  # the first tensor: copies will come, so the look-up goes along
            request = (RPCCode.DEV_ALLOC_DATA_WITH_SCOPE, wanted, mem_scope or None)
            look_up = (RPCCode.GET_GLOBAL_FUNC, PACKET_LIMIT)
            found, data = self._endpoint.syscalls([look_up, request])
            self._handles[PACKET_LIMIT] = int(found or 0)
        return RemoteMemory(self._endpoint, place, int(data or 0), wanted.nbytes)

    def describe(self, tensor: Tensor) -> NoReturn:
        """Compiled code here cannot use the memory of another machine."""
        raise not_in_this_process(tensor)

    def copy_from_host(self, source: memoryview, target: Tensor) -> None:
        """Sends the bytes as they lie in memory."""
        limit = self._limit if self._limit is not None else self._ask_limit()
        record = target.record
        if limit < 0:
            self._endpoint.copy_to_remote(record, source)
        elif not _is_whole(record, limit) and record.device.device_type != _CPU:
            staged = self._beside(target)
            self.copy_from_host(source, staged)
            self.copy(staged, target)
            self.sync(target.device, 0)  # before the memory beside it is freed
        else:
            for part, start, end in _blocks(record, limit):
                self._endpoint.copy_to_remote(part, source[start:end], is_awaited=True)

    def copy_to_host(self, source: Tensor, target: memoryview) -> None:
        """Receives the bytes straight into the target."""
        limit = self._limit if self._limit is not None else self._ask_limit()
        record = source.record
        if limit < 0:
            self._endpoint.copy_from_remote(record, target)
        elif not _is_whole(record, limit) and record.device.device_type != _CPU:
            staged = self._beside(source)
            self.copy(source, staged)
            self.sync(source.device, 0)
            self.copy_to_host(staged, target)
        else:
            for part, start, end in _blocks(record, limit):
                self._endpoint.copy_from_remote(part, target[start:end])

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Copies on the server; between two kinds of devices by way of its CPU's memory."""
        kinds = {source.device.device_type, target.device.device_type} - {_CPU}
        if len(kinds) > 1:  # the protocol has no such copy
            staged = self._beside(source)
            self.copy(source, staged)
            self.sync(source.device, 0)
            self.copy(staged, target)
            self.sync(target.device, 0)  # before the memory beside it is freed
            return
        self._endpoint.syscall(
            RPCCode.COPY_AMONG_REMOTE, source.record, target.record, OpaquePointer(0)
        )

    def _beside(self, tensor: Tensor) -> Tensor:
        """A tensor of the same form in the memory of the server's CPU."""
        assert isinstance(tensor.device, RemoteDevice)
        place = RemoteDevice(dlpack.Device(_CPU), tensor.device.session, self)
        memory = self.alloc(place, tensor.shape, tensor.data_type, None)
        return Tensor(memory, tensor.shape, tensor.data_type, place)

    def _ask_limit(self) -> int:
        """The server's limit, asked for before the first copy of a session; negative: none."""
        if PACKET_LIMIT not in self._handles:
            (self._handles[PACKET_LIMIT],) = self._endpoint.get_functions([PACKET_LIMIT])
        handle = self._handles[PACKET_LIMIT]
        limit = self._endpoint.call(handle, (), PACKET_LIMIT) if handle else -1
        if not isinstance(limit, int):
            raise RemoteProtocolError(
                f"{PACKET_LIMIT} of the server returned {limit!r}; expected a number of bytes"
            )
        self._limit = limit
        return limit

    def sync(self, device: dlpack.Device, stream: int) -> None:
        """Waits for the server's device."""
        self._endpoint.syscall(
            RPCCode.DEV_STREAM_SYNC, dlpack.Device(*device), OpaquePointer(stream)
        )

    def create_stream(self, device: dlpack.Device) -> int:
        """A stream of the server's device."""
        return int(self._endpoint.syscall(RPCCode.DEV_CREATE_STREAM, dlpack.Device(*device)) or 0)

    def free_stream(self, device: dlpack.Device, stream: int) -> None:
        """Frees it."""
        self._endpoint.syscall(
            RPCCode.DEV_FREE_STREAM, dlpack.Device(*device), OpaquePointer(stream)
        )

    def set_stream(self, device: dlpack.Device, stream: int) -> None:
        """Makes it the current one."""
        self._endpoint.syscall(
            RPCCode.DEV_SET_STREAM, dlpack.Device(*device), OpaquePointer(stream)
        )

    def get_stream(self, device: dlpack.Device) -> int:
        """The current one."""
        stream = self._endpoint.syscall(RPCCode.DEV_GET_CURRENT_STREAM, dlpack.Device(*device))
        return int(stream or 0)


def _is_whole(record: TensorRecord, limit: int) -> bool:
    """Whether a copy of the tensor fits one packet."""
    return record.nbytes <= limit - _OVERHEAD - 8 * len(record.shape)


def _blocks(record: TensorRecord, limit: int) -> Iterator[Tuple[TensorRecord, int, int]]:
    """The parts of a copy that fit the server's packets: record, and where it starts and ends.

    Raises:
        DeviceError: the server has no room for a single byte of it.
    """
    size = limit - _OVERHEAD - 8 * len(record.shape)
    if size <= 0:
        raise DeviceError(
            f"Invalid block size: the server takes packets of {limit} bytes "
            f"({PACKET_LIMIT}), and a copy of a tensor of {len(record.shape)} dimensions needs "
            f"{limit - size} beside its content; raise the server's limit"
        )
    data, nbytes = record.data, record.nbytes
    for start in range(0, nbytes, size):
        offset = record.byte_offset + start
        part = TensorRecord(data, record.device, record.shape, record.dtype, offset)
        yield part, start, min(start + size, nbytes)
