"""The clients under test: TVM's own and ours, by the same names. No server is started here.

A test body gets a `Client` and uses ``client.rpc`` and ``client.runtime`` as a user would use
``tvm.rpc`` and ``tvm.runtime``. What differs between the two is listed here, and nowhere else.
"""

from __future__ import annotations

import contextlib
import ctypes
from typing import TYPE_CHECKING, Any, Callable, Iterator, NamedTuple

if TYPE_CHECKING:
    from .servers import Program

HOST = "127.0.0.1"


class Client(NamedTuple):
    """A client: the two modules a user imports, and where the two clients differ."""

    name: str
    rpc: Any
    runtime: Any
    remote_error: type[Exception]
    """What a call raises when the function raised on the server."""
    timeout_error: type[Exception]
    """What a call raises when the server ended the session at its limit."""
    refusal: type[Exception]
    """What ``connect`` raises when the server serves another key."""
    pointer: Callable[[int], Any]
    address: Callable[[Any], int]
    """The number in an opaque pointer that came back."""
    dtype: Callable[[str], Any]
    end: Callable[[Any], None]
    """Ends a session now, whatever still refers to it."""

    @contextlib.contextmanager
    def connect(self, server: Program, **options: Any) -> Iterator[Any]:
        """A session on ``server``, ended when the block ends."""
        session = self.rpc.connect(HOST, server.port, server.key, **options)
        try:
            yield session
        finally:
            self.end(session)

    @contextlib.contextmanager
    def connect_tracker(self, tracker: Program) -> Iterator[Any]:
        """A connection to ``tracker``, closed when the block ends."""
        session = self.rpc.connect_tracker(HOST, tracker.port)
        try:
            yield session
        finally:
            session.close()


def _end_tvm(session: Any) -> None:
    # A TVM session lasts until its last function, tensor and module are gone, and a traceback keeps
    # them; this name is not sent, it makes the client itself shut the connection down.
    with contextlib.suppress(RuntimeError):
        session._sess.get_function("CloseRPCConnection")()


def tvm_client() -> Client:
    """TVM's client."""
    import tvm
    from tvm import error, rpc, runtime

    return Client(
        name="tvm",
        rpc=rpc,
        runtime=runtime,
        remote_error=error.RPCError,
        timeout_error=error.RPCSessionTimeoutError,
        refusal=error.InternalError,
        pointer=ctypes.c_void_p,
        address=lambda pointer: pointer.value or 0,
        dtype=tvm.DataType,
        end=_end_tvm,
    )


def our_client() -> Client:
    """The client of this package."""
    from pytest_tvmrpc import errors, rpc, runtime
    from pytest_tvmrpc.dlpack import OpaquePointer

    return Client(
        name="ours",
        rpc=rpc,
        runtime=runtime,
        remote_error=errors.RemoteError,
        timeout_error=errors.RPCSessionTimeoutError,
        refusal=errors.KeyMismatchError,
        pointer=OpaquePointer,
        address=int,
        dtype=runtime.DataType,
        end=lambda session: session.close(),
    )


CLIENTS: dict[str, Callable[[], Client]] = {"tvm": tvm_client, "ours": our_client}
