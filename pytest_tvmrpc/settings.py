"""Every setting of the plugin as a row: its names in three sources, its help, how its text is read.

Reads no source itself, and starts nothing; see options.py.
"""

from __future__ import annotations

import math
from typing import Any, Callable, Literal, NamedTuple, Sequence

DEFAULT_KEY = "local"


class Setting(NamedTuple):
    """One setting, with its name in each source."""

    field: str  # of Options
    name: str  # rpc_queue_timeout: in the ini file; --rpc-queue-timeout on the command line
    environment: str
    metavar: str
    ini_type: Literal["string", "args", "int", "float", "bool"]
    read: Callable[[Any], Any]  # raises ValueError
    expected: str
    example: str
    teaches: str
    form: Literal["value", "list", "switch", "optional"] = "value"
    """What the command line takes: a value, several, none, or one that may be left out."""

    @property
    def flag(self) -> str:
        """The option on the command line."""
        return "--" + self.name.replace("_", "-")


def _tracker(text: str) -> tuple[str, int] | None:
    if not text.strip():
        return None  # --rpc-tracker= on the command line turns off what ini or environment say
    from .network import parse_address

    return parse_address(text.strip())


def read_keys(words: Sequence[str]) -> tuple[str, ...]:
    """Device keys, each once, in their order.

    Raises:
        ValueError: a word is no key. The first words on a data connection end a key at a blank.
            (The rule of protocol/tracker.py, which a run without remote tests shall not load.)
    """
    for key in words:
        if not isinstance(key, str) or not key or " " in key or not key.isprintable():
            raise ValueError(key)
    return tuple(dict.fromkeys(words))


def _count(value: Any) -> int:
    count = int(value)
    if count < 1:
        raise ValueError(value)
    return count


def _count_or_none(value: Any) -> int:
    return 0 if int(value) == 0 else _count(value)


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(value)
    return number


def _positive(value: Any) -> float:
    seconds = float(value)
    if not 0 < seconds < math.inf:
        raise ValueError(value)
    return seconds


def _positive_or_none(value: Any) -> float:
    return 0.0 if float(value) == 0 else _positive(value)


def _switch(value: Any) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True}
    words.update({"0": False, "false": False, "no": False, "off": False})
    try:
        return words[str(value).strip().lower()]
    except KeyError:
        raise ValueError(value) from None


