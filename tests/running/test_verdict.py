"""Whose fault an error is, by its type and by what became of the test's sessions."""

from __future__ import annotations

import builtins
import doctest
from typing import Any, Optional, Sequence

import pytest

from pytest_tvmrpc.errors import (
    ConnectError,
    ConnectionLostError,
    DeadlineError,
    DeviceError,
    HandshakeError,
    KeyMismatchError,
    RemoteError,
    RemoteProtocolError,
    RPCSessionTimeoutError,
    SessionCrashedError,
    SessionKickedError,
    StartError,
    TrackerError,
    UnknownKeyError,
)
from pytest_tvmrpc.running.verdict import (
    DROPPED,
    Cause,
    NoDeviceError,
    classify,
    lacks_key,
    told_by_doctest,
)

TEST, LOST, CRASHED, INFRA = Cause.TEST, Cause.LOST, Cause.CRASHED, Cause.INFRA


class RemoteLossError(RemoteError, ConnectionLostError):
    """What a server raises that lost the next one, behind a session constructor."""


def deadline(argument: str) -> DeadlineError:
    """A wait that reached the limit which this argument sets."""
    error = DeadlineError(f"{argument} is over")
    error.argument = argument
    return error


def no_device(cause: Optional[BaseException] = None) -> NoDeviceError:
    """What a test gets that is given no device."""
    error = NoDeviceError("no device 'a'")
    error.__cause__ = cause
    return error


def raised_from(error: BaseException, cause: BaseException) -> BaseException:
    """As ``raise error from cause`` makes it."""
    error.__cause__ = cause
    return error


def group(*errors: BaseException) -> BaseException:
    """Several errors as one, as pytest raises them: it has such a class before Python 3.11, too."""

    class Group(Exception):
        exceptions: Sequence[BaseException] = errors

    return Group("several finalizers failed")


@pytest.mark.parametrize(
    ("error", "lost", "kept"),
    [
        # the error, its cause if a session of the test was lost, and if none was
        (AssertionError("1 != 2"), TEST, TEST),
        (ValueError("boom"), TEST, TEST),
        (RemoteError("boom"), TEST, TEST),
        (RPCSessionTimeoutError("at its limit"), TEST, TEST),
        (RemoteProtocolError("what is that"), TEST, TEST),
        (DeviceError("no such device"), TEST, TEST),
        (deadline("call_timeout"), TEST, TEST),
        (OSError("a file of the test's"), TEST, TEST),
        (BrokenPipeError("a pipe of the test's"), TEST, TEST),
        (RemoteLossError("the next server is gone"), TEST, TEST),
        # without a lost session of ours it was one that the test opened on its own
        (ConnectionLostError("gone"), LOST, TEST),
        (ConnectError("refused"), LOST, TEST),
        (SessionKickedError("ada ended it"), LOST, TEST),
        (SessionCrashedError("SIGSEGV"), CRASHED, TEST),
        (TrackerError("the test's own tracker"), TEST, TEST),
        (UnknownKeyError("the test's own tracker"), TEST, TEST),
        (StartError("the test's own server"), TEST, TEST),
        # a project's own words for ours
        (raised_from(ValueError("no board"), ConnectionLostError("gone")), LOST, TEST),
        (raised_from(ValueError("no board"), SessionCrashedError("SIGSEGV")), CRASHED, TEST),
        (raised_from(AssertionError("1 != 2"), ConnectionLostError("gone")), TEST, TEST),
        (raised_from(RemoteError("boom"), ConnectionLostError("gone")), TEST, TEST),
        # no device was given, or one was and could not be opened
        (no_device(), INFRA, INFRA),
        (no_device(deadline("wait_timeout")), INFRA, INFRA),
        (no_device(UnknownKeyError("no such key")), INFRA, INFRA),
        (no_device(ConnectError("no tracker")), INFRA, INFRA),
        (no_device(deadline("the tracker's timeout")), INFRA, INFRA),
        (no_device(deadline("connect_timeout")), LOST, LOST),
        (no_device(deadline("handshake_timeout")), LOST, LOST),
        (no_device(HandshakeError("no")), LOST, LOST),
        (no_device(KeyMismatchError("another key")), LOST, LOST),
    ],
    ids=lambda value: value.value if isinstance(value, Cause) else type(value).__name__,
)
def test_the_cause_of_an_error(error: BaseException, lost: Cause, kept: Cause) -> None:
    """What would raise again on any device is the test's; the rest is the device's or farm's."""
    assert classify(error, has_lost=True) is lost
    assert classify(error, has_lost=False) is kept
    assert classify(group(error), has_lost=True) is lost


GONE, DIED = ConnectionLostError("gone"), SessionCrashedError("SIGSEGV")


@pytest.mark.parametrize(
    ("errors", "cause"),
    [
        ((GONE, GONE), LOST),
        ((GONE, DIED), CRASHED),
        ((GONE, no_device()), INFRA),
        ((DIED, no_device()), INFRA),
        ((GONE, AssertionError()), TEST),
        ((no_device(), AssertionError()), TEST),
        ((GONE, group(GONE, ValueError())), TEST),
        ((GONE, group(DIED, group(GONE))), CRASHED),
    ],
)
def test_several_errors(errors: Sequence[BaseException], cause: Cause) -> None:
    """The gravest counts, however deep it is: another device would not help against that."""
    assert classify(group(*errors), has_lost=True) is cause
    assert classify(group(*reversed(errors)), has_lost=True) is cause


def test_groups_of_python() -> None:
    """The built-in class is one, too."""
    exception_group: Any = getattr(builtins, "ExceptionGroup", None)
    if exception_group is None:
        pytest.skip("Python 3.11 has the first one")
    nested = exception_group("inner", [DIED])
    assert classify(exception_group("outer", [GONE, nested]), has_lost=True) is CRASHED


def test_what_doctest_tells() -> None:
    """The error of an example, not the one that doctest makes of it, also within a group."""
    test = doctest.DocTestParser().get_doctest(">>> 1", {}, "name", None, None)

    def told(error: BaseException) -> BaseException:
        exc_info: Any = (type(error), error, None)
        return doctest.UnexpectedException(test, test.examples[0], exc_info)

    assert classify(told(GONE), has_lost=True) is LOST
    assert classify(told(GONE), has_lost=False) is TEST
    assert classify(told(raised_from(ValueError(), DIED)), has_lost=True) is CRASHED
    assert classify(group(told(GONE), told(ValueError())), has_lost=True) is TEST
    assert told_by_doctest(told(DIED)) is DIED
    assert told_by_doctest(DIED) is DIED


@pytest.mark.parametrize(
    ("error", "lacks"),
    [
        (no_device(UnknownKeyError("no such key")), True),
        (group(ValueError(), no_device(UnknownKeyError("no such key"))), True),
        (no_device(deadline("wait_timeout")), False),
        (no_device(), False),
        (UnknownKeyError("of the test's own tracker"), False),
    ],
)
def test_a_key_that_nobody_serves(error: BaseException, lacks: bool) -> None:
    """Among the reasons for which no device was given, this one is the set-up's."""
    assert lacks_key(error) is lacks


def test_an_attribute_of_that_name_makes_no_group() -> None:
    """An exception of the user's may have one that means something else."""
    error = ValueError("boom")
    error.exceptions = 3  # type: ignore[attr-defined]
    assert classify(error, has_lost=True) is TEST


def test_words_of_the_hook() -> None:
    """A hook answers with the value of a cause; two of them run the test again."""
    assert [Cause(word) for word in ("test", "lost", "crashed", "infra")] == list(Cause)
    assert set(DROPPED) == {LOST, CRASHED}
