"""docs/compatibility.md against the real ``tvm.rpc``: names, parameters, defaults and methods."""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from .compatibility import PAGE, methods, parameters, signature, tables

pytest.importorskip("tornado", reason="TVM's tracker and proxy need it")

PAGES = tables(PAGE.read_text(encoding="utf-8"))
PARAMETERS = parameters(PAGES)
METHODS = methods(PAGES)

HOMES = {"Tracker": "tvm.rpc.tracker", "Proxy": "tvm.rpc.proxy"}
"""Where TVM keeps what is not in ``tvm.rpc`` itself."""

MODULES = {"base", "client", "minrpc", "proxy", "server", "server_ios_launcher", "testing"}
MODULES |= {"tornado_util", "tracker"}
"""Those of ``tvm.rpc``, which may or may not have been imported."""


def of_tvm(name: str) -> Any:
    """What TVM has under the name of a table."""
    first, _, rest = name.partition(".")
    found = getattr(importlib.import_module(HOMES.get(first, "tvm.rpc")), first)
    return getattr(found, rest) if rest else found


def taken(function: Any) -> dict[str, Any]:
    """The parameters of something with their defaults."""
    found = inspect.signature(function).parameters
    return {name: found[name].default for name in found if name != "self"}


def test_every_name_is_listed() -> None:
    """What ``tvm.rpc`` has, and the errors it raises, has a row."""
    import tvm.rpc

    names, files = [table.rows for table in PAGES if table.section == "Names"]
    listed = {row.name for row in names}
    public = {name for name in dir(tvm.rpc) if not name.startswith("_")} - MODULES
    assert {f"tvm.rpc.{name}" for name in public} <= listed
    folder = Path(tvm.rpc.__path__[0])
    there = {f"tvm.rpc.{path.stem}" for path in folder.glob("[!_]*.py")}
    assert {name.strip("`") for row in files for name in row.cells[0].split(", ")} == there
    for row in files:
        for name in re.findall(r"`(\w+)`", row.cells[1]):
            assert hasattr(importlib.import_module(row.name), name), name
    for name in listed:
        home, _, last = name.rpartition(".")
        assert hasattr(importlib.import_module(home), last), name


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name: str) -> None:
    """TVM has these, in this order and with these defaults; and no others."""
    expected = {
        argument.name: argument.tvm_default for argument in PARAMETERS[name] if not argument.is_ours
    }
    actual = taken(of_tvm(name))
    assert actual == expected
    assert list(actual) == list(expected)


@pytest.mark.parametrize("name", METHODS)
def test_methods(name: str) -> None:
    """TVM has these, with these parameters; and no others."""
    owner = of_tvm(name)
    forms = [row.of_tvm or row.name for row in METHODS[name] if not row.is_ours]
    expected = {form.partition("(")[0]: signature(form) for form in forms if "(" in form}
    large = {other.rpartition(".")[2] for other in PARAMETERS if other.startswith(f"{name}.")}
    actual = {
        member: taken(getattr(owner, member))
        for member in dir(owner)
        if not member.startswith("_") and member not in large
    }
    assert actual == expected


def test_numbers() -> None:
    """``tvm.rpc.base`` has these names, and these values."""
    from tvm.rpc import base

    (table,) = [table for table in PAGES if table.section == "tvm.rpc.base"]
    named = {name.strip("`") for row in table.rows for name in row.cells[0].split(", ")}
    for row in table.rows:
        if row.cells[1].startswith("`"):
            assert getattr(base, row.name) == int(row.cells[1].strip("`"), 0)
    own = {
        name
        for name, value in vars(base).items()
        if not name.startswith("_") and not inspect.ismodule(value) and name != "logger"
    }
    assert own == named


def run(module: str) -> None:
    """A program with the options in ``sys.argv``."""
    if module.startswith("pytest_tvmrpc."):  # which pytest rewrites, and runpy cannot run
        importlib.import_module(module).main()
    else:
        sys.modules.pop(module, None)
        runpy.run_module(module, run_name="__main__")


@pytest.mark.parametrize("name", ["rpc_tracker", "rpc_server", "rpc_proxy", "query_rpc_tracker"])
def test_programs(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """TVM's programs have the options of the table, and no others; the ports are ours, too."""
    (table,) = [table for table in PAGES if table.section == "Programs"]
    (row,) = [row for row in table.rows if row.name == name]
    add_argument = argparse.ArgumentParser.add_argument
    defaults: dict[str, dict[str, Any]] = {}
    for package in ("tvm", "pytest_tvmrpc"):
        options = defaults[package] = {}

        def record(
            self: Any, *names: str, seen: dict[str, Any] = options, **settings: Any
        ) -> argparse.Action:
            seen.update({option: settings.get("default") for option in names if len(option) > 2})
            return add_argument(self, *names, **settings)

        monkeypatch.setattr(argparse.ArgumentParser, "add_argument", record)
        monkeypatch.setattr("sys.argv", [name, "--help"])
        with pytest.raises(SystemExit):
            run(f"{package}.exec.{name}")
    capsys.readouterr()
    assert {f"`{option}`" for option in set(defaults["tvm"]) - {"--help"}} == set(
        row.cells[1].split(", ")
    )
    for option in ("--port", "--port-end"):
        assert defaults["tvm"].get(option) == defaults["pytest_tvmrpc"].get(option)
