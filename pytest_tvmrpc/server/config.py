"""Every setting of a server: its type and default, and the row with its option and keyword.

Checks everything, reads nothing. The parser of the program, the arguments of `launch.Server` and
the command line between the two are made of the rows.
"""

from __future__ import annotations

import math
from typing import Any, Mapping, NamedTuple, Optional, Tuple

from .. import arguments
from ..arguments import Argument
from ..errors import SettingError
from ..network import LOOPBACK
from .libraries import split


class ServerConfig(NamedTuple):
    """What a server is told when it starts.

    Attributes:
        host: the address to listen on.
        port: the first port to try, 0 to let the system choose.
        port_end: where to stop trying; that port is not tried.
        key: what kind of device this is; clients ask for it by this name.
        tracker: the tracker to offer the device to.
        custom_addr: the address that the tracker gives to clients, if not the one it sees.
        handshake_s: how long a client may take for its first words.
        goodbye_s: how long a session's process may go on after its client is gone.
        stop_s: how long it has between being asked to end and being killed.
        send_s: how long a client may refuse to take an answer.
        is_proxy: host and port are a proxy's, at which this server waits for its clients.
        libraries: shared libraries that every session has from its start.
        no_fork: every session has an interpreter of its own, instead of a fork.
        callback_fd: the file with the function to be called first: in the server, or with
            `no_fork` in each session's interpreter.
        idle_s: how long a client may ask nothing; 0 for any time.
        unused_s: how long no client may come before the server ends by itself; 0 for any time.
        output_nbytes: how much of what a session prints is passed on.
        session_program: a Popen server of ours, of which each session is a process; else empty.
    """

    host: str = LOOPBACK
    port: int = 9090
    port_end: int = 9199
    key: str = ""
    tracker: Optional[Tuple[str, int]] = None
    custom_addr: Optional[str] = None
    handshake_s: float = 5.0
    goodbye_s: float = 1.0
    stop_s: float = 0.5
    send_s: float = 60.0
    is_proxy: bool = False
    libraries: Tuple[str, ...] = ()
    no_fork: bool = False
    callback_fd: Optional[int] = None
    idle_s: float = 3600.0
    unused_s: float = 0.0
    output_nbytes: int = 1 << 20
    session_program: str = ""

    def check(self) -> None:
        """Refuses settings that cannot work.

        Raises:
            SettingError: says which, and what would do.
        """
        if self.tracker is not None and not self.key:
            raise SettingError(
                "Need key to present type of resource when tracker is available; "
                "give one, for example --key jetson"
            )
        if self.key.split() not in ([], [self.key]) or "\0" in self.key:
            raise SettingError(f"the key {self.key!r} has a blank in it; keys are single words")
        if self.tracker is not None or self.is_proxy:
            from ..protocol.tracker import check_key  # here: other servers go without it

            if self.key:
                check_key(self.key)  # which a proxy's tracker would refuse, far from here
        if not 0 <= self.port < 65536:
            raise SettingError(f"port {self.port} is none; give 1 to 65535, or 0 for any free port")
        if self.is_proxy and not (self.key and self.port):
            raise SettingError(
                "a server that waits at a proxy needs the proxy's port and a key of its own; "
                "give them, for example --port 9091 --key jetson"
            )
        for name, limit_s in (("idle timeout", self.idle_s), ("timeout", self.unused_s)):
            if not 0 <= limit_s < math.inf:
                raise SettingError(f"the {name} {limit_s} is no time in seconds; 0 is for no limit")


_DEFAULTS = ServerConfig._field_defaults

ARGUMENTS = (
    *arguments.listening(_DEFAULTS["port"]),
    arguments.tracker_to("the tracker to offer the device to"),
    Argument("key", "what kind of device this is, e.g. jetson", _DEFAULTS["key"]),
    Argument(
        "custom_addr",
        "the address that the tracker gives to clients, if not the one it sees",
        metavar="HOST",
    ),
    Argument(
        "is_proxy",
        "--host and --port are a proxy's: wait there for clients, and listen on nothing; "
        "the tracker is the proxy's business then",
        default=_DEFAULTS["is_proxy"],
        option="--through-proxy",
    ),
    Argument(
        "load_library",
        "shared libraries that every session has from its start; with colons between them",
        metavar="PATHS",
        field="libraries",
        setting=split,
        expected="paths, as a list or as one str with colons between them",
        text=":".join,
    ),
    Argument(
        "no_fork",
        "a new interpreter for each session, for libraries that do not work in a fork",
        default=_DEFAULTS["no_fork"],
    ),
    Argument(
        "idle_timeout",
        "how long a client may ask nothing until its session is ended; 0: for ever "
        "(default: %(default)g)",
        _DEFAULTS["idle_s"],
        float,
        "SECONDS",
        field="idle_s",
    ),
    Argument(
        "timeout",
        "end by itself when no client has come for so long (default: never)",
        _DEFAULTS["unused_s"],
        float,
        "SECONDS",
        field="unused_s",
        is_optional=True,
    ),
    Argument(
        "session_program",
        "a program that serves each session over two descriptors, as build-server --kind=popen "
        "makes it, instead of this server",
        default=_DEFAULTS["session_program"],
        metavar="PATH",
    ),
    Argument("callback_fd", None, kind=int),
)
"""What a server can be told from outside; the other settings have no option."""


def configure(given: Mapping[str, Any]) -> ServerConfig:
    """The settings, of what was given by keyword: in Python, or on the command line.

    Raises:
        SettingError: they cannot work.
    """
    found = arguments.settings(ARGUMENTS, given)
    config = ServerConfig(
        **{name: value for name, value in found.items() if name in ServerConfig._fields}
    )
    config.check()
    return config
