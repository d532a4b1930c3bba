"""Options: three sources, one value, and advice when it cannot be used."""

from __future__ import annotations

import json
from typing import Callable, List

import pytest

from pytest_tvmrpc.options import SETTINGS, Options, options_of

Run = Callable[..., pytest.RunResult]
Parse = Callable[..., Options]


@pytest.fixture(name="parse")
def _parse(plain: pytest.Pytester, loading: List[str]) -> Parse:
    """The options for a command line, read before pytest_configure."""
    return lambda *arguments: options_of(plain.parseconfig(*loading, *arguments))


def test_without_settings_there_is_one_local_server(parse: Parse) -> None:
    """The defaults are those of the help text."""
    assert parse() == Options(None, ("local",), 1, 0.0, 60.0, 10.0, 600.0)


def test_command_line(parse: Parse) -> None:
    """Each setting has an option; keys keep their order and lose repetitions."""
    options = parse(
        "--rpc-tracker=farm:9190",
        "--rpc-key=b",
        "--rpc-key=a",
        "--rpc-key=b",
        "--rpc-servers=3",
        "--rpc-session-timeout=1.5",
        "--rpc-queue-timeout=2",
        "--rpc-connect-timeout=3",
        "--rpc-call-timeout=4",
    )
    assert options == Options(("farm", 9190), ("b", "a"), 3, 1.5, 2.0, 3.0, 4.0)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (
            "pytest.ini",
            "[pytest]\nrpc_tracker = farm:9190\nrpc_key = b a\nrpc_servers = 3\n"
            "rpc_session_timeout = 1.5\nrpc_queue_timeout = 2\n",
        ),
        (
            "pyproject.toml",
            "[tool.pytest.ini_options]\nrpc_tracker = 'farm:9190'\nrpc_key = ['b', 'a']\n"
            "rpc_servers = '3'\nrpc_session_timeout = '1.5'\nrpc_queue_timeout = '2'\n",
        ),
        pytest.param(
            "pyproject.toml",
            "[tool.pytest]\nrpc_tracker = 'farm:9190'\nrpc_key = ['b', 'a']\n"
            "rpc_servers = 3\nrpc_session_timeout = 1.5\nrpc_queue_timeout = 2\n",
            marks=pytest.mark.skipif(pytest.version_tuple < (9,), reason="native TOML: pytest 9"),
            id="native TOML",
        ),
    ],
)
def test_ini_file(plain: pytest.Pytester, parse: Parse, file: str, text: str) -> None:
    """Each setting has an ini value, in each kind of ini file that pytest reads."""
    (plain.path / file).write_text(text)
    assert parse() == Options(("farm", 9190), ("b", "a"), 3, 1.5, 2.0)


