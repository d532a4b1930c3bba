"""Whose fault an error is: the test's, the device's, or the farm's. Looks at the error alone.

A test is honest only if these are told apart: what the device computed wrongly would be as wrong
the next time, and a cable that fell out says nothing about the kernel.
"""

from __future__ import annotations

import enum
import sys
from typing import Iterator

from ..errors import (
    ConnectionLostError,
    DeadlineError,
    HandshakeError,
    RemoteError,
    SessionCrashedError,
    TrackerError,
    UnknownKeyError,
)


class Cause(str, enum.Enum):
    """Whose fault it is that a test raised."""

    TEST = "test"
    """The test's, or that of the function on the device. It would raise again."""

    LOST = "lost"
    """The device dropped out: gone, unreachable, or taken away."""

    CRASHED = "crashed"
    """The process of the session died, the device lives: a bad board, or a kernel that kills it."""

    INFRA = "infra"
    """No device was given."""


DROPPED = (Cause.LOST, Cause.CRASHED)
"""After these, another device may do better."""


class NoDeviceError(TrackerError):
    """A test was given no device; the message says which keys, how long it waited, and why."""


def classify(error: BaseException, has_lost: bool) -> Cause:
    """Whose fault an error of a test that uses devices is.

    Args:
        error: what the test, or a fixture of it, raised.
        has_lost: whether a session of the test ended without being closed. A connection that the
            test opened on its own is its own affair.
    """
    causes = {_of(single, has_lost) for single in _each(error)}
    for cause in (Cause.TEST, Cause.INFRA, Cause.CRASHED):
        if cause in causes:
            return cause
    return Cause.LOST


def lacks_key(error: BaseException) -> bool:
    """Whether a test was given no device because nobody serves the key."""
    return any(
        isinstance(single, NoDeviceError) and isinstance(single.__cause__, UnknownKeyError)
        for single in _each(error)
    )


def told_by_doctest(error: BaseException) -> BaseException:
    """What an example of a doctest raised, out of the error by which doctest tells it."""
    doctest = sys.modules.get("doctest")
    if doctest is None or not isinstance(error, doctest.UnexpectedException):
        return error
    raised: BaseException = error.exc_info[1]
    return raised


def _of(error: BaseException, has_lost: bool) -> Cause:
    if isinstance(error, NoDeviceError):
        return Cause.LOST if _was_opening(error) else Cause.INFRA
    if not has_lost or isinstance(error, (AssertionError, RemoteError)):
        return Cause.TEST
    if isinstance(error, ConnectionLostError):
        return Cause.CRASHED if isinstance(error, SessionCrashedError) else Cause.LOST
    # A project's own error, raised from ours, says the same in other words.
    return Cause.TEST if error.__cause__ is None else _of(error.__cause__, has_lost)


def _was_opening(error: NoDeviceError) -> bool:
    """Whether a device was given, and then no session could be opened on it."""
    cause = error.__cause__
    if isinstance(cause, DeadlineError):
        return cause.argument in ("connect_timeout", "handshake_timeout")
    return isinstance(cause, HandshakeError)


def _each(error: BaseException) -> Iterator[BaseException]:
    """The errors of a group, as pytest raises it when several finalizers fail; else the error."""
    error = told_by_doctest(error)
    inner = getattr(error, "exceptions", None)
    if isinstance(inner, tuple):
        for single in inner:
            yield from _each(single)
    else:
        yield error
