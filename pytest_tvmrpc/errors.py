"""Every error this package raises, as one tree. Nothing here does anything.

::

    RPCError(RuntimeError)
        ProtocolError
            LocalProtocolError       also a ValueError: the protocol cannot say this
            RemoteProtocolError      the peer said something the protocol forbids
        HandshakeError               the peer answered, and the answer was no
            KeyMismatchError         it serves another key
            DuplicateKeyError        a proxy has this key already
            DialectLearnedError      the dialect had to be learned first; ask again, with it
        ConnectionLostError          also an OSError: the peer is gone
            ConnectError             nobody answered at that address
            SessionCrashedError      the server lives, the process that served this session died
            SessionKickedError       somebody in charge of the farm ended this session
        DeadlineError                also a TimeoutError: a wait of ours had a limit, and it is over
        TrackerError                 not a tracker, or it cannot give what was asked
            UnknownKeyError          no server offers this key
        RemoteError                  the remote function raised
            RPCSessionTimeoutError   also a TimeoutError: the server ended the session at its limit
        DeviceError                  a device or its driver said no
        LibraryError                 a library or function was not found, or does not fit here
            CompilerError            no compiler, or it refused the source
        StartError                   a program of ours did not start
            SettingError             also a ValueError: what it was told makes no sense
"""

from __future__ import annotations

import builtins
from typing import Any, Callable, Dict, Optional, Tuple, Type

__all__ = [
    "CompilerError",
    "ConnectError",
    "ConnectionLostError",
    "DeadlineError",
    "DeviceError",
    "DialectLearnedError",
    "DuplicateKeyError",
    "HandshakeError",
    "KeyMismatchError",
    "LibraryError",
    "LocalProtocolError",
    "ProtocolError",
    "RPCError",
    "RPCSessionTimeoutError",
    "RemoteError",
    "RemoteProtocolError",
    "SessionCrashedError",
    "SessionKickedError",
    "SettingError",
    "StartError",
    "TrackerError",
    "UnknownKeyError",
]


class RPCError(RuntimeError):
    """The root: whatever this package raises on its own account is one of these."""


class ProtocolError(RPCError):
    """A rule of the protocol was broken."""


class LocalProtocolError(ProtocolError, ValueError):
    """We were asked to say something that the protocol cannot say or does not allow now."""


class RemoteProtocolError(ProtocolError):
    """The peer said something that the protocol does not allow.

    Attributes:
        dialect: in which dialect a client is told, when its own could not be made out; else None.
    """

    dialect: Any = None


class HandshakeError(RPCError):
    """The peer answered the first words of a connection with a refusal."""


class KeyMismatchError(HandshakeError):
    """The server at this address serves another key, or its match key was used up."""


class DuplicateKeyError(HandshakeError):
    """The proxy at this address already has a server with this key."""


class DialectLearnedError(HandshakeError):
    """A match key was used up to learn the server's dialect, which a session constructor needs.

    Attributes:
        dialect: the `protocol.dialect.Dialect`, for the next attempt at the same address.
    """

    def __init__(self, message: str, dialect: object = None) -> None:
        super().__init__(message)
        self.dialect = dialect


class ConnectionLostError(RPCError, OSError):
    """The peer is gone: closed, killed or unreachable. Work may be repeated elsewhere."""


class ConnectError(ConnectionLostError):
    """No connection could be made to an address."""


class SessionCrashedError(ConnectionLostError):
    """The process that served the session died; its server goes on serving others."""


class SessionKickedError(ConnectionLostError):
    """Somebody in charge of the farm ended the session; the message says who, or why."""


class DeadlineError(RPCError, TimeoutError):
    """A wait of ours reached its limit; the message names it, and the argument that sets it.

    Attributes:
        argument: the name of that argument; empty when nothing sets the limit.
    """

    argument: str = ""


class TrackerError(RPCError):
    """The tracker cannot give what was asked, or is no tracker."""


class UnknownKeyError(TrackerError):
    """No server offers the key that was asked for; the message lists the keys that exist."""


class RemoteError(RPCError):
    """A function raised on the other machine; the session stays usable.

    The message is the remote one, unchanged. When the remote type has a name that is known here
    (``ValueError``, ``LibraryError``), the instance is of that type, too, so that
    ``except ValueError`` works across machines.

    Attributes:
        remote_type: the name of the exception's class on the other machine, or None.
    """

    remote_type: Optional[str] = None

    def __reduce__(self) -> Tuple[Callable[[str], RPCError], Tuple[str]]:
        """Pickled as its text: the types that `remote_error` makes have no name in a module."""
        message = str(self.args[0]) if self.args else ""
        return remote_error, (f"{self.remote_type}: {message}" if self.remote_type else message,)


class RPCSessionTimeoutError(RemoteError, TimeoutError):
    """The session lasted longer than its ``session_timeout``; the server ended it."""


class DeviceError(RPCError):
    """A device is not there, or its driver refused a call."""


class LibraryError(RPCError):
    """A library cannot be loaded here, or lacks what was looked for."""


class CompilerError(LibraryError):
    """No compiler was found, or the one that was found refused its input."""


class StartError(RPCError):
    """A program of ours did not come up; the message holds what it printed last."""


class SettingError(StartError, ValueError):
    """A program of ours cannot be told this; the message names the setting and what would do."""


_NOT_RAISED_HERE = (StopIteration, StopAsyncIteration, SyntaxError, UnicodeError, Warning)
"""Control flow, or types that cannot be made from a message alone; as is ExceptionGroup (3.11)."""

_remote_types: Dict[str, Type[RemoteError]] = {
    "RPCSessionTimeoutError": RPCSessionTimeoutError,
}


def remote_error(text: str) -> RPCError:
    """The local exception for the text of a remote one.

    ``"ValueError: boom"`` becomes an error that is a `RemoteError` and a `ValueError` with the
    message ``boom``; a text without a known type becomes a plain `RemoteError`.
    `SessionCrashedError` and `SessionKickedError` are not exceptions of the function, and come
    back as themselves.
    """
    if not text:
        return RemoteError(
            "the function raised, and the server does not say what: TVM 0.14 to 0.20 lose the text "
            "of Python's exceptions; look into the server's output"
        )
    name, colon, message = text.partition(": ")
    for ended in (SessionCrashedError, SessionKickedError):
        if colon and name == ended.__name__:
            return ended(message)
    # A bare name is an exception without a message, such as that of a failed assert.
    remote_type = _remote_type(name) if colon or text.isidentifier() else None
    if remote_type is None or (not colon and remote_type is RemoteError):
        return RemoteError(text)
    error = remote_type(message)
    error.remote_type = name
    return error


def _remote_type(name: str) -> Optional[Type[RemoteError]]:
    known = _remote_types.get(name)
    if known is not None:
        return known
    if name in ("RemoteError", "RPCError", "RuntimeError"):
        return RemoteError
    native = globals()[name] if name in __all__ else getattr(builtins, name, None)
    if not (isinstance(native, type) and issubclass(native, Exception)):
        return None
    if issubclass(native, _NOT_RAISED_HERE) or native.__name__ == "ExceptionGroup":
        return None
    own_name = "Remote" + name.replace("Remote", "")
    made: Type[RemoteError] = type(own_name, (RemoteError, native), {"__str__": _message})
    _remote_types[name] = made
    return made


def _message(error: BaseException) -> str:
    """The message as it was sent; KeyError and OSError would dress it up."""
    return str(error.args[0]) if error.args else ""