def _one_of(*words: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in words:
            raise ValueError(value)
        return str(value)

    return read


def _path(value: Any) -> str:
    if not str(value).strip():
        raise ValueError(value)
    return str(value)


def _run_name(value: Any) -> str:
    if not all(part.isprintable() and part not in "/\\" for part in value):
        raise ValueError(value)
    return str(value).strip()


def _saved_name(value: Any) -> str:
    name = _run_name(value)
    if not name:
        raise ValueError(value)
    return name


def _fraction(value: Any) -> float:
    text = str(value).strip()
    part = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    if not 0 < part < math.inf:
        raise ValueError(value)
    return part


_SECONDS = "a number of seconds above 0"
_SECONDS_OR_0 = "a number of seconds, or 0 for no limit"


def _limit(what: str, default_s: float, example: str, teaches: str) -> Setting:
    return Setting(
        f"{what}_timeout_s",
        f"rpc_{what}_timeout",
        f"PYTEST_TVMRPC_{what.upper()}_TIMEOUT",
        "SECONDS",
        "float",
        _positive if default_s else _positive_or_none,
        _SECONDS if default_s else _SECONDS_OR_0,
        example,
        f"{teaches} (default: {default_s:g})",
    )


def _file(what: str, example: str, teaches: str) -> Setting:
    name, environment = f"rpc_{what}", f"PYTEST_TVMRPC_{what.upper()}"
    return Setting(
        what, name, environment, "FILE", "string", _path, "a file's path", example, teaches
    )


SETTINGS = (
    # --- where devices come from
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
        read_keys,
        "a key without blanks",
        "jetson",
        "device key to test on; give it again for more keys: see --rpc-mode "
        f"(default: {DEFAULT_KEY})",
        "list",
    ),
    Setting(
        "mode",
        "rpc_mode",
        "PYTEST_TVMRPC_MODE",
        "each|any",
        "string",
        _one_of("each", "any"),
        "'each' or 'any'",
        "any",
        "with several keys: run each remote test once for 'each' key, or once, on 'any' of them "
        "that is free first (default: each)",
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
        "server_kind",
        "rpc_server_kind",
        "PYTEST_TVMRPC_SERVER_KIND",
        "KIND",
        "string",
        _one_of("python", "native", "popen"),
        "'python', 'native' or 'popen'",
        "native",
        "what the local servers are: 'python'; 'native', the server in C, which is compiled once; "
        "or 'popen', a program in C for each session (default: python)",
    ),
    Setting(
        "priority",
        "rpc_priority",
        "PYTEST_TVMRPC_PRIORITY",
        "N",
        "float",
        _number,
        "a number",
        "5",
        "place of this run in the queue for a device: a higher one is served first (default: 1)",
    ),
    Setting(
        "session_scope",
        "rpc_session_scope",
        "PYTEST_TVMRPC_SESSION_SCOPE",
        "SCOPE",
        "string",
        _one_of("class", "module", "package", "session"),
        "'class', 'module', 'package' or 'session'",
        "session",
        "how long the fixture 'remote_session' keeps its device: class, module, package or "
        "session (default: module)",
    ),
    # --- limits
    _limit("queue", 60.0, "60", "a test waits this long for a device that is in use"),
    _limit("connect", 10.0, "10", "limit of one connection to the tracker or to a device"),
    _limit("call", 600.0, "600", "limit of one call on the device, an upload included"),
    _limit("session", 0.0, "120", "the device ends a session that lasts longer; 0 sets no limit"),
    # --- what becomes of trouble
    Setting(
        "require",
        "rpc_require",
        "PYTEST_TVMRPC_REQUIRE",
        "",
        "bool",
        _switch,
        "a switch: true or false",
        "",
        "a key that nobody serves is an error; without it, the tests of that key are skipped, and "
        "say so",
        "switch",
    ),
    Setting(
        "reruns",
        "rpc_reruns",
        "PYTEST_TVMRPC_RERUNS",
        "N",
        "int",
        _count_or_none,
        "a whole number from 0",
        "1",
        "run a test again, at most N times and on another device of the key, when its device "
        "drops out; what the test or the function on the device finds wrong is never run again "
        "(default: 0)",
    ),
    Setting(
        "infra",
        "rpc_infra",
        "PYTEST_TVMRPC_INFRA",
        "error|fail|skip",
        "string",
        _one_of("error", "fail", "skip"),
        "'error', 'fail' or 'skip'",
        "skip",
        "what a test is that could not be run, because no device came in time or it was lost in "
        "each attempt: 'error', a verdict of its own (I) that fails the run; 'fail', an ordinary "
        "failure; 'skip', the run may pass (default: error)",
    ),
    # --- what is kept and shown
    Setting(
        "artifacts",
        "rpc_artifacts",
        "PYTEST_TVMRPC_ARTIFACTS",
        "on|off|retain-on-failure",
        "string",
        _one_of("on", "off", "retain-on-failure"),
        "'on', 'off' or 'retain-on-failure'",
        "retain-on-failure",
        "keep a folder for each remote test, with what the device printed and what the test puts "
        "there (fixture 'rpc_artifacts'): for all, none, or those that failed (default: off)",
    ),
    Setting(
        "artifacts_dir",
        "rpc_artifacts_dir",
        "PYTEST_TVMRPC_ARTIFACTS_DIR",
        "DIR",
        "string",
        _path,
        "a folder's path",
        "out/rpc",
        "where those folders are (default: rpc-artifacts in the root folder of the tests)",
    ),
    Setting(
        "summary",
        "rpc_summary",
        "PYTEST_TVMRPC_SUMMARY",
        "short|full|none",
        "string",
        _one_of("short", "full", "none"),
        "'short', 'full' or 'none'",
        "full",
        "how much the section 'remote devices' at the end says (default: short)",
    ),
    Setting(
        "durations",
        "rpc_durations",
        "PYTEST_TVMRPC_DURATIONS",
        "N",
        "int",
        _count_or_none,
        "a whole number from 0",
        "10",
        "show where the time of the N slowest remote tests went: queue, connection, upload, "
        "calls, device (default: 0, none)",
    ),
    Setting(
        "progress",
        "rpc_progress",
        "PYTEST_TVMRPC_PROGRESS",
        "",
        "bool",
        _switch,
        "a switch: true or false",
        "",
        "show during the run what each device does: a live line for each on a terminal, elsewhere "
        "a plain line now and then",
        "switch",
    ),
    _file("report", "run.jsonl", "write a JSON line for each attempt of a remote test, as it ends"),
    _file("html", "farm.html", "write a page of the run: tests by devices, time lines, benchmarks"),
    _file("markdown", "farm.md", "write a summary of the run for the job page of a CI system"),
    # --- benchmarks
    Setting(
        "bench_save",
        "rpc_bench_save",
        "PYTEST_TVMRPC_BENCH_SAVE",
        "NAME",
        "string",
        _saved_name,
        "a name without slashes",
        "main",
        "keep the results of 'remote_benchmark' under this name",
    ),
    Setting(
        "bench_compare",
        "rpc_bench_compare",
        "PYTEST_TVMRPC_BENCH_COMPARE",
        "NAME",
        "string",
        _run_name,
        "the name of saved results",
        "main",
        "compare with saved results: those of this name, or the newest ones",
        "optional",
    ),
    Setting(
        "bench_fail",
        "rpc_bench_fail",
        "PYTEST_TVMRPC_BENCH_FAIL",
        "PERCENT",
        "string",
        _fraction,
        "a part above 0, such as 5% or 0.05",
        "5%",
        "fail a test whose benchmark has become slower by more than this; compares with the newest "
        "saved results unless --rpc-bench-compare says with which",
    ),
    Setting(
        "bench_dir",
        "rpc_bench_dir",
        "PYTEST_TVMRPC_BENCH_DIR",
        "DIR",
        "string",
        _path,
        "a folder's path",
        "benchmarks",
        "where saved results are (default: .rpc-benchmarks in the root folder of the tests)",
    ),
)
