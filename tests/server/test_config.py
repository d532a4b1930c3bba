"""What a server can be told, and what it cannot."""

from __future__ import annotations

import argparse
import inspect
import re
from typing import Any

import pytest

from pytest_tvmrpc import arguments
from pytest_tvmrpc.arguments import add_arguments, command_line
from pytest_tvmrpc.errors import SettingError
from pytest_tvmrpc.network import LOOPBACK
from pytest_tvmrpc.proxy import launch as proxy
from pytest_tvmrpc.proxy.launch import Proxy
from pytest_tvmrpc.server.config import ARGUMENTS, ServerConfig, configure
from pytest_tvmrpc.server.launch import Server
from pytest_tvmrpc.tracker import launch as tracker
from pytest_tvmrpc.tracker.launch import Tracker


def test_defaults() -> None:
    """TVM's ports, but loopback only."""
    config = ServerConfig()
    config.check()
    assert (config.host, config.port, config.port_end) == ("127.0.0.1", 9090, 9199)
    assert config.key == ""
    assert config.tracker is None


@pytest.mark.parametrize(
    "settings",
    [{"port": 0}, {"port": 65535}, {"key": "jetson"}, {"key": "a:b"}, {"key": "ä"}],
    ids=repr,
)
def test_what_can_be(settings: Any) -> None:
    """Raises nothing."""
    ServerConfig(**settings).check()
    ServerConfig(**{"key": "k", **settings}, tracker=("127.0.0.1", 9190)).check()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tracker": ("127.0.0.1", 9190)}, "Need key .* --key jetson"),
        ({"key": "two words"}, "keys are single words"),
        ({"key": " blank"}, "keys are single words"),
        ({"key": "new\nline"}, "keys are single words"),
        ({"key": "nul\0"}, "keys are single words"),
        ({"port": -1}, "1 to 65535, or 0"),
        ({"port": 65536}, "1 to 65535, or 0"),
        ({"is_proxy": True}, "needs the proxy's port and a key of its own"),
        ({"is_proxy": True, "key": "k" * 300}, "longer than the 256 bytes"),
        ({"tracker": ("127.0.0.1", 9190), "key": "k" * 300}, "longer than the 256 bytes"),
        ({"is_proxy": True, "key": "k", "port": 0}, "needs the proxy's port and a key of its own"),
        ({"idle_s": -1.0}, "the idle timeout -1.0 is no time in seconds; 0 is for no limit"),
        ({"idle_s": float("inf")}, "the idle timeout inf is no time"),
        ({"unused_s": float("nan")}, "the timeout nan is no time"),
    ],
    ids=repr,
)
def test_what_cannot_be(settings: Any, message: str) -> None:
    """Is refused with what would do."""
    with pytest.raises(ValueError, match=message):
        ServerConfig(**settings).check()


def test_each_setting_is_said_once() -> None:
    """Each row is a setting, and an argument of `Server` unless it is for ourselves."""
    keywords = {row.keyword for row in ARGUMENTS}
    not_on_a_command_line = {"self", "server_init_callback", "log"}
    assert set(inspect.signature(Server.__init__).parameters) - not_on_a_command_line == (
        keywords - {"callback_fd"}
    )
    of_the_program = {"silent", "reuse_addr"}
    assert {row.name for row in ARGUMENTS} - of_the_program <= set(ServerConfig._fields)
    assert {row.keyword for row in ARGUMENTS if row.name not in ServerConfig._fields} == (
        of_the_program
    )


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"host": "", "port": 0, "port_end": 1, "silent": True, "reuse_addr": False},
        {"tracker_addr": ("::1", 9190), "key": "-k", "custom_addr": "--host"},
        {"is_proxy": True, "key": "k"},
        {"load_library": ["/a.so", "b.so"], "no_fork": True},
        {"load_library": "/a.so:b.so", "idle_timeout": 0, "timeout": 1e-7},
        {"load_library": None, "custom_addr": None, "timeout": None, "tracker_addr": None},
    ],
    ids=repr,
)
def test_the_command_line_says_the_same(given: Any) -> None:
    """The settings are those of the keywords, after their way through the program's parser."""
    line = command_line(ARGUMENTS, given)
    parser = argparse.ArgumentParser()
    add_arguments(parser, ARGUMENTS)
    options = parser.parse_args(line)
    assert configure(vars(options)) == configure(given)
    assert options.silent is given.get("silent", False)
    assert options.reuse_addr is given.get("reuse_addr", True)


def test_what_holds_anyway_is_not_said() -> None:
    """The command line of a server with nothing special is short."""
    assert command_line(ARGUMENTS, {}) == []
    assert command_line(ARGUMENTS, {"port": 9091, "silent": True}) == ["--port=9091", "--silent"]


