"""The pages on the plugin in docs/: their examples run, and name all that there is, and no more."""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Set, Tuple

import numpy  # noqa: F401  (a process loads it once, and each example is run as if anew)
import pytest

from pytest_tvmrpc import hooks
from pytest_tvmrpc.running.selection import MARKERS
from pytest_tvmrpc.runtime import compile_cache
from pytest_tvmrpc.settings import SETTINGS

Run = Callable[..., pytest.RunResult]

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = {
    name: (DOCS / f"{name}.md").read_text(encoding="utf-8")
    for name in ("plugin", "verdicts", "reports", "hooks", "benchmarking", "ci", "kernels")
}
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# ((?:conftest|test_\w+)\.py)\n")
"""The first line of an example that is a whole file."""

PLAIN = "def test_it(remote): assert remote.get_function('rpc.test.addone')(1) == 2"


def examples() -> Iterator[Tuple[str, Dict[str, str]]]:
    """The whole files of each section, by the heading above them."""
    for page in ("plugin", "hooks", "benchmarking", "kernels"):
        for section in re.split(r"^(?=##+ )", PAGES[page], flags=re.MULTILINE):
            found = {}
            for block in BLOCK.findall(section):
                named = FILE.match(block)
                if named:
                    found[named[1]] = block
            if found:
                yield f"{page}: {section.splitlines()[0].lstrip('# ')}", found


EXAMPLES = list(examples())


@pytest.mark.parametrize("files", [e[1] for e in EXAMPLES], ids=[e[0] for e in EXAMPLES])
def test_examples_run(
    plain: pytest.Pytester, run: Run, files: Dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each passes as it stands, with two local servers and a second attempt where it wants one."""
    if any("kernel.h" in text for text in files.values()):
        if not shutil.which("g++"):
            pytest.skip("no C++ compiler")
        monkeypatch.setenv(compile_cache.VARIABLE, str(plain.path / "cache"))
    for name, text in files.items():
        (plain.path / name).write_text(text)
    if list(files) == ["conftest.py"]:
        plain.makepyfile(PLAIN)
    result = run("--rpc-servers=2", "--rpc-reruns=1", "--strict-markers")
    assert result.ret == 0
    assert result.parseoutcomes()["passed"] >= 1


def test_hooks_are_run() -> None:
    """Each hook has an example among them."""
    texts = [
        text for name, files in EXAMPLES if name.startswith("hooks") for text in files.values()
    ]
    defined = {
        node.name
        for text in texts
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("pytest_tvmrpc_")
    }
    assert defined == all_hooks()


@pytest.mark.parametrize("page", sorted(PAGES))
def test_other_code_is_python(page: str) -> None:
    """What is shown of a file only is at least to be read."""
    for block in BLOCK.findall(PAGES[page]):
        if not block.startswith("remote_benchmark(function"):  # a signature
            compile(block, page, "exec")


def all_hooks() -> Set[str]:
    return {name for name in vars(hooks) if name.startswith("pytest_tvmrpc_")}


def all_marks() -> Set[str]:
    return {marker.partition("(")[0] for marker in MARKERS}


def all_options() -> Set[str]:
    return {setting.flag for setting in SETTINGS}


def named(pattern: str) -> Set[str]:
    return {name for text in PAGES.values() for name in re.findall(pattern, text)}


def test_hooks_are_named() -> None:
    """Those that exist, and no others."""
    assert named(r"\bpytest_tvmrpc_\w+") == all_hooks()


def test_marks_are_named() -> None:
    """The same of marks; `hot` is one of the examples."""
    assert named(r"pytest\.mark\.(\w+)") - {"hot", "parametrize"} == all_marks()


def test_options_are_named() -> None:
    """The same of options; an ellipsis stands for several."""
    assert named(r"--rpc-[a-z]+(?:-[a-z]+)*") == all_options()


def test_fixtures_are_named() -> None:
    """Each has a row in the table and a part of its own."""
    # Read, as a module that was imported cannot be loaded by a pytest with -p.
    source = (ROOT / "pytest_tvmrpc" / "plugin.py").read_text(encoding="utf-8")
    exported = re.search(r"^__all__ = \[.*?\]", source, re.MULTILINE | re.DOTALL)
    assert exported
    fixtures = set(re.findall(r'"([a-z]\w*)"', exported[0]))
    text = PAGES["plugin"].partition("\n## Marks")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == fixtures
    titles: List[str] = re.findall(r"^### (.*)$", text, re.MULTILINE)
    assert {name for title in titles for name in re.findall(r"`(\w+)`", title)} == fixtures


def test_links_lead_somewhere() -> None:
    """To a file that is there, and to a heading that is there."""
    for page, text in PAGES.items():
        for target in re.findall(r"\]\(([^)#:]*(?:#[\w-]+)?)\)", FENCED.sub("", text)):
            path, _, heading = target.partition("#")
            file = DOCS / path if path else DOCS / f"{page}.md"
            assert file.exists(), f"{page}.md: {target}"
            if heading:
                assert heading in anchors(file), f"{page}.md: {target}"


def anchors(file: Path) -> Set[str]:
    """The headings of a page, as GitHub makes anchors of them."""
    text = FENCED.sub("", file.read_text(encoding="utf-8"))
    found = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in found)
    return {heading.replace(" ", "-") for heading in plain}
