"""Tests of the tree of errors, and of how an exception comes over from the other machine."""

from __future__ import annotations

import builtins
import pickle

import pytest

from pytest_tvmrpc import errors
from pytest_tvmrpc.errors import RemoteError, RPCError, remote_error

KNOWN = [
    *("ValueError", "TypeError", "KeyError", "OSError", "FileNotFoundError", "ZeroDivisionError"),
    *("NotImplementedError", "RecursionError", "MemoryError", "AssertionError", "Exception"),
    *("LibraryError", "CompilerError", "DeviceError", "LocalProtocolError", "UnknownKeyError"),
]


def test_tree_is_the_one_in_the_docstring():
    """Every error is listed, below its parent, and is an RPCError."""
    above: list[tuple[int, str]] = []
    drawn = set()
    for line in errors.__doc__.split("::")[1].splitlines():
        name = line.split()[0] if line.strip() else ""
        name = name.partition("(")[0]
        if not name:
            continue
        depth = len(line) - len(line.lstrip())
        above = [(at, parent) for at, parent in above if at < depth]
        if above:
            assert getattr(errors, above[-1][1]) in getattr(errors, name).__bases__
        above.append((depth, name))
        drawn.add(name)
    assert drawn == set(errors.__all__)
    assert all(issubclass(getattr(errors, name), RPCError) for name in drawn)


def test_errors_that_are_also_pythons():
    """So that code which knows only Python's errors catches them."""
    assert issubclass(errors.ConnectionLostError, OSError)
    assert issubclass(errors.DeadlineError, TimeoutError)
    assert issubclass(errors.RPCSessionTimeoutError, TimeoutError)
    assert issubclass(RPCError, RuntimeError)


@pytest.mark.parametrize("name", KNOWN)
def test_known_type_comes_over(name):
    """`except ValueError` works across machines; the message is unchanged."""
    error = remote_error(f"{name}: boom: 'twice'")
    local = getattr(errors, name, None) or getattr(builtins, name)
    assert isinstance(error, local)
    assert isinstance(error, RemoteError)
    assert (str(error), error.remote_type) == ("boom: 'twice'", name)


@pytest.mark.parametrize("name", ["ValueError", "AssertionError", "KeyError"])
def test_known_type_without_a_message(name):
    """As of a failed assert: the type comes over, and a type that says nothing stays as text."""
    error = remote_error(name)
    assert isinstance(error, RemoteError)
    assert isinstance(error, getattr(builtins, name))
    assert (str(error), error.remote_type) == ("", name)
    for text in ("RuntimeError", "boom", "print", "KeyboardInterrupt"):
        assert type(remote_error(text)) is RemoteError
        assert str(remote_error(text)) == text


def test_each_type_is_made_once():
    """Classes are not piled up."""
    assert type(remote_error("ValueError: a")) is type(remote_error("ValueError: b"))


@pytest.mark.parametrize(
    "text",
    [
        "boom",
        "Check failed: size <= 3",
        "NoSuchError: boom",
        "KeyboardInterrupt: boom",
        "SystemExit: 3",
        "StopIteration: boom",
        "UserWarning: boom",
        "UnicodeDecodeError: boom",
        "ExceptionGroup: boom",
        "BaseExceptionGroup: boom",
        "print: boom",
        "__name__: boom",
        "\ud800: boom",
        "a\0b: boom",
        "ValueError:boom",
    ],
)
def test_unknown_type_stays_in_the_message(text):
    """A name that is no error here, or may not be raised here, is text."""
    error = remote_error(text)
    assert type(error) is RemoteError
    assert (str(error), error.remote_type) == (text, None)


def test_every_builtin_can_come_over():
    """Whatever the name, the result is an error of ours that can be raised, shown and pickled."""
    for name in [*dir(builtins), *errors.__all__]:
        error = remote_error(f"{name}: boom")
        assert isinstance(error, RPCError)
        with pytest.raises(type(error), match="boom"):
            raise error
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error)
        assert str(copy) == str(error)
        assert getattr(copy, "remote_type", None) == getattr(error, "remote_type", None)


def test_errors_of_the_runtime_itself():
    """A plain RuntimeError is a RemoteError already, and so is one that came over twice."""
    for name in ("RuntimeError", "RPCError", "RemoteError"):
        error = remote_error(f"{name}: boom")
        assert type(error) is RemoteError
        assert (str(error), error.remote_type) == ("boom", name)


def test_session_timeout():
    """TVM's name for the end of a session at its limit."""
    error = remote_error("RPCSessionTimeoutError: Your 2.0s session has expired")
    assert type(error) is errors.RPCSessionTimeoutError
    assert str(error) == "Your 2.0s session has expired"


def test_crash_of_the_session_is_no_error_of_the_function():
    """The peer is gone; that is what the type says."""
    error = remote_error("SessionCrashedError: killed by SIGSEGV")
    assert type(error) is errors.SessionCrashedError
    assert not isinstance(error, RemoteError)
    assert isinstance(error, errors.ConnectionLostError)


def test_an_empty_text() -> None:
    """Servers of TVM 0.14 to 0.20 send one; the error says so."""
    assert "does not say what" in str(remote_error(""))
