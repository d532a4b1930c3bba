"""README.md against the repository: its commands, its table of options, its code."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_tvmrpc import rpc
from pytest_tvmrpc.exec.server_checks import ServerChecks
from pytest_tvmrpc.exec.tracker_checks import TrackerChecks
from pytest_tvmrpc.exec.who import lines
from pytest_tvmrpc.options import ARTIFACTS_DIR, BENCH_DIR, Options
from pytest_tvmrpc.protocol.farm import Farm, FarmServer, State, Waiting
from pytest_tvmrpc.reporting import terminal
from pytest_tvmrpc.reporting.tally import Sums
from pytest_tvmrpc.settings import SETTINGS

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


IN_THE_README = (
    *(
        "tracker",
        "keys",
        "servers",
        "server_kind",
        "reruns",
        "queue_timeout_s",
        "connect_timeout_s",
    ),
    *("call_timeout_s", "session_timeout_s"),
)


def written(setting):
    """A setting as the tables have it in their first three columns."""
    metavar = setting.metavar.replace("|", "\\|")  # in a table, a bar ends a cell
    value = {"switch": "", "optional": f"[={metavar}]"}.get(setting.form, f"={metavar}")
    again = " (again for more)" if setting.form == "list" else ""
    port = ", `TVM_TRACKER_PORT`" if setting.field == "tracker" else ""
    return [
        f"`{setting.flag}{value}`{again}",
        f"`{setting.name}`",
        f"`{setting.environment}`{port}",
    ]


def default(setting):
    """What is used without the setting, as the table has it."""
    folders = {"artifacts_dir": ARTIFACTS_DIR, "bench_dir": BENCH_DIR}
    value = getattr(Options(**folders), setting.field)
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (int, float)):
        return f"{value:g}"
    words = value if isinstance(value, tuple) else [value] if value else []
    return ", ".join(f"`{word}`" for word in words) or "none"


def rows(page):
    """The cells of the table of settings."""
    table = page.partition("\n| command line | ini")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table]


def test_what_is_installed_along():
    """What the package is made for comes with it; extras of before are still there."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (line,) = re.findall(r"^dependencies = \[(.*)\]$", project, flags=re.MULTILINE)
    names = set(re.findall(r'"([\w-]+)', line))
    assert names == {"cloudpickle", "filelock", "numpy", "pytest", "pytest-xdist"}
    assert re.findall(r"^(xdist|closures) = \[\]", project, flags=re.MULTILINE)


def test_the_table_of_settings():
    """docs/plugin.md has a row for every setting, in order: its names, its default, a meaning."""
    found = rows((ROOT / "docs" / "plugin.md").read_text(encoding="utf-8"))
    assert [row[:4] for row in found] == [[*written(one), default(one)] for one in SETTINGS]
    assert all(len(row) == 5 and row[4] for row in found)


def test_the_short_table_of_settings():
    """README.md has the most important ones, with their defaults, and says where the others are."""
    names = {setting.field: setting for setting in SETTINGS}
    found = rows(README)
    assert [row[:3] for row in found] == [written(names[field]) for field in IN_THE_README]
    for row, field in zip(found, IN_THE_README):
        shown = default(names[field])
        assert shown == "none" or row[3].endswith(f"(default {shown})")
    assert "(docs/plugin.md#settings)" in README


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
    demo, well, unwell, asked, kicked = code("text")
    assert all(word in demo for word in terminal.table([Sums("total")], False, 80)[0].split())
    assert all(f"board-{name}@" in demo for name in "ab")
    assert all(line[:7] == "ok     " for line in well.splitlines()[1:-1])
    assert [line[21:33].strip() for line in well.splitlines()[1:-1]] == checks_of_the_doctor()
    assert "FAILED  " in unwell
    assert "what to do:" in unwell
    query, who = asked.split("$ tvmrpc who")
    assert "Queue Status" in query
    farm = Farm((FarmServer("k", "h", 1, State.FREE, 0.0),), (Waiting("k", "u", "p", 1, 1.0, 0.0),))
    for title in (line for line in lines(farm) if line.startswith(("device", "waiting"))):
        assert title.split() in [line.split() for line in who.splitlines()]
    assert re.search(r"^kicked .*, who had it for .*, from jetson@", kicked, re.MULTILINE)


def checks_of_the_doctor():
    """The names of all checks, in order."""
    tracker = TrackerChecks("h", 1, "", 1, 1, 1)
    server = ServerChecks("h", 1, "", 1, tracker)
    return [check.name for check in [*tracker.checks(), *server.checks()]]


def test_the_page_on_farms_lists_the_checks():
    """Its table has each check of the doctor, in order."""
    page = (ROOT / "docs" / "farm.md").read_text(encoding="utf-8")
    rows = page.partition("| check | what is done")[2].partition("\n\n")[0].splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == checks_of_the_doctor()


def test_hops_and_pipelines():
    """The lines in the farm's chapter do what they say, on two servers of this machine."""
    hop, pipeline = [block for block in code("python") if "remote.get_function" in block][-2:]
    with rpc.Server(port=0, silent=True) as near, rpc.Server(port=0, silent=True) as far:
        hop = hop.replace('"board.example", 9090', f'"127.0.0.1", {near.port}')
        hop = hop.replace('"192.168.7.2", 9090', f'"127.0.0.1", {far.port}')
        assert ".example" not in hop
        exec(hop, {"rpc": rpc})
        with rpc.connect("127.0.0.1", near.port) as remote:
            exec(pipeline, {"remote": remote})


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
def test_how_a_library_is_made(tmp_path, monkeypatch):
    """The lines that compile a file do."""
    monkeypatch.chdir(ROOT / "examples" / "kernels")
    (lines,) = (block for block in code("python") if 'options=["-O3"])' in block)
    exec(lines, {"tmp_path": tmp_path})
    assert (tmp_path / "vector_add.so").stat().st_size > 0


def test_the_file_for_a_board(tmp_path):
    """The command that writes it does, and it can be run."""
    (words,) = re.findall(r"^tvmrpc (bundle .*)$", README, re.MULTILINE)
    command = [sys.executable, "-m", "pytest_tvmrpc", *words.split()]
    subprocess.run(command, check=True, cwd=tmp_path, stdout=subprocess.DEVNULL)
    assert (tmp_path / "tvmrpc-server.pyz").stat().st_mode & 0o100


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
