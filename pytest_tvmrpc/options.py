"""Options: ini, environment and command line, read once into a frozen value. Starts nothing.

The environment counts more than the ini file, the command line more than both. The settings
themselves are the rows of settings.py.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import Any, Mapping

import pytest

from .settings import DEFAULT_KEY, SETTINGS, Setting

DEFAULT_TRACKER_PORT = 9190  # the port that TVM's tracker takes first
WORKER_INPUT = "tvmrpc"  # our place in the workerinput of pytest-xdist

ARTIFACTS_DIR = "rpc-artifacts"
BENCH_DIR = ".rpc-benchmarks"
PATHS = ("artifacts_dir", "report", "html", "markdown", "bench_dir")


@dataclass(frozen=True)
class Options:
    """What a run was asked to do; each field is the setting of the same name.

    Attributes:
        tracker: host and port of a tracker that is there already; None starts one for the run.
        keys: device keys, in the order in which tests are parametrised over them.
        servers: local servers for each key; only used without `tracker`.
        server_kind: what they are: ``python``, ``native`` or ``popen``.
        session_timeout_s: limit that the server sets to a session; 0 sets none.
        queue_timeout_s: longest wait for a device that others use.
        connect_timeout_s: longest wait for a connection to a tracker or a device.
        call_timeout_s: longest wait for the answer to one call.
        artifacts_dir, report, html, markdown, bench_dir: absolute paths; empty for none. In the
            ini file they are relative to the root folder of the tests.
        bench_compare: the name to compare with; empty for the newest, None for no comparison.
        bench_fail: the part by which a benchmark may become slower; None for any.
        given: the fields that were set by some source.
    """

    tracker: tuple[str, int] | None = None
    keys: tuple[str, ...] = (DEFAULT_KEY,)
    servers: int = 1
    session_timeout_s: float = 0.0
    queue_timeout_s: float = 60.0
    connect_timeout_s: float = 10.0
    call_timeout_s: float = 600.0
    mode: str = "each"
    server_kind: str = "python"
    priority: float = 1.0
    session_scope: str = "module"
    require: bool = False
    reruns: int = 0
    infra: str = "error"
    artifacts: str = "off"
    artifacts_dir: str = ""
    summary: str = "short"
    durations: int = 0
    progress: bool = False
    report: str = ""
    html: str = ""
    markdown: str = ""
    bench_save: str = ""
    bench_compare: str | None = None
    bench_fail: float | None = None
    bench_dir: str = ""
    given: frozenset[str] = frozenset()

    def to_json(self) -> dict[str, Any]:
        """The same as plain values, for a worker process."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**values, "given": sorted(self.given)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Options:
        """What `to_json` gave, after its way to another process."""
        tracker = values["tracker"]
        changed = {
            "tracker": tuple(tracker) if tracker else None,
            "keys": tuple(values["keys"]),
            "given": frozenset(values["given"]),
        }
        return cls(**{**values, **changed})


_options_key = pytest.StashKey[Options]()


def add_options(parser: pytest.Parser) -> None:
    """Declare every setting to pytest, on the command line and in the ini file."""
    group = parser.getgroup("tvmrpc", "remote devices over TVM RPC (tvmrpc)")
    typed = pytest.version_tuple >= (8, 4)  # before, ini values were text, and read here
    for setting in SETTINGS:
        environment = setting.environment
        if setting.field == "tracker":
            environment += " and TVM_TRACKER_PORT"
        teaches = setting.teaches.replace("%", "%%")
        text = f"{teaches}; also: ini {setting.name}, environment {environment}"
        if setting.form == "switch":
            group.addoption(
                setting.flag, action="store_true", dest=setting.name, default=None, help=text
            )
        elif setting.form == "optional":
            group.addoption(
                setting.flag,
                nargs="?",
                const="",
                dest=setting.name,
                default=None,
                metavar=setting.metavar,
                help=text,
            )
        else:
            group.addoption(
                setting.flag,
                action="append" if setting.form == "list" else "store",
                dest=setting.name,
                default=None,
                metavar=setting.metavar,
                help=text,
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


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is a worker of pytest-xdist."""
    return hasattr(config, "workerinput")


def _read(config: pytest.Config) -> Options:
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        source, value = _find(config, setting)
        if value is None:
            continue
        try:
            values[setting.field] = setting.read(value)
            if setting.field in PATHS:
                values[setting.field] = _absolute(config, source, values[setting.field])
        except (ValueError, TypeError):
            shown = " ".join(value) if isinstance(value, (list, tuple)) else value
            raise pytest.UsageError(_advice(setting, f"{source}: {str(shown)!r}")) from None
    given = frozenset(values)
    values.setdefault("artifacts_dir", str(config.rootpath / ARTIFACTS_DIR))
    values.setdefault("bench_dir", str(config.rootpath / BENCH_DIR))
    if "bench_fail" in values:
        values.setdefault("bench_compare", "")
    return Options(**values, given=given)


def _absolute(config: pytest.Config, source: str, path: str) -> str:
    """A path from where it was written: in the ini file, or where pytest was called."""
    start = config.rootpath if source.startswith("ini ") else config.invocation_params.dir
    return str(start / os.path.expanduser(path))


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
    example = f"{setting.flag}={setting.example}" if setting.example else setting.flag
    return f"{fact} cannot be used; expected {setting.expected}, for example {example}"
