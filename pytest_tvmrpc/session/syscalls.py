"""What each request of values only asks of a session. Reads no packets, and answers none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Dict, Optional

from ..dlpack import Device, OpaquePointer, TensorRecord
from ..protocol.codes import RPCCode

if TYPE_CHECKING:
    from .interface import Session


def syscalls_of(session: Session) -> Dict[int, Callable[..., Any]]:
    """What does each request whose body is a packed sequence; surplus values are ignored."""

    def alloc(device: Device, nbytes: int, alignment: int, dtype: Any, *_: Any) -> Any:
        return OpaquePointer(session.alloc(device, nbytes, alignment, dtype))

    def alloc_tensor(
        record: TensorRecord, scope: Optional[str] = None, chosen: Any = 0, *_: Any
    ) -> Any:
        return OpaquePointer(session.alloc_tensor(record, scope, chosen or 0))

    def sync(device: Device, stream: Any = 0, *_: Any) -> None:
        session.sync(device, int(stream or 0))

    def copy_among(source: TensorRecord, target: TensorRecord, stream: Any = 0, *_: Any) -> None:
        session.copy_among(source, target, int(stream or 0))

    return {
        RPCCode.GET_GLOBAL_FUNC: lambda name, *_: OpaquePointer(session.get_function(name)),
        RPCCode.FREE_HANDLE: lambda handle, *_: session.free(int(handle or 0)),
        RPCCode.DEV_SET_DEVICE: lambda device, *_: session.set_device(device),
        RPCCode.DEV_GET_ATTR: _get_attr(session),
        RPCCode.DEV_ALLOC_DATA: alloc,
        RPCCode.DEV_FREE_DATA: lambda device, handle, *_: session.free_data(device, handle or 0),
        RPCCode.DEV_STREAM_SYNC: sync,
        RPCCode.COPY_AMONG_REMOTE: copy_among,
        RPCCode.DEV_ALLOC_DATA_WITH_SCOPE: alloc_tensor,
        RPCCode.DEV_CREATE_STREAM: lambda device, *_: OpaquePointer(session.create_stream(device)),
        RPCCode.DEV_FREE_STREAM: lambda device, stream, *_: session.free_stream(
            device, stream or 0
        ),
        RPCCode.DEV_SET_STREAM: lambda device, stream, *_: session.set_stream(device, stream or 0),
        RPCCode.DEV_GET_CURRENT_STREAM: lambda device, *_: OpaquePointer(
            session.get_stream(device)
        ),
    }


def _get_attr(session: Session) -> Callable[..., Any]:
    def get_attr(device: Device, attribute: int, *_: Any) -> Any:
        return session.get_attr(device, attribute)

    return get_attr
