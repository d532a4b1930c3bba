"""What kind of machine a session is on, in one line for people. Measures nothing."""

from __future__ import annotations

import os
import sys
from typing import Optional

BOARD = "/proc/device-tree/model"
"""Where Linux keeps the name of a board, on machines that are described by a device tree."""

PROCESSORS = "/proc/cpuinfo"


def model() -> str:
    """The board's name, or that of its processor, or of its architecture."""
    board = _content(BOARD)
    if board is not None:
        return board.strip(" \0\n")
    for line in (_content(PROCESSORS) or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return " ".join(value.split())
    return os.uname().machine if hasattr(os, "uname") else sys.platform


def _content(path: str) -> Optional[str]:
    """A file of the kernel; None where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None
