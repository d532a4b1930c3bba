"""The proxy's program as people start it: options, output, ends."""

from __future__ import annotations

import contextlib
import signal
import socket
import struct
import subprocess
from typing import Callable, List

import pytest

from pytest_tvmrpc import rpc
from pytest_tvmrpc.errors import StartError
from pytest_tvmrpc.exec import rpc_proxy

from .programs import running


def test_it_says_who_comes(wait_until: Callable[..., None]) -> None:
    """Each pair has a line; silent, nothing has."""
    for arguments in ([], ["--silent"]):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with running("rpc_proxy", ["--port", str(port), *arguments]) as process:
            wait_until(lambda: _is_up(port), "the proxy is up")  # noqa: B023
            _pair(port)
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=10)
        assert process.returncode == 0
        assert ("pairing 127.0.0.1:" in output) is not bool(arguments)
        assert bool(output) is not bool(arguments)


def _is_up(port: int) -> bool:
    with contextlib.suppress(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 10).close()
        return True
    return False


def _pair(port: int) -> None:
    """Connect a server and a client."""
    with contextlib.ExitStack() as stack:
        peers = []
        for key in (b"server:k", b"client:k"):
            peer = stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            peers.append(peer)
            peer.sendall(struct.pack("<ii", 0xFF271, len(key)) + key)
        for peer in peers:
            assert peer.recv(4) == struct.pack("<i", 0xFF271)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--web-port", "8888"], "no web sockets"),
        (["--example-rpc", "1"], "no web sockets"),
        (["--tracker", "nonsense"], "expected HOST:PORT"),
    ],
)
def test_what_cannot_be_served_is_refused(
    arguments: List[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line that says what to do instead."""
    assert rpc_proxy.main([*arguments, "--port", "0"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert word in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("time", ["0", "-1", "nan", "inf", "soon"])
def test_a_wait_is_a_time(time: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Anything else is refused, as by any program."""
    with pytest.raises(SystemExit) as refused:
        rpc_proxy.main([f"--timeout-client={time}"])
    assert refused.value.code == 2
    assert "--timeout-client" in capsys.readouterr().err


def test_from_python_with_tvms_arguments() -> None:
    """All of TVM's names are there; what is not supported says so before anything starts."""
    for name, value in (("web_port", 8888), ("index_page", "x"), ("resource_files", [("a", "b")])):
        with pytest.raises(ValueError, match=rf"{name}=.* is not supported.*web sockets"):
            rpc.Proxy(port=0, **{name: value})  # type: ignore[arg-type]
    with rpc.Proxy(
        host="127.0.0.1",
        port=0,
        port_end=9199,
        web_port=0,
        timeout_client=1,
        timeout_server=1.5,
        tracker_addr=("127.0.0.1", 1),
        index_page=None,
        resource_files=None,
        log=subprocess.DEVNULL,
    ) as proxy:
        assert proxy.host == "127.0.0.1"
        socket.create_connection((proxy.host, proxy.port), 10).close()
        proxy.terminate()
        proxy.terminate()
        assert proxy.program.ended() == "exited with 0"


def test_it_does_not_start() -> None:
    """The error names the address."""
    with pytest.raises(StartError, match=r"192\.0\.2\.1"):
        rpc.Proxy(host="192.0.2.1", port=0, log=subprocess.DEVNULL)
