"""LocalSession: an RPCSession in this very process, to try what will run on a device."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from typing import Any, cast

from ..session import local
from ..session.direct import DirectEndpoint
from ..session.environment import Environment
from .session import RPCSession


class LocalSession(RPCSession):
    """A session without a server: files, modules, functions and devices of this process.

    Its directory is a temporary one and goes with the session. A function that crashes takes this
    process with it; a server's session would have kept that to itself.
    """

    def __init__(self) -> None:
        directory = tempfile.mkdtemp(prefix="tvmrpc-local-")
        self._remove = weakref.finalize(self, shutil.rmtree, directory, ignore_errors=True)
        endpoint = DirectEndpoint(local.LocalSession(Environment(directory)))
        super().__init__(cast("Any", endpoint), ("this process", 0))

    def close(self) -> None:
        """Ends the session and removes its directory. May be called twice."""
        super().close()
        self._remove()
