"""The names of tvm.runtime: its files are there without an import of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pytest_tvmrpc import runtime

FOLDER = str(Path(__file__).parents[1])


def test_files_are_there_without_an_import() -> None:
    """As in TVM; in a fresh interpreter, as somebody else may have imported them here."""
    script = (
        f"import sys; sys.path.insert(0, {FOLDER!r})\n"
        "from pytest_tvmrpc import runtime\n"
        "print(runtime.toolchain.include_dir())\n"
        "print(runtime.params.save_param_dict is runtime.save_param_dict)\n"
        "print(runtime.module.load_module is runtime.load_module)\n"
        "print(runtime.object.Object is runtime.Object, callable(runtime.tensor))\n"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", script], capture_output=True, text=True, check=True
    )
    folder, *others = done.stdout.split()
    assert (Path(folder) / "kernel.h").is_file()
    assert others == ["True"] * 4


@pytest.mark.parametrize("name", ["no_such_name", "include", "a.b", "", "_struct", "__path_hook__"])
def test_a_name_that_is_not(name: str) -> None:
    """Is an AttributeError, as of any module; a folder without code is none."""
    with pytest.raises(AttributeError, match=f"no attribute '{name}'"):
        getattr(runtime, name)
