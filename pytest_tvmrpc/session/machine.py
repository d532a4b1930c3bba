"""What kind of machine a session is on, in one line for people. Measures nothing."""

from __future__ import annotations

import os
import sys
from typing import Dict, List, Optional

BOARD = "/proc/device-tree/model"
"""Where Linux keeps the name of a board, on machines that are described by a device tree."""

PRODUCT = "/sys/class/dmi/id/product_name"
"""The same on machines with a firmware like that of PCs."""

PROCESSORS = "/proc/cpuinfo"

NAMELESS = (
    *("", "default string", "none", "not applicable", "not specified", "o.e.m.", "product name"),
    *("system product name", "to be filled by o.e.m.", "undefined", "unknown"),
)
"""What makers of firmware write where a product has no name."""


def model() -> str:
    """The board's name, or that of its processor, or what is known of both."""
    board = _line(BOARD)
    if board:
        return board
    cores = _cores()
    names = [core["model name"] for core in cores if core.get("model name")]
    # Arm's name of a processor, if there is one, is that of its architecture.
    processor = " ".join([*(names[:1] or [_architecture()]), *_parts(cores)])
    product = "" if names else _line(PRODUCT)
    return processor if product.lower() in NAMELESS else f"{product}, {processor}"


def _cores() -> List[Dict[str, str]]:
    """What the kernel says of each core, by its names for it."""
    found: List[Dict[str, str]] = [{}]
    for line in (_content(PROCESSORS) or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip():
            found[-1][name.strip()] = " ".join(value.split())
        else:
            found.append({})
    return found


def _parts(cores: List[Dict[str, str]]) -> List[str]:
    """The kinds of Arm cores, which have numbers and no names: ``0x41/0xd08``."""
    parts = [
        f"{core['CPU implementer']}/{core['CPU part']}"
        for core in cores
        if "CPU implementer" in core and "CPU part" in core
    ]
    return list(dict.fromkeys(parts))


def _architecture() -> str:
    return sys.platform if sys.platform == "win32" else os.uname().machine


def _line(path: str) -> str:
    """A file's text without what stands around it; empty where there is none."""
    return (_content(path) or "").strip(" \0\n")


def _content(path: str) -> Optional[str]:
    """A file of the kernel; None where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None
