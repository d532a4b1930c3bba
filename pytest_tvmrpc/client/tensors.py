"""Memory of a server's devices: allocated there, copied in and out, freed when dropped.

A `Tensor` on a `RemoteDevice` is an ordinary tensor whose device is driven over the session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional, Tuple

from .. import dlpack
from ..dlpack import DataType, OpaquePointer, TensorRecord, tensor_nbytes
from ..errors import DeviceError
from ..protocol.codes import RPCCode
from ..runtime.device.api import Device, DeviceAPI

if TYPE_CHECKING:
    from ..runtime.tensor import Tensor
    from ..session.endpoint import Endpoint
    from .session import RPCSession


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
            self.endpoint.defer(RPCCode.FREE_HANDLE, OpaquePointer(self._handle))


class RemoteDeviceAPI:
    """Drives all devices of one session's server."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

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
        """Memory on the server, in one round trip."""
        place = dlpack.Device(*device)
        wanted = TensorRecord(0, place, shape, dtype)
        data = self._endpoint.syscall(RPCCode.DEV_ALLOC_DATA_WITH_SCOPE, wanted, mem_scope or None)
        return RemoteMemory(self._endpoint, place, int(data or 0), tensor_nbytes(shape, dtype))

    def copy_from_host(self, source: memoryview, target: Tensor) -> None:
        """Sends the bytes as they lie in memory."""
        self._endpoint.copy_to_remote(target.record, source)

    def copy_to_host(self, source: Tensor, target: memoryview) -> None:
        """Receives the bytes straight into the target."""
        self._endpoint.copy_from_remote(source.record, target)

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Copies on the server."""
        kinds = {source.device.device_type, target.device.device_type} - {1}
        if len(kinds) > 1:
            raise DeviceError(
                f"the protocol has no copy from {source.device!r} to {target.device!r}; "
                "copy by way of a CPU tensor"
            )
        self._endpoint.syscall(
            RPCCode.COPY_AMONG_REMOTE, source.record, target.record, OpaquePointer(0)
        )

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
