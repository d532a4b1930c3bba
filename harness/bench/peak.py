"""The client of P3's memory check, a program: copies one large tensor there and back.

It says ``connected``, waits for a line, copies, says what it took above the tensor itself as one
JSON line, waits for a line, and ends. Measured alone in its process, where no neighbour's memory
counts.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from . import machine
from .peers import Stack, find_stacks

if TYPE_CHECKING:
    from collections.abc import Callable

WARM_UP_FLOATS = 16


def main() -> None:
    """Arguments: name of the stack, host and port of its server, bytes of the tensor."""
    name, host, port, size = sys.argv[1:]
    stacks, absent = find_stacks({name})
    if not stacks:
        sys.exit(f"{name}: {absent[0].reason}")
    source = np.ones(int(size) // 4, "float32")
    stack = stacks[0]
    session = stack.connect((host, int(port)))
    device = session.cpu(0)
    _warm_up(stack, device)
    _say("connected")
    sys.stdin.readline()
    _say(json.dumps({"extra": _copies(stack, device, source)}))
    sys.stdin.readline()
    stack.close(session)


def _copies(stack: Stack, device: Any, source: Any) -> int:
    """The larger of what there and back take."""
    tensor = stack.runtime.empty(source.shape, "float32", device)
    there = _extra(lambda: tensor.copyfrom(source), 0)
    return max(there, _extra(tensor.numpy, source.nbytes))


def _warm_up(stack: Stack, device: Any) -> None:
    """Everything that is loaded when first used is loaded."""
    source = np.ones(WARM_UP_FLOATS, "float32")
    tensor = stack.runtime.tensor(source, device)
    tensor.copyfrom(source)
    tensor.numpy()


def _extra(action: Callable[[], Any], own: int) -> int:
    """Peak memory during `action`, less what was there before and what it gives back."""
    gc.collect()
    machine.reset_peak(os.getpid())
    before = machine.memory(os.getpid(), "VmRSS")
    result = action()
    peak = machine.memory(os.getpid(), "VmHWM")
    del result
    return max(0, peak - before - own)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
