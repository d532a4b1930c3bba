"""The layers and vows of docs/architecture.md, file by file. Nothing is said about behaviour.

The tables below are the rules; every module that is there is found and held against them. Only the
standard library's `ast` is used, so no module has to be importable for the rules to be checked.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Iterator, NamedTuple

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "pytest_tvmrpc"

LAYERS = [
    {"errors", "data_type", "owners", "processes", "__init__"},
    {"dlpack"},
    {"protocol", "runtime", "network"},
    {"session", "accepting", "arguments", "background"},
    {"client", "server", "tracker", "proxy", "native"},
    {"rpc"},
    {"settings", "records", "wording"},
    {"options", "hooks"},
    {"benchmarking"},
    {"running", "reporting"},
    {"fixtures", "desk", "exec"},
    {"plugin", "__main__"},
]
"""From the bottom up. A unit imports from the lines before its own, and from itself."""

HEIGHT = {unit: height for height, units in enumerate(LAYERS) for unit in units}

PYTEST_SIDE = {
    *("settings", "records", "wording", "options", "hooks", "benchmarking", "running"),
    *("reporting", "fixtures", "desk", "plugin"),
}
"""May import pytest; may import the stack, and numpy, inside functions only."""

STACK = set().union(*LAYERS[2:6])

ON_A_BOARD = {
    *("__init__", "errors", "owners", "processes", "data_type", "dlpack", "network", "arguments"),
    *("background", "protocol", "runtime", "session", "server"),
}
"""Runs on a bare Python 3.8; so do the programs in exec/."""

HEAVY = {"asyncio", "numpy", "cloudpickle", "multiprocessing", "concurrent"}

FORBIDDEN = {
    "protocol": {
        *("socket", "select", "selectors", "asyncio", "threading", "time", "logging", "os"),
        *("subprocess", "multiprocessing", "concurrent", "numpy"),
    },
    "runtime": {"socket", "selectors", "asyncio", "logging", "multiprocessing"},
    "network": HEAVY | {"threading"},
    "session": {"asyncio", "multiprocessing", "concurrent", "subprocess"},
    "arguments": HEAVY | {"threading"},
    "background": HEAVY | {"threading"},
    "client": {"asyncio", "multiprocessing", "concurrent", "threading"},
    "server": HEAVY | {"threading"},
}
"""What a unit imports nowhere, not even inside a function."""

PURE = {
    *("tracker/scheduler.py", "proxy/matchmaker.py"),
    *("proxy/registration.py", "server/registration.py"),
    "running/distribution.py",
}
"""Deciders: they are told what happened, and when; they look at nothing themselves."""

IMPURE = FORBIDDEN["protocol"] - {"numpy"}

BANNED_NAMES = {
    *("utils", "util", "helpers", "helper", "common", "misc"),
    *("base", "manager", "handler", "data", "info"),
}

NAMES_OF_TVM = {"rpc/base.py"}
"""Files whose names are those of TVM's, so that an import of TVM's is one of ours."""


class Import(NamedTuple):
    """One imported module, and where the statement stands."""

    module: str
    line: int
    at_top: bool
    for_types: bool


def unit_of(path: Path) -> str:
    """The folder or file directly below the package."""
    first = path.relative_to(PACKAGE).parts[0]
    return first[: -len(".py")] if first.endswith(".py") else first


def imports_of(path: Path) -> Iterator[Import]:
    """Every import of a file, absolute, wherever it stands."""
    package = ("pytest_tvmrpc", *path.relative_to(PACKAGE).parent.parts)
    pending = [(node, True, False) for node in ast.parse(path.read_text(encoding="utf-8")).body]
    while pending:
        node, at_top, for_types = pending.pop()
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for module in named_by(node, package):
                yield Import(module, node.lineno, at_top, for_types)
        at_top = at_top and not isinstance(
            node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
        )
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            pending += [(child, at_top, True) for child in node.body]
            pending += [(child, at_top, for_types) for child in node.orelse]
        else:
            pending += [(child, at_top, for_types) for child in ast.iter_child_nodes(node)]


def named_by(node: ast.Import | ast.ImportFrom, package: tuple[str, ...]) -> list[str]:
    """The modules that a statement names; of ``from a import b``, also ``a.b``: it may be one."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    start = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
    origin = ".".join(filter(None, [start, node.module]))
    if origin.split(".")[0] != "pytest_tvmrpc":
        return [origin]
    return [f"{origin}.{alias.name}" for alias in node.names]


