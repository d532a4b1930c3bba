"""The tracker as a program: what it is told about where to listen."""

from __future__ import annotations

import contextlib
import socket
import subprocess

import pytest

from pytest_tvmrpc.errors import StartError
from pytest_tvmrpc.protocol import tracker as wire
from pytest_tvmrpc.tracker.launch import Tracker

from .programs import port_of, running


def test_an_address_of_another_machine_is_refused() -> None:
    """The error names the address."""
    with pytest.raises(StartError, match=r"192\.0\.2\.1"):
        Tracker(host="192.0.2.1", port=0, log=subprocess.DEVNULL)


def test_one_that_was_restarted_by_hand_is_patient(deadline_s: float) -> None:
    """It does not say that a key has no servers: they may be on their way back to it."""
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(running("rpc_tracker", ["--port", "0"]))
        address = ("127.0.0.1", port_of(process))
        peer = stack.enter_context(socket.create_connection(address, deadline_s))
        answers = stack.enter_context(peer.makefile("rb"))
        expected = wire.MAGIC + wire.welcome()
        peer.sendall(wire.MAGIC + wire.greet(key="anything"))
        assert answers.read(len(expected)) == expected
