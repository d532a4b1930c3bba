"""What a tracker tells others about who has a device. Proves nothing: it is a courtesy."""

from __future__ import annotations

import os
import socket

VARIABLE = "TVMRPC_USER"
"""The environment variable that replaces the name; a CI job has a better one than we can find."""


def default_user() -> str:
    """``user@host pid N``, or what the environment says instead."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return chosen
    import getpass

    try:
        name = getpass.getuser()
    except (ImportError, KeyError, OSError):  # a container's user often has a number only
        name = "somebody"
    return f"{name}@{socket.gethostname()} pid {os.getpid()}"