def own_unit(module: str) -> str | None:
    """The unit of ours that an imported name belongs to; None if it is not ours."""
    first, _, rest = module.partition(".")
    if first != "pytest_tvmrpc":
        return None
    unit = rest.partition(".")[0]
    return unit if unit in HEIGHT else "__init__"  # a name of the package itself, e.g. __version__


def top(module: str) -> str:
    return module.partition(".")[0]


def complaint(path: Path, found: Import, rule: str) -> str:
    where = f"{path.relative_to(PACKAGE).as_posix()}:{found.line}"
    return f"{where} imports {found.module}: {rule}"


MODULES = sorted(PACKAGE.rglob("*.py"))


def each(units: set[str]) -> pytest.MarkDecorator:
    """The test runs once for each module of these units."""
    paths = [path for path in MODULES if unit_of(path) in units]
    names = [path.relative_to(PACKAGE).as_posix() for path in paths]
    return pytest.mark.parametrize("path", paths, ids=names)


EVERYWHERE = {unit_of(path) for path in MODULES}


@each(EVERYWHERE)
def test_every_unit_has_a_layer(path):
    """A file or folder that no layer names is found before anything can depend on it."""
    assert unit_of(path) in HEIGHT, f"give {unit_of(path)} a place in LAYERS and in the docs"


@each(EVERYWHERE)
def test_imports_go_down(path):
    """A unit imports from lower layers and from itself, never from its own layer or from above."""
    unit = unit_of(path)
    wrong = [
        complaint(path, found, f"{unit} may import from the layers below it only")
        for found in imports_of(path)
        for other in [own_unit(found.module)]
        if other is not None and other != unit and HEIGHT[other] >= HEIGHT[unit]
        if not (
            unit == "__init__" or other == "__init__"
        )  # it holds the version; its names are lazy
    ]
    assert not wrong, "\n".join(wrong)


@each(EVERYWHERE)
def test_vows(path):
    """A folder does without the modules that its vow names."""
    relative = path.relative_to(PACKAGE).as_posix()
    forbidden = IMPURE if relative in PURE else FORBIDDEN.get(unit_of(path), set())
    if relative == "server/process.py":
        forbidden = forbidden - {"threading"}  # after the fork: only the parent has one thread
    if relative == "session/program.py":
        forbidden = forbidden - {"subprocess"}  # the session is with a program that it starts
    if relative == "server/callback.py":
        forbidden = forbidden - {"cloudpickle"}  # where a server is started, which is no board
    wrong = [
        complaint(path, found, "against the vow of its folder")
        for found in imports_of(path)
        if top(found.module) in forbidden and not found.for_types
    ]
    assert not wrong, "\n".join(wrong)


@each(EVERYWHERE)
def test_third_party_modules(path):
    """Below the plugin nothing but Python is imported with a module; there, nothing but pytest."""
    allowed = {*sys.stdlib_module_names, "pytest_tvmrpc"}
    if unit_of(path) in PYTEST_SIDE:
        allowed |= {"pytest", "_pytest", "pluggy"}
    if path.relative_to(PACKAGE).as_posix() == "running/scheduling.py":
        allowed |= {"xdist"}  # which calls for it
    wrong = [
        complaint(path, found, "not Python's own; import it where it is needed")
        for found in imports_of(path)
        if found.at_top and not found.for_types and top(found.module) not in allowed
    ]
    assert not wrong, "\n".join(wrong)


@each(PYTEST_SIDE)
def test_the_plugin_is_inert(path):
    """What pytest loads at its start does not load the stack: runs without devices cost nothing."""
    wrong = [
        complaint(path, found, "the stack is imported where a test asks for it")
        for found in imports_of(path)
        if found.at_top and not found.for_types and own_unit(found.module) in STACK
    ]
    assert not wrong, "\n".join(wrong)


