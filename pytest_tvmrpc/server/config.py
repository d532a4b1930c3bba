"""ServerConfig: every setting of a server, with its default. Reads nothing, checks everything."""

from __future__ import annotations

import math
from typing import NamedTuple, Optional, Tuple

from ..network import LOOPBACK


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
        callback_fd: the file with the function to be called first in each of these.
        idle_s: how long a client may ask nothing; 0 for any time.
        unused_s: how long no client may come before the server ends by itself; 0 for any time.
        output_nbytes: how much of what a session prints is passed on.
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

    def check(self) -> None:
        """Refuses settings that cannot work.

        Raises:
            ValueError: says which, and what would do.
        """
        if self.tracker is not None and not self.key:
            raise ValueError(
                "Need key to present type of resource when tracker is available; "
                "give one, for example --key jetson"
            )
        if self.key.split() not in ([], [self.key]) or "\0" in self.key:
            raise ValueError(f"the key {self.key!r} has a blank in it; keys are single words")
        if self.tracker is not None or self.is_proxy:
            from ..protocol.tracker import check_key  # here: other servers go without it

            if self.key:
                check_key(self.key)  # which a proxy's tracker would refuse, far from here
        if not 0 <= self.port < 65536:
            raise ValueError(f"port {self.port} is none; give 1 to 65535, or 0 for any free port")
        if self.is_proxy and not (self.key and self.port):
            raise ValueError(
                "a server that waits at a proxy needs the proxy's port and a key of its own; "
                "give them, for example --port 9091 --key jetson"
            )
        for name, limit_s in (("idle timeout", self.idle_s), ("timeout", self.unused_s)):
            if not 0 <= limit_s < math.inf:
                raise ValueError(f"the {name} {limit_s} is no time in seconds; 0 is for no limit")
