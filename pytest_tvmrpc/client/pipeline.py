"""Many calls at once: requests that do not wait for each other's answers. Opens no connection."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Optional

from ..errors import RemoteError
from ..owners import not_copied
from .functions import RemoteFunction

if TYPE_CHECKING:
    from types import TracebackType

    from ..session.endpoint import Endpoint
    from ..session.later import Pending
    from .session import RPCSession


_NONE_YET: Any = object()


@not_copied("pickle its result()")
class PipelinedCall:
    """A call that was made in a pipeline; its result comes later.

    What the function raised is warned of when the call is dropped and nobody asked for its result.
    """

    def __init__(self, session: RPCSession, endpoint: Endpoint, pending: Pending) -> None:
        self._session = session
        self._endpoint = endpoint
        self._pending = pending
        self._is_known = False
        self._result: Any = _NONE_YET

    @property
    def done(self) -> bool:
        """Whether the answer has come; looking does not wait."""
        return self._pending.is_done

    def result(self) -> Any:
        """What the function returned; waits for it, and for the calls before it.

        Raises:
            RemoteError: the function raised; of the remote exception's type, too, where known.
            ConnectionLostError: the session ended before the call was answered.
        """
        __tracebackhide__ = True
        error = self.exception()
        if error is not None:
            raise error
        if self._result is _NONE_YET:  # a handle on the server is one object here
            self._result = self._session.received(self._pending.value)
        return self._result

    def exception(self) -> Optional[Exception]:
        """What the call raised, or None; waits like `result`."""
        if not self._pending.is_done:
            self._endpoint.finish(self._pending)
        self._is_known = True
        return self._pending.error

    def __del__(self) -> None:
        if not hasattr(self, "_result"):  # an interrupt came before it was made
            return
        if self._result is _NONE_YET:
            self._endpoint.abandon(self._pending)
        # The end of the session is told by `finish`, and by whatever else is asked of it.
        if isinstance(self._pending.error, RemoteError) and not self._is_known:
            warnings.warn(
                f"a pipelined call of {self._pending.name} failed, and nobody asked for its "
                f"result: {self._pending.error}",
                RuntimeWarning,
                stacklevel=2,
                source=self,
            )

    def __repr__(self) -> str:
        state = "done" if self.done else "not answered yet"
        return f"<PipelinedCall {self._pending.name}, {state}>"


@not_copied("open a session there, and get it from that")
class Pipeline:
    """Calls functions of one session without waiting; made by `RPCSession.pipeline`.

    The server works the calls off in their order. Other requests may be made meanwhile; they come
    behind the calls that were made before them.
    """

    def __init__(self, session: RPCSession, endpoint: Endpoint) -> None:
        self._session = session
        self._endpoint = endpoint

    def __repr__(self) -> str:
        return f"<Pipeline to {self._session.address}>"

    def call(self, function: RemoteFunction, *args: Any) -> PipelinedCall:
        """Calls a function; returns at once, unless the connection is full.

        Raises:
            ValueError: the function is none of this session, or an argument is not.
            LocalProtocolError: an argument cannot be sent.
        """
        __tracebackhide__ = True
        if not isinstance(function, RemoteFunction) or function.session is not self._session:
            raise ValueError(
                f"{function!r} is no function of this session; expected what its get_function() "
                "or a module of it returned"
            )
        pending = self._endpoint.start(function.handle, args, function.name, self._session.sent)
        return PipelinedCall(self._session, self._endpoint, pending)

    def finish(self) -> None:
        """Waits for the answers to all calls; what they raised is for `result` to say.

        Raises:
            ConnectionLostError: the session ended meanwhile.
        """
        self._endpoint.finish()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self,
        exc_type: Optional[type],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        if error is None:
            self.finish()
