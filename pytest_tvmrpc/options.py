"""Options: ini, environment and command line, read once into a frozen value. Starts nothing.

Each setting has one row in `SETTINGS`: its help, its names in the three sources, and how its text
is read. The environment counts more than the ini file, the command line more than both.
"""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from typing import Any, Callable, Literal, Mapping, NamedTuple, Sequence

import pytest

DEFAULT_KEY = "local"
DEFAULT_TRACKER_PORT = 9190  # the port that TVM's tracker takes first
WORKER_INPUT = "tvmrpc"  # our place in the workerinput of pytest-xdist


@dataclass(frozen=True)
class Options:
    """What a run was asked to do.

    Attributes:
        tracker: host and port of a tracker that is there already; None starts one for the run.
        keys: device keys, in the order in which tests are parametrised over them.
        servers: local servers for each key; only used without `tracker`.
        session_timeout_s: limit that the server sets to a session; 0 sets none.
        queue_timeout_s: longest wait for a device that others use.
        connect_timeout_s: longest wait for a connection to a tracker or a device.
        call_timeout_s: longest wait for the answer to one call.
    """

    tracker: tuple[str, int] | None = None
    keys: tuple[str, ...] = (DEFAULT_KEY,)
    servers: int = 1
    session_timeout_s: float = 0.0
    queue_timeout_s: float = 60.0
    connect_timeout_s: float = 10.0
    call_timeout_s: float = 600.0

    def to_json(self) -> dict[str, Any]:
        """The same as plain values, for a worker process."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Options:
        """What `to_json` gave, after its way to another process."""
        tracker = values["tracker"]
        return cls(
            **{
                **values,
                "tracker": tuple(tracker) if tracker else None,
                "keys": tuple(values["keys"]),
            }
        )


class Setting(NamedTuple):
    """One setting, with its name in each source."""

    field: str  # of Options
    name: str  # rpc_queue_timeout: in the ini file; --rpc-queue-timeout on the command line
    environment: str
    metavar: str
    ini_type: Literal["string", "args", "int", "float"]
    read: Callable[[Any], Any]  # raises ValueError
    expected: str
    example: str
    teaches: str

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


def _tracker(text: str) -> tuple[str, int] | None:
    if not text.strip():
        return None  # --rpc-tracker= on the command line turns off what ini or environment say
    from .network import parse_address

    return parse_address(text.strip())


def _keys(words: Sequence[str]) -> tuple[str, ...]:
    for key in words:
        # The first words on a data connection end a key at a blank. (The rule of
        # protocol/tracker.py, which a run without remote tests shall not have to load.)
        if not key or " " in key or not key.isprintable():
            raise ValueError(key)
    return tuple(dict.fromkeys(words))


def _count(value: Any) -> int:
    count = int(value)
    if count < 1:
        raise ValueError(value)
    return count


def _positive(value: Any) -> float:
    seconds = float(value)
    if not 0 < seconds < math.inf:
        raise ValueError(value)
    return seconds


def _positive_or_none(value: Any) -> float:
    return 0.0 if float(value) == 0 else _positive(value)


SETTINGS = (
    Setting(
        "tracker",
        "rpc_tracker",
        "TVM_TRACKER_HOST",
        "HOST:PORT",
        "string",
        _tracker,
        "an address HOST:PORT",
        "127.0.0.1:9190",
        "take devices from this tracker. Without it, a tracker and local servers are started for "
        "the run, when the first test asks for a device, and stopped at its end",
    ),
    Setting(
        "keys",
        "rpc_key",
        "TVM_TRACKER_KEY",
        "KEY",
        "args",
        _keys,
        "a key without blanks",
        "jetson",
        "device key to test on; give it again for more keys: tests that use the fixture 'remote' "
        f"then run once for each key, in this order (default: {DEFAULT_KEY})",
    ),
    Setting(
        "servers",
        "rpc_servers",
        "PYTEST_TVMRPC_SERVERS",
        "N",
        "int",
        _count,
        "a whole number from 1",
        "2",
        "local servers to start for each key; with a tracker of your own it has no meaning "
        "(default: 1)",
    ),
    Setting(
        "session_timeout_s",
        "rpc_session_timeout",
        "PYTEST_TVMRPC_SESSION_TIMEOUT",
        "SECONDS",
        "float",
        _positive_or_none,
        "a number of seconds, or 0 for no limit",
        "120",
        "the device ends a session that lasts longer; 0 sets no limit (default: 0)",
    ),
    Setting(
        "queue_timeout_s",
        "rpc_queue_timeout",
        "PYTEST_TVMRPC_QUEUE_TIMEOUT",
        "SECONDS",
        "float",
        _positive,
        "a number of seconds above 0",
        "60",
        "a test waits this long for a device that is in use, then it is an error (default: 60)",
    ),
    Setting(
        "connect_timeout_s",
        "rpc_connect_timeout",
        "PYTEST_TVMRPC_CONNECT_TIMEOUT",
        "SECONDS",
        "float",
        _positive,
        "a number of seconds above 0",
        "10",
        "limit of one connection to the tracker or to a device (default: 10)",
    ),
    Setting(
        "call_timeout_s",
        "rpc_call_timeout",
        "PYTEST_TVMRPC_CALL_TIMEOUT",
        "SECONDS",
        "float",
        _positive,
        "a number of seconds above 0",
        "600",
        "limit of one call on the device, an upload included (default: 600)",
    ),
)

_options_key = pytest.StashKey[Options]()


def add_options(parser: pytest.Parser) -> None:
    """Declare every setting to pytest, on the command line and in the ini file."""
    group = parser.getgroup("tvmrpc", "remote devices over TVM RPC (tvmrpc)")
    typed = pytest.version_tuple >= (8, 4)  # before, ini values were text, and read here
    for setting in SETTINGS:
        environment = setting.environment
        if setting.field == "tracker":
            environment += " and TVM_TRACKER_PORT"
        group.addoption(
            setting.flag,
            action="append" if setting.field == "keys" else "store",
            dest=setting.name,
            default=None,
            metavar=setting.metavar,
            help=f"{setting.teaches}; also: ini {setting.name}, environment {environment}",
        )
        ini_type = setting.ini_type if typed or setting.ini_type == "args" else "string"
        parser.addini(
            setting.name, f"{setting.teaches}; same as {setting.flag}", ini_type, default=None
        )


def options_of(config: pytest.Config) -> Options:
    """The options of this run, read when first asked for.

    Works as soon as the command line is parsed. In a worker of pytest-xdist, they are what the
    controller says, so that all workers collect the same tests.

    Raises:
        pytest.UsageError: a value cannot be used; the message says what to write.
    """
    options = config.stash.get(_options_key, None)
    if options is None:
        given = getattr(config, "workerinput", {}).get(WORKER_INPUT)
        options = Options.from_json(given["options"]) if given else _read(config)
        config.stash[_options_key] = options
    return options


def _read(config: pytest.Config) -> Options:
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        source, value = _find(config, setting)
        if value is None:
            continue
        try:
            values[setting.field] = setting.read(value)
        except (ValueError, TypeError):
            shown = " ".join(value) if isinstance(value, (list, tuple)) else value
            raise pytest.UsageError(_advice(setting, f"{source}: {str(shown)!r}")) from None
    return Options(**values)


def _find(config: pytest.Config, setting: Setting) -> tuple[str, Any]:
    """The strongest source that has the setting, and what it says."""
    given = config.getoption(setting.name, None)
    if given is not None:
        return setting.flag, given
    text = _environment(setting)
    if text is not None:
        return f"environment {setting.environment}", text
    try:
        stored = config.getini(setting.name)
    except (pytest.UsageError, TypeError, ValueError) as error:
        raise pytest.UsageError(_advice(setting, f"ini {setting.name}: {error}")) from None
    return f"ini {setting.name}", None if stored in ("", []) else stored


def _environment(setting: Setting) -> Any:
    text = os.environ.get(setting.environment, "").strip()
    if setting.field == "tracker":
        port = os.environ.get("TVM_TRACKER_PORT", "").strip()
        if port and not text:
            raise pytest.UsageError(
                f"TVM_TRACKER_PORT is {port!r}, but TVM_TRACKER_HOST is not set; set both to use "
                "a tracker, or none to have one started for the run"
            )
        if text:
            host = f"[{text}]" if ":" in text and not text.startswith("[") else text
            return f"{host}:{port or DEFAULT_TRACKER_PORT}"
    if setting.field == "keys" and text:
        return [key.strip() for key in text.split(",")]
    return text or None


def _advice(setting: Setting, fact: str) -> str:
    return (
        f"{fact} cannot be used; expected {setting.expected}, "
        f"for example {setting.flag}={setting.example}"
    )
