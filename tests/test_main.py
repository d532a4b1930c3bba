"""The `tvmrpc` command: which program it runs, with which words; what all programs have in common.

What each of them does is tested in tests/exec.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import socket
import subprocess
import sys
import types
from pathlib import Path

import pytest

import pytest_tvmrpc
from pytest_tvmrpc import __main__ as command
from pytest_tvmrpc import rpc

FOLDER = Path(__file__).parents[1]


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


# --- the command --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "module", "status"),
    [
        ("tracker", "rpc_tracker", 0),
        ("server", "rpc_server", 3),
        ("build-server", "build_server", 0),
        ("bundle", "bundle", 0),
        ("proxy", "rpc_proxy", 0),
        ("query", "query_rpc_tracker", 0),
        ("who", "who", 0),
        ("kick", "kick", 0),
        ("doctor", "doctor", 0),
    ],
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
    for program, (_, does) in command.PROGRAMS.items():
        assert f"tvmrpc {program} " in shown
        assert does in shown
    assert "pytest --rpc-tracker=" in shown
    assert "127.0.0.1" in shown


def test_version(capsys):
    """--version names the distribution and its version."""
    with pytest.raises(SystemExit, match="0"):
        command.main(["--version"])
    assert capsys.readouterr().out.strip() == f"pytest-tvmrpc {pytest_tvmrpc.__version__}"


@pytest.mark.parametrize("words", [[], ["serve"]], ids=["nothing", "unknown"])
def test_a_program_has_to_be_named(programs, capsys, words):
    """Without the name of a program the command ends with 2 and names those that there are."""
    with pytest.raises(SystemExit, match="2"):
        command.main(words)
    shown = capsys.readouterr().err
    assert "PROGRAM" in shown
    assert not words or all(f"'{program}'" in shown for program in command.PROGRAMS)
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


# --- all programs -------------------------------------------------------------------------------


@pytest.mark.parametrize("program", command.PROGRAMS)
def test_help_is_light(program):
    """--help of each program comes without what the program needs to work: some 50 ms."""
    heavy = ["asyncio", "numpy", "logging", "pytest_tvmrpc.client", "pytest_tvmrpc.tracker.service"]
    script = (
        f"import atexit, sys; sys.path.insert(0, {str(FOLDER)!r})\n"
        f"atexit.register(lambda: print([name for name in {heavy!r} if name in sys.modules]))\n"
        f"from pytest_tvmrpc.__main__ import main; main([{program!r}, '--help'])"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("usage: ")
    assert done.stdout.endswith("\n[]\n"), done.stdout


@pytest.mark.parametrize("program", ["query", "who", "kick", "doctor"])
def test_the_reader_of_the_output_ends(program):
    """`| head` is no reason for a traceback; nor is the end of the interpreter, which flushes."""
    with rpc.Tracker(port=0, silent=True) as tracker:
        reader, writer = os.pipe()
        os.close(reader)
        words = [f"--port={tracker.port}"]
        if program == "kick":
            words.append("nobody")
        if program == "doctor":
            words = [f"--tracker=127.0.0.1:{tracker.port}", "--timeout=0.1"]
        with open(writer, "w") as output:
            done = subprocess.run(
                [sys.executable, "-m", "pytest_tvmrpc", program, *words],
                stdout=output,
                stderr=subprocess.PIPE,
                text=True,
                timeout=60,
                check=False,
                env={**os.environ, "PYTHONPATH": str(FOLDER)},
            )
    assert done.returncode == (1 if program == "kick" else 141)  # which prints to stderr here
    assert "BrokenPipe" not in done.stderr


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["pytest_tvmrpc", "server"], "tvmrpc server "),
        (["pytest_tvmrpc.exec.rpc_server"], "python -m pytest_tvmrpc.exec.rpc_server "),
        (["pytest_tvmrpc", "query"], "tvmrpc query "),
        (["pytest_tvmrpc", "who"], "tvmrpc who "),
    ],
)
def test_help_names_what_was_typed(words, name):
    """A board has the module, but not always the command."""
    done = subprocess.run(
        [sys.executable, "-m", *words, "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "PYTHONPATH": str(FOLDER)},
    )
    assert done.stdout.startswith(f"usage: {name}")


OF_TVM = {
    "rpc_tracker": {"--host": "0.0.0.0", "--port": 9190, "--port-end": 9199, "--silent": False},
    "rpc_server": {
        "--host": "0.0.0.0",
        "--port": 9090,
        "--port-end": 9199,
        "--silent": False,
        "--through-proxy": False,
        "--tracker": None,
        "--key": "",
        "--load-library": None,
        "--no-fork": False,
        "--custom-addr": None,
    },
    "rpc_proxy": {
        "--host": "127.0.0.1",
        "--port": 9090,
        "--port-end": 9199,
        "--web-port": 8888,
        "--example-rpc": False,
        "--tracker": "",
    },
    "query_rpc_tracker": {"--host": "", "--port": None},
}
"""The options of TVM's programs, 0.13 to 0.27, and their defaults."""

OURS = {
    ("rpc_tracker", "--host"): "127.0.0.1",
    ("rpc_server", "--host"): "127.0.0.1",
    ("rpc_proxy", "--web-port"): 0,
    ("rpc_proxy", "--example-rpc"): "",
    ("rpc_proxy", "--tracker"): None,
}
"""Where our defaults differ: no other machine is let in unasked, there are no web sockets, and no
tracker is None."""


@pytest.mark.parametrize("program", OF_TVM)
def test_the_options_of_tvm(program):
    """Each option of TVM's program is there, with its default."""
    parser = importlib.import_module(f"pytest_tvmrpc.exec.{program}")._parser()
    assert isinstance(parser, argparse.ArgumentParser)
    actions = {option: action for action in parser._actions for option in action.option_strings}
    for option, default in OF_TVM[program].items():
        assert actions[option].default == OURS.get((program, option), default), option
        is_flag = default is False and option != "--example-rpc"
        assert (actions[option].nargs == 0) is is_flag, option


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("program", ["tracker", "server", "proxy"])
def test_an_end_by_signal(program, number, deadline_s):
    """Port 0 is printed as the one it is; a signal ends the program with 0, and its children."""
    with subprocess.Popen(
        [sys.executable, "-m", "pytest_tvmrpc", program, "--port=0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(FOLDER)},
    ) as process:
        try:
            words = process.stdout.readline().split()
            assert words[:2] == ["bind", "to"]
            host, port = words[2].rsplit(":", 1)
            if program == "server":
                session = rpc.connect(host, int(port))
                echo = session.get_function("testing.echo")
                assert echo(1) == 1
                worker = children(process.pid)
                assert worker or not Path("/proc").is_dir()
            else:
                session = socket.create_connection((host, int(port)), deadline_s)
                worker = []
            with session:
                process.send_signal(number)
                assert process.wait(deadline_s) == 0
                assert not [pid for pid in worker if Path(f"/proc/{pid}").exists()]
        finally:
            if process.poll() is None:
                process.kill()


def children(pid):
    """The processes that this one started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        if int(fields[1]) == pid:
            found.append(int(entry.parent.name))
    return found