@each(EVERYWHERE)
def test_manners(path):
    """No module, class or function has a name that says nothing; only programs use stdout."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    defined = {node.name.lower() for node in tree.body if isinstance(node, kinds)}
    relative = path.relative_to(PACKAGE)
    parts = () if relative.as_posix() in NAMES_OF_TVM else relative.with_suffix("").parts
    assert not BANNED_NAMES & {*defined, *parts}
    if unit_of(path) not in ("exec", "__main__"):
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        printed = [
            call.lineno
            for call in calls
            if ast.unparse(call.func) == "print" and "file" not in {k.arg for k in call.keywords}
        ]
        assert not printed, f"print() in lines {printed} of {path.name}"
        dates = dates_in(tree)
        clocks = [
            call.lineno
            for call in calls
            if ast.unparse(call) == "time.time()" and call not in dates
        ]
        assert not clocks, f"time.time() in lines {clocks} of {path.name}: durations need monotonic"


def dates_in(tree: ast.AST) -> list[ast.expr]:
    """The values that get a name for a time of day: ``started_at``, or the key ``"at"``."""
    named = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                pairs = [(target, node.value)]
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    pairs = list(zip(target.elts, node.value.elts))
                named += [(ast.unparse(one), value) for one, value in pairs]
        elif isinstance(node, ast.keyword):
            named.append((node.arg or "", node.value))
        elif isinstance(node, ast.Dict):
            keys = [key.value if isinstance(key, ast.Constant) else "" for key in node.keys]
            named += zip(keys, node.values)
    return [value for name, value in named if f"_{name}".endswith("_at")]


@each(EVERYWHERE)
def test_a_name_that_is_not_there_is_found_by_a_type_checker(path):
    """A module's ``__getattr__`` is hidden from it: to it, every name would be there."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    assert not [node for node in body if getattr(node, "name", "") == "__getattr__"]


@each({"rpc"})
def test_the_names_of_tvm_are_re_exports(path):
    """Nothing is defined where only names are to be found."""
    kinds = (ast.ClassDef, ast.AsyncFunctionDef, ast.FunctionDef)
    defined = [
        node.name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, kinds) and node.name not in ("__getattr__", "__dir__")
    ]
    assert not defined


@each(EVERYWHERE - {"server", "background"})
def test_no_forks(path):
    """Only the server, and what starts programs, make processes without the standard library."""
    names = {"os.fork", "os.posix_spawn", "os.forkpty"}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not names & {ast.unparse(node) for node in ast.walk(tree) if type(node) is ast.Attribute}


@each(EVERYWHERE)
def test_documented(path):
    """Every module begins with a sentence that says what it is."""
    text = path.read_text(encoding="utf-8")
    assert not text.strip() or ast.get_docstring(ast.parse(text)), f"{path.name} has no docstring"


@each(ON_A_BOARD | {"exec", "__main__"})
def test_syntax_of_a_board(path):
    """What a board needs parses as Python 3.8."""
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))


def test_the_map_is_true():
    """docs/architecture.md draws every module that is there, and none that is not."""
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    drawn = []
    folders = []
    for line in page.partition("pytest_tvmrpc/\n")[2].partition("\nharness/")[0].splitlines():
        name = line.split()[0] if line.strip() else ""
        depth = (len(line) - len(line.lstrip())) // 4 - 1
        folders = folders[:depth]
        if name.endswith("/"):
            folders.append(name)
        elif name:
            drawn.append("".join(folders) + name)
    files = [*MODULES, *PACKAGE.rglob("*.c")]
    names = {path.relative_to(PACKAGE).as_posix() for path in files}
    there = {name for name in names if name == "__init__.py" or "__init__" not in name}
    assert not sorted(there - set(drawn)), "not drawn yet"
    assert not sorted(set(drawn) - there), "drawn, but not there"
    assert len(drawn) == len(set(drawn)), "drawn twice"