def test_environment_counts_more_than_ini_and_less_than_the_command_line(
    plain: pytest.Pytester, parse: Parse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ini, then environment, then command line: the later one counts."""
    plain.makeini("[pytest]\nrpc_key = ini\nrpc_servers = 2\nrpc_tracker = ini:1\n")
    assert parse() == Options(("ini", 1), ("ini",), 2)
    monkeypatch.setenv("TVM_TRACKER_HOST", "env")
    monkeypatch.setenv("TVM_TRACKER_PORT", "2")
    monkeypatch.setenv("TVM_TRACKER_KEY", "env")
    monkeypatch.setenv("PYTEST_TVMRPC_SERVERS", "3")
    assert parse() == Options(("env", 2), ("env",), 3)
    given = ("--rpc-tracker=line:3", "--rpc-key=line", "--rpc-servers=4")
    assert parse(*given) == Options(("line", 3), ("line",), 4)


def test_environment_of_tvm(parse: Parse, monkeypatch: pytest.MonkeyPatch) -> None:
    """The port has TVM's default, the host may be an IPv6 address, several keys have commas."""
    monkeypatch.setenv("TVM_TRACKER_HOST", "::1")
    monkeypatch.setenv("TVM_TRACKER_KEY", "a, b")
    options = parse()
    assert options.tracker == ("::1", 9190)
    assert options.keys == ("a", "b")


def test_an_empty_tracker_on_the_command_line_means_one_for_the_run(
    plain: pytest.Pytester, parse: Parse
) -> None:
    """What the ini file says about a tracker can be turned off."""
    plain.makeini("[pytest]\nrpc_tracker = farm:9190\n")
    assert parse("--rpc-tracker=").tracker is None


@pytest.mark.parametrize(
    ("argument", "advice"),
    [
        ("--rpc-tracker=farm", "HOST:PORT, for example --rpc-tracker=127.0.0.1:9190"),
        ("--rpc-tracker=farm:http", "HOST:PORT"),
        ("--rpc-key=", "without blanks, for example --rpc-key=jetson"),
        ("--rpc-key=a b", "'a b' cannot be used; expected a key without blanks"),
        ("--rpc-key=a\tb", "a key without blanks"),
        ("--rpc-servers=none", "a whole number from 1, for example --rpc-servers=2"),
        ("--rpc-servers=0", "'0' cannot be used; expected a whole number from 1"),
        ("--rpc-session-timeout=-1", "or 0 for no limit"),
        ("--rpc-queue-timeout=0", "a number of seconds above 0"),
        ("--rpc-call-timeout=inf", "a number of seconds above 0"),
        ("--rpc-connect-timeout=soon", "for example --rpc-connect-timeout=10"),
    ],
)
def test_bad_option(run: Run, argument: str, advice: str) -> None:
    """A bad value ends the run before it starts, and the message says what to write."""
    result = run(argument)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {argument.split('=')[0]}:*{advice}*"])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("PYTEST_TVMRPC_SERVERS", "x", "*environment PYTEST_TVMRPC_SERVERS: 'x'*whole number*"),
        ("TVM_TRACKER_HOST", "a:b:c", "*environment TVM_TRACKER_HOST*"),
        ("TVM_TRACKER_PORT", "9190", "*TVM_TRACKER_HOST is not set; set both*"),
    ],
)
def test_bad_environment(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    """A bad value from the environment is blamed on its variable."""
    monkeypatch.setenv(name, value)
    if name == "TVM_TRACKER_HOST":
        monkeypatch.setenv("TVM_TRACKER_PORT", "no-port")
    result = run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])


@pytest.mark.parametrize("line", ["rpc_servers = many", "rpc_servers = 0"])
def test_bad_ini(plain: pytest.Pytester, run: Run, line: str) -> None:
    """A bad value from the ini file is blamed on its name there."""
    plain.makeini(f"[pytest]\n{line}\n")
    result = run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*ini rpc_servers*expected a whole number from 1*"])


def test_options_travel_to_workers_as_plain_values() -> None:
    """What a controller sends is what a worker reads."""
    options = Options(("farm", 9190), ("b", "a"), 3, 1.5)
    assert Options.from_json(options.to_json()) == options
    assert Options.from_json(json.loads(json.dumps(options.to_json()))) == options
    assert Options.from_json(Options().to_json()) == Options()


def test_help_teaches_each_setting(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """--help names the option, its ini name and its variable, even if a setting is wrong."""
    monkeypatch.setenv("PYTEST_TVMRPC_SERVERS", "x")
    result = run("--help")
    assert result.ret == 0
    text = " ".join(result.stdout.str().split())
    assert "remote devices over TVM RPC" in text
    for setting in SETTINGS:
        assert f"{setting.flag}={setting.metavar}" in text
        assert f"ini {setting.name}, environment {setting.environment}" in text


def test_fixtures_have_a_first_line(run: Run) -> None:
    """pytest --fixtures says what each public fixture is, and hides the others."""
    result = run("--fixtures")
    result.stdout.fnmatch_lines(
        [
            "remote_device -- *",
            "*A function that leases devices by key*",
            "remote -- *",
            "*A session on a remote device*",
        ]
    )
    result.stdout.no_fnmatch_line("_rpc*")
