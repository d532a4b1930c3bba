"""README, "A board in three commands": as it is written there, here and on an emulated board."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Callable, List

import pytest

from pytest_tvmrpc import rpc
from pytest_tvmrpc.client.tracker import connect_tracker
from pytest_tvmrpc.errors import CompilerError
from pytest_tvmrpc.runtime.toolchain import find_compiler

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
CHAPTER = README.partition("## A board in three commands\n")[2].partition("\n## ")[0]
TRIPLE = "aarch64-linux-gnu.2.17"  # which only zig makes; a cross GCC is faster here


def emulator(target: str) -> List[str]:
    """The beginning of a command that runs a program for this target."""
    if target == "native":
        return []
    name = target.partition("-")[0]
    program = shutil.which(f"qemu-{name}")
    if program is None or not os.path.isdir(f"/usr/{target}/lib"):
        pytest.skip(f"needs qemu-{name} and the C library of {target}")
    return [program, "-L", f"/usr/{target}"]


@pytest.mark.parametrize("target", ["native", "aarch64-linux-gnu"])
def test_the_chapter(
    target: str, tmp_path: Path, wait_until: Callable[..., None], deadline_s: float
) -> None:
    """The server is built, registers at the tracker, and passes the test of the chapter."""
    try:
        find_compiler(target=target)
    except CompilerError as error:
        pytest.skip(str(error))
    emulated = emulator(target)
    (build, _, start), tests = commands()
    (script,) = re.findall(r"```python\n(.*?)```", CHAPTER, re.DOTALL)
    assert script.count(TRIPLE) == 1
    (tmp_path / "test_on_board.py").write_text(script.replace(TRIPLE, target))
    assert TRIPLE in build
    run([arg.replace(TRIPLE, target) for arg in build], tmp_path, 12 * deadline_s)
    with rpc.Tracker(port=0, silent=True) as tracker:
        address = f"127.0.0.1:{tracker.port}"
        words = [*emulated, *here(start[start.index("./tvmrpc-server") :], address), "--port=0"]
        with open(tmp_path / "log", "wb") as log:
            server = subprocess.Popen(words, cwd=tmp_path, stdout=log, stderr=log)
            try:
                with connect_tracker("127.0.0.1", tracker.port) as asking:
                    wait_until(lambda: asking.who().servers, "the board is at the tracker")
                run([*here(tests, address), "-pno:cacheprovider"], tmp_path, 12 * deadline_s)
            finally:
                server.terminate()
                server.wait(deadline_s)


def commands() -> tuple[List[List[str]], List[str]]:
    """The words of what is typed for the board, and of the run of the tests."""
    (block,) = re.findall(r"```sh\n(.*?)```", CHAPTER, re.DOTALL)
    build, copy, tests = block.splitlines()
    return [line.split() for line in (build, *copy.split(" && "))], tests.split()


def here(words: List[str], tracker: str) -> List[str]:
    """The same with the addresses of this machine."""
    places = {"farm.example:9190": tracker, "0.0.0.0": "127.0.0.1"}
    changed = words
    for place, own in places.items():
        changed = [word.replace(place, own) for word in changed]
    return changed


def run(words: List[str], folder: Path, limit_s: float) -> None:
    """Runs one of our commands, with the interpreter and the package of this test."""
    module = {"tvmrpc": "pytest_tvmrpc", "pytest": "pytest"}[words[0]]
    done = subprocess.run(
        [sys.executable, "-m", module, *words[1:]],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=limit_s,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