NATIVE = PACKAGE / "native"
PURE_HEADERS = {"math.h", "stdarg.h", "stddef.h", "stdint.h", "stdio.h", "stdlib.h", "string.h"}
"""What the protocol in C may include: nothing that asks the system for anything by itself."""
SYSTEM_CALLS = re.compile(r"\b(malloc|calloc|realloc|free|printf|fopen|read|write|getenv)\s*\(")


def _includes(path):
    return re.findall(r'^#include ["<]([^">]+)[">]', path.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("name", ["wire.c", "answers.c", "handshake.c"])
def test_the_protocol_in_c_is_pure(name):
    """It has no memory of its own and calls nothing of the system."""
    own = {"wire.h", "wire_parts.h", "numbers.h"}
    assert set(_includes(NATIVE / name)) <= PURE_HEADERS | own
    assert not SYSTEM_CALLS.search((NATIVE / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("folder", ["server", "popen"])
def test_the_programs_in_c_are_leaves(folder):
    """What only one program has is included by that program alone."""
    its_own = {path.name for path in (NATIVE / folder).glob("*.h")}
    others = [path for path in NATIVE.rglob("*.[ch]") if path.parent.name != folder]
    assert not [path.name for path in others if its_own & set(_includes(path))]


def test_the_layers_are_in_the_docs():
    """docs/architecture.md has the units of LAYERS, in their order."""
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.partition("| layer | units |\n")[2].partition("\n\n")[0].splitlines()[1:]
    shown = [set(line.split("|")[2].replace("`", "").replace(" ", "").split(",")) for line in table]
    there = [units & EVERYWHERE - {"__init__"} for units in LAYERS]
    assert shown == there


def test_a_date_is_told_from_a_clock():
    """Only what is called a time of day may be one."""
    code = (
        "a_at, b = time.time(), time.time()\nrun.c_at = time.time()\nd = time.time()\n"
        "f(e_at=time.time(), g=time.time())\nh = {'at': time.time(), 'what': time.time()}"
    )
    assert len(dates_in(ast.parse(code))) == 4


def test_the_walk_sees_every_form(tmp_path, monkeypatch):
    """Imports are found in functions, behind TYPE_CHECKING, relative or absolute."""
    folder = tmp_path / "session"
    folder.mkdir()
    module = folder / "some.py"
    module.write_text(
        "import os.path\n"
        "from . import near\n"
        "from ..protocol.codes import Code\n"
        "from .. import errors\n"
        "if TYPE_CHECKING:\n    import numpy\n"
        "class C:\n    import json\n    def f(self):\n        from pytest_tvmrpc.client import x\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    assert {tuple(found) for found in imports_of(module)} == {
        ("os.path", 1, True, False),
        ("pytest_tvmrpc.session.near", 2, True, False),
        ("pytest_tvmrpc.protocol.codes.Code", 3, True, False),
        ("pytest_tvmrpc.errors", 4, True, False),
        ("numpy", 6, True, True),
        ("json", 8, True, False),
        ("pytest_tvmrpc.client.x", 10, False, False),
    }
    assert own_unit("pytest_tvmrpc.protocol.codes.Code") == "protocol"
    assert own_unit("pytest_tvmrpc.__version__") == "__init__"
    assert own_unit("pytester.x") is None


def test_what_a_board_needs_is_light():
    """Server, session, runtime and protocol load without site-packages, and load nothing heavy."""
    names = [
        ".".join(["pytest_tvmrpc", *path.relative_to(PACKAGE).with_suffix("").parts])
        for path in MODULES
        if path.relative_to(PACKAGE).parts[0] in ("server", "session", "runtime", "protocol")
        or path.relative_to(PACKAGE).as_posix() == "exec/rpc_server.py"
    ]
    unwanted = sorted(HEAVY - {"concurrent"} | {"logging", "dataclasses"})
    program = (
        "import importlib, sys\n"
        f"sys.path.insert(0, {str(PACKAGE.parent)!r})\n"
        f"for name in {names!r}: importlib.import_module(name.replace('.__init__', ''))\n"
        f"print([name for name in {unwanted!r} if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-B", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]", f"loaded with a server: {done.stdout.strip()}"
