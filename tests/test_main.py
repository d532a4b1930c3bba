"""The `tvmrpc` command: which program it runs, and with which words."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest

import pytest_tvmrpc
from pytest_tvmrpc import __main__ as command


@pytest.fixture(name="programs")
def _programs(monkeypatch):
    """The programs replaced by recorders: what each one was called with."""
    called = {}
    for module, _ in command.PROGRAMS.values():

        def main(argv, module=module):
            called[module] = argv
            return {"rpc_tracker": None, "rpc_server": 3}.get(module, 0)

        name = f"pytest_tvmrpc.exec.{module}"
        monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(main=main))
    return called


@pytest.mark.parametrize(
    ("program", "module", "status"),
    [("tracker", "rpc_tracker", 0), ("server", "rpc_server", 3), ("query", "query_rpc_tracker", 0)],
)
def test_the_words_go_to_the_program(programs, program, module, status):
    """Everything after the program's name reaches it unread, --help too; its status comes back."""
    words = ["--host", "0.0.0.0", "--help", "--version"]
    assert command.main([program, *words]) == status
    assert programs == {module: words}


def test_help_teaches(capsys):
    """--help shows each program and a farm from tracker to tests, and says who may reach it."""
    with pytest.raises(SystemExit, match="0"):
        command.main(["--help"])
    shown = capsys.readouterr().out
    for program in command.PROGRAMS:
        assert f"tvmrpc {program} " in shown
    assert "pytest --rpc-tracker=" in shown
    assert "127.0.0.1" in shown


def test_version(capsys):
    """--version names the distribution and its version."""
    with pytest.raises(SystemExit, match="0"):
        command.main(["--version"])
    assert capsys.readouterr().out.strip() == f"pytest-tvmrpc {pytest_tvmrpc.__version__}"


@pytest.mark.parametrize("words", [[], ["serve"]], ids=["nothing", "unknown"])
def test_a_program_has_to_be_named(programs, capsys, words):
    """Without the name of a program the command ends with 2 and says what it wants."""
    with pytest.raises(SystemExit, match="2"):
        command.main(words)
    assert "PROGRAM" in capsys.readouterr().err
    assert not programs


def test_as_a_module(tmp_path):
    """``python -m pytest_tvmrpc`` is the same command."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest_tvmrpc", "--version"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=tmp_path,  # the installed package, not the sources
    )
    assert done.stdout.strip() == f"pytest-tvmrpc {pytest_tvmrpc.__version__}"
