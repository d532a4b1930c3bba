"""The query program: TVM's options, environment and table."""

from __future__ import annotations

import re
import socket
from typing import Any

import pytest

from pytest_tvmrpc import rpc
from pytest_tvmrpc.exec import query_rpc_tracker


def test_it_prints_the_state(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Address, empty line, table: with options or with TVM's environment variables."""
    with rpc.Tracker(port=0, silent=True) as tracker:
        monkeypatch.setenv("TVM_TRACKER_HOST", "localhost.invalid")
        monkeypatch.setenv("TVM_TRACKER_PORT", str(tracker.port))
        assert query_rpc_tracker.main(["--host", "127.0.0.1"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[:3] == [f"Tracker address 127.0.0.1:{tracker.port}", "", "Server List"]
        monkeypatch.setenv("TVM_TRACKER_HOST", "127.0.0.1")
        monkeypatch.delenv("TVM_TRACKER_PORT")
        assert query_rpc_tracker.main(["--port", str(tracker.port)]) == 0


def test_the_table_to_the_blank(tvm_tracker: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """What TVM's own program prints of this farm, with the blanks at the ends of lines."""
    assert query_rpc_tracker.main([f"--port={tvm_tracker.port}"]) == 0
    assert capsys.readouterr().out == (
        f"Tracker address 127.0.0.1:{tvm_tracker.port}\n"
        "\n"
        "Server List\n"
        "------------------------------\n"
        "server-address           key\n"
        "------------------------------\n"
        "10.0.0.5:9090            server:board\n"
        "------------------------------\n"
        "\n"
        "Queue Status\n"
        "-----------------------------\n"
        "key     total  free  pending\n"
        "-----------------------------\n"
        "board   1      0     1      \n"
        "-----------------------------\n"
        "\n"
    )


@pytest.mark.parametrize("port", ["0.5", "99999", ""])
def test_it_says_what_is_wrong(
    port: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad port, or nobody there: one line on stderr, no traceback."""
    if not port:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
    monkeypatch.setenv("TVM_TRACKER_PORT", port)
    assert query_rpc_tracker.main(["--host", "127.0.0.1"]) == 1
    assert re.fullmatch(r"error: [^\n]+\n", capsys.readouterr().err)
