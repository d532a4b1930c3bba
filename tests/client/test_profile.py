"""Profiles of remote modules."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from pytest_tvmrpc import rpc, runtime
from pytest_tvmrpc.errors import RemoteError


def test_the_server_takes_the_time(remote: rpc.RPCSession, vector_add: Any) -> None:
    """Without the network; the function does what it does, and what fails is not in the report."""
    content = np.arange(3, dtype="float32")
    a, b, c = (runtime.tensor(content, remote.cpu(0)) for _ in range(3))
    with runtime.profile(vector_add) as profile:
        for _ in range(2):
            profile["vector_add"](a, b, c)
        with pytest.raises(RemoteError):
            profile["vector_add"](1)
    report = profile.report
    assert c.numpy().tolist() == [0, 2, 4]
    assert [call["Name"] for call in report.calls] == ["vector_add"] * 2
    assert [call["Device"] for call in report.calls] == ["cpu0"] * 2
    assert {call["Argument Shapes"] for call in report.calls} == {", ".join(["float32[3]"] * 3)}
    durations: Any = [call["Duration (us)"] for call in report.calls]
    assert all(0 < duration.microseconds < 60e6 for duration in durations)
    assert report.configuration == {"Clock": "of the server"}


def test_what_cannot_be_timed_there(remote: rpc.RPCSession, vector_add: Any) -> None:
    """A function that is not there, and a device that is not of the session."""
    with pytest.raises(AttributeError, match="no function 'none'"):
        runtime.profile(vector_add)["none"]
    with pytest.raises(ValueError, match="not a device of this session"):
        runtime.profile(vector_add, runtime.cpu(0))["vector_add"]()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((5, "f", 1, 0), "TypeError: 5 is no module"),
        ((None, 5, 1, 0), "TypeError: 5 is no name of a function"),
        ((None, "rpc.test.addone", "cpu", 0), "TypeError: .* is no device"),
        ((None, "rpc.test.addone", 1, -1), "ValueError: .*counted from 0"),
        ((None, "rpc.test.addone", 99, 0), "DeviceError"),
        ((None, "no.such", 1, 0), "ValueError: Cannot find no.such"),
    ],
)
def test_the_server_checks_what_it_is_asked(
    remote: rpc.RPCSession, arguments: Any, message: str
) -> None:
    """Whatever client asks: both functions that measure, and the session goes on."""
    for name, more in (("tvmrpc.server.timed", ()), ("runtime.RPCTimeEvaluator", (1, 1, 0, ""))):
        with pytest.raises(RemoteError) as caught:
            remote.get_function(name)(*arguments, *more)
        found = f"{caught.value.remote_type}: {caught.value}"
        assert re.search(message, found), found
    assert remote.get_function("rpc.test.addone")(1) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((0, 1, 0, ""), "number is 0; expected an integer from 1"),
        ((1, -1, 0, ""), "repeat is -1; expected an integer from 1"),
        ((1.5, 1, 0, ""), "number is 1.5; expected an integer"),
        (("1", 1, 0, ""), "number is '1'; expected an integer"),
        ((1, 1, 0, 5), "f_preproc is 5; expected the name of a function"),
        ((1, 1, 0, "no.such"), "Cannot find no.such"),
        ((1, 1, ""), "a time evaluator of 7 arguments"),
    ],
)
def test_the_server_checks_how_it_measures(
    remote: rpc.RPCSession, settings: Any, message: str
) -> None:
    """When the evaluator is asked for, not when it is called."""
    make = remote.get_function("runtime.RPCTimeEvaluator")
    with pytest.raises(RemoteError, match=message):
        make(None, "rpc.test.addone", 1, 0, *settings)
    assert make(None, "rpc.test.addone", 1, 0, 1, 1, 0, "")(1)


def test_only_timed_functions_have_seconds(remote: rpc.RPCSession) -> None:
    """Whatever else is asked for them is an error."""
    seconds, timed = (remote.get_function(f"tvmrpc.server.{n}") for n in ("seconds", "timed"))
    add = timed(None, "rpc.test.addone", 1, 0)
    assert add(41) == 42
    assert 0 < seconds(add) < 60
    for other in (5, None, timed):
        with pytest.raises(RemoteError, match="takes no time; expected a function"):
            seconds(other)
