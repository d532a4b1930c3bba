"""README.md against the repository: its commands, its table of options, its code."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_tvmrpc import options
from pytest_tvmrpc.reporting import terminal
from pytest_tvmrpc.reporting.facts import DeviceTally

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DEMO = "python3 -m pip install tox && python3 -m tox run -e demo"
TESTS = "python3 -m pip install tox && python3 -m tox"


def code(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def test_the_two_commands():
    """The demo and the tests are one command each, and CI runs the second as it stands."""
    assert [block.strip() for block in code("sh") if "install tox" in block] == [DEMO, TESTS]
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert TESTS in ci.splitlines()
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


@pytest.mark.parametrize("setting", options.SETTINGS, ids=lambda setting: setting.name)
def test_the_table_of_options(setting):
    """Every setting has a row with its option, its ini name and its environment variable."""
    row = next(line for line in README.splitlines() if line.startswith(f"| `{setting.flag}="))
    assert f"`{setting.name}`" in row
    assert f"`{setting.environment}`" in row


def test_the_test_in_the_readme_is_an_example():
    """The test that is shown is the one in examples/, to the letter."""
    shown = code("python")[0].partition("def ")
    example = (ROOT / "examples" / "test_vector_add.py").read_text(encoding="utf-8")
    assert "".join(shown[1:]).strip() in example
    assert all(line in example for line in shown[0].splitlines())


def test_nothing_is_left_to_be_filled_in():
    """No page has a placeholder, nor a comment that only its source shows."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    assert len(pages) > 4
    wrong = [
        f"{page.name}:{number}: {line}"
        for page in pages
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(r"<!--|\b(TODO|TBD|FIXME|XXX)\b|^Machine: -$", line)
    ]
    assert not wrong, "\n".join(wrong)


def test_the_outputs_in_the_readme():
    """They have the columns that are printed today."""
    demo, query = code("text")
    assert all(word in demo for word in terminal.lines([DeviceTally("total")])[0].split())
    assert all(f"board-{name}@" in demo for name in "ab")
    assert "Queue Status" in query


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
def test_how_a_library_is_made(tmp_path, monkeypatch):
    """The lines that compile a file do."""
    monkeypatch.chdir(ROOT / "examples" / "kernels")
    (lines,) = (block for block in code("python") if "compile_library(" in block)
    exec(lines, {"tmp_path": tmp_path})
    assert (tmp_path / "vector_add.so").stat().st_size > 0


def test_the_folder_for_a_board():
    """The line that prints it does, and it holds the server."""
    (line,) = re.findall(r"python -c '([^']+)'", README)
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True)
    assert (Path(done.stdout.strip()) / "exec" / "rpc_server.py").is_file()


def test_the_script_in_the_readme_runs(tmp_path, deadline_s):
    """The lines for users who come from TVM do what they say."""
    (script,) = (block for block in code("python") if "rpc.Tracker(" in block)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        timeout=3 * deadline_s,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["11", "[1.", "1.", "1.", "1.]"]