@pytest.mark.parametrize("address", ["nowhere", "host:", "host:0", "host:http"])
def test_an_address_that_is_none(address: str) -> None:
    """Is refused with an example, whether it is an option's value or an argument."""
    with pytest.raises(ValueError, match="expected HOST:PORT, for example"):
        configure({"tracker_addr": address, "key": "k"})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"key": None}, "key=None is a NoneType; expected a str"),
        ({"port": "9090"}, "port='9090' is a str; expected an int"),
        ({"port": True}, "port=True is a bool; expected an int"),
        ({"port": 9090.0}, "port=9090.0 is a float; expected an int"),
        ({"port": None}, "port=None is a NoneType; expected an int"),
        ({"idle_timeout": "5"}, "idle_timeout='5' is a str; expected seconds, as a number"),
        ({"idle_timeout": None}, "idle_timeout=None is a NoneType; expected seconds"),
        ({"timeout": b"5"}, "timeout=b'5' is a bytes; expected seconds, as a number"),
        ({"silent": "no"}, "silent='no' is a str; expected True or False"),
        ({"tracker_addr": ("h", 0)}, "tracker_addr: port 0 is none; give 1 to 65535"),
        ({"tracker_addr": ["h", -1]}, "tracker_addr: port -1 is none; give 1 to 65535"),
        ({"tracker_addr": ("h", 65536)}, "tracker_addr: port 65536 is none; give 1 to 65535"),
        ({"custom_addr": 5}, "custom_addr=5 is a int; expected a str"),
        ({"tracker_addr": ("h",)}, r"tracker_addr=('h',) is a tuple; expected host and port"),
        ({"tracker_addr": ("h", "9190")}, "expected host and port, such as ('127.0.0.1', 9190)"),
        ({"tracker_addr": 9190}, "tracker_addr=9190 is a int; expected host and port"),
        ({"load_library": 5}, "load_library=5 is a int; expected paths"),
        ({"load_library": [5]}, "load_library=[5] is a list; expected paths"),
    ],
    ids=str,
)
def test_a_setting_of_a_wrong_type(given: Any, message: str) -> None:
    """Is refused before a process is started, with its name, what was given and what would do."""
    with pytest.raises(SettingError, match=re.escape(message)):
        Server(**{"port": 0, "key": "k", **given})


@pytest.mark.parametrize("keyword", ["timeout", "idle_timeout"])
def test_a_time_beyond_all_floats(keyword: str) -> None:
    """Is refused like any other that is none."""
    with pytest.raises(SettingError, match=f"{keyword}: int too large to convert to float"):
        configure({keyword: 10**400})


@pytest.mark.parametrize("program", [Server, Tracker, Proxy])
def test_a_wrong_type_for_any_program(program: Any) -> None:
    """They check what they have in common in the same way."""
    with pytest.raises(SettingError, match="port_end='9199' is a str; expected an int"):
        program(port=0, port_end="9199")


@pytest.mark.parametrize("rows", [ARGUMENTS, tracker.ARGUMENTS, proxy.ARGUMENTS])
def test_none_stands_for_the_default(rows: Any) -> None:
    """Of what has one that nobody need know: the address, the last port, a switch."""
    optional = ["host", "port_end", "silent", "reuse_addr"]
    optional += [row.keyword for row in rows if row.is_optional or isinstance(row.default, bool)]
    assert command_line(rows, dict.fromkeys(optional)) == []
    given = {"silent": None, "host": None}
    assert arguments.settings(rows, given) == {"silent": False, "host": LOOPBACK}


def test_a_program_that_is_told_no_address() -> None:
    """Listens on this machine, and says so."""
    with Tracker(host=None, port=0, port_end=None, silent=None) as started:  # type: ignore[arg-type]
        assert started.host == LOOPBACK


def test_truth_values_of_numpy() -> None:
    """Are truth values, and no numbers."""
    np = pytest.importorskip("numpy")
    switches = {"silent": np.True_, "no_fork": np.False_, "reuse_addr": np.False_}
    assert command_line(ARGUMENTS, switches) == ["--silent", "--no-reuse-addr"]
    assert configure({"no_fork": np.True_}).no_fork is True
    for keyword in ("port", "timeout"):
        with pytest.raises(SettingError, match=f"{keyword}=.*; expected"):
            configure({keyword: np.True_})


def test_numbers_of_numpy() -> None:
    """Are numbers."""
    np = pytest.importorskip("numpy")
    config = configure({"port": np.int64(7), "idle_timeout": np.float32(0.5), "timeout": 2})
    assert (config.port, config.idle_s, config.unused_s) == (7, 0.5, 2.0)
    assert type(config.port) is int
