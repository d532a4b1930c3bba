"""The tracker's name: looked up once for all, and never waited for at the end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import threading
from typing import Any, List

import pytest

from pytest_tvmrpc import network
from pytest_tvmrpc.errors import ConnectError
from pytest_tvmrpc.proxy import lookup
from pytest_tvmrpc.proxy.lookup import Lookup

FOUND = [(2, 1, 6, "", ("192.0.2.1", 9190))]


def test_all_share_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who ask at the same time and those who ask soon after; later, it is asked anew."""
    asked: List[Any] = []
    may_answer = threading.Event()

    def resolve(host: str, port: int) -> Any:
        asked.append((host, port))
        assert may_answer.wait(10)
        return FOUND

    monkeypatch.setattr(network, "resolve", resolve)

    async def scenario() -> None:
        names = Lookup(("farm.example", 9190))
        hasty = asyncio.ensure_future(names.addresses())
        others = [asyncio.ensure_future(names.addresses()) for _ in range(5)]
        await asyncio.sleep(0)
        hasty.cancel()
        may_answer.set()
        assert await asyncio.gather(*others) == [FOUND] * 5
        assert await names.addresses() == FOUND
        assert asked == [("farm.example", 9190)]
        monkeypatch.setattr(lookup, "KEPT_S", -1)
        names = Lookup(("farm.example", 9190))
        for _ in range(2):
            assert await names.addresses() == FOUND
        assert len(asked) == 3

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_a_name_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody is told, and nobody has to ask for the error."""

    def resolve(host: str, port: int) -> Any:
        raise ConnectError("no such name")

    monkeypatch.setattr(network, "resolve", resolve)

    async def scenario() -> None:
        names = Lookup(("farm.example", 9190))
        asked = [asyncio.ensure_future(names.addresses()) for _ in range(2)]
        for answer in asked:
            with pytest.raises(ConnectError, match="no such name"):
                await answer

    asyncio.run(asyncio.wait_for(scenario(), 10))


_SLOW = """
import socket, sys, threading
socket.getaddrinfo = lambda *arguments, **more: threading.Event().wait(60)
from pytest_tvmrpc.exec import rpc_proxy
sys.exit(rpc_proxy.main(["--port", "0", "--tracker", "farm.example:9190"]))
"""


def test_a_name_server_that_does_not_answer(deadline_s: float) -> None:
    """Does not keep the proxy from ending."""
    with subprocess.Popen(
        [sys.executable, "-c", _SLOW], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process, contextlib.ExitStack() as stack:
        stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("bind to 127.0.0.1:")
        process.send_signal(signal.SIGTERM)
        assert process.wait(deadline_s) == 0
