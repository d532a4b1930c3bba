"""The pipelines to copy: their files are what the CI systems take, and their commands run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ET
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest

from pytest_tvmrpc import rpc
from pytest_tvmrpc.settings import SETTINGS

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "harness" / "ci"
PIPELINES = ("github.yml", "gitlab-ci.yml", "Jenkinsfile")
FOLDERS = {"Jenkinsfile": "reports/board"}  # where its reports go; elsewhere it is reports
KEY = "board"

TESTS = """
    import pytest

    def test_passes(remote):
        assert remote.get_function("rpc.test.addone")(1) == 2

    def test_fails(remote):
        assert remote.get_function("rpc.test.addone")(1) == 3
"""


def text_of(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def command_of(name: str) -> str:
    """The pytest command of a pipeline, from its first word to the line that ends it."""
    (found,) = re.findall(r"^ *(python -m pytest \\\n(?:.*\\\n)*.*\n)", text_of(name), re.MULTILINE)
    return str(found)


def parsed(name: str) -> Dict[Any, Any]:
    yaml = pytest.importorskip("yaml")
    document = yaml.safe_load(text_of(name))
    assert isinstance(document, dict)
    return document


@pytest.fixture(name="tracker", scope="module")
def _tracker() -> Iterator[str]:
    """The address of a tracker with one device."""
    with rpc.Tracker(port=0, silent=True) as tracker:
        address = (tracker.host, tracker.port)
        with rpc.Server(port=0, key=KEY, tracker_addr=address, silent=True):
            yield f"127.0.0.1:{tracker.port}"


@pytest.fixture(name="environment")
def _environment(tracker: str, tmp_path: Path) -> Dict[str, str]:
    """What the CI system sets; ``python`` is this one, and our plugin is there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TVM_TRACKER_", "PYTEST_")) or name == "PYTEST_TVMRPC_GUARD"
    }
    installed = any(
        point.value == "pytest_tvmrpc.plugin" for point in entry_points(group="pytest11")
    )
    return {
        **kept,
        "PATH": f"{folder}{os.pathsep}{kept['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYTEST_ADDOPTS": "" if installed else "-p pytest_tvmrpc.plugin",
        "RPC_TRACKER": tracker,
        "RPC_KEY": KEY,
        "TVMRPC_USER": "ci job 1",
    }


def run(
    command: str, environment: Dict[str, str], folder: Path, limit_s: float
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["sh", "-ec", command],
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=limit_s,
        check=False,
    )


@pytest.mark.parametrize("name", PIPELINES)
def test_command(
    name: str,
    environment: Dict[str, str],
    pytester: pytest.Pytester,
    deadline_s: float,
) -> None:
    """The command runs the tests on the key, and all its reports are written."""
    pytester.makepyfile(test_it=TESTS)
    folder = pytester.path
    workspace = {"gitlab-ci.yml": "CI_PROJECT_DIR", "Jenkinsfile": "WORKSPACE"}.get(name)
    if workspace:
        environment[workspace] = str(folder)
    done = run(command_of(name), environment, folder, 6 * deadline_s)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
    assert "1 failed, 1 passed" in done.stdout
    reports = folder / FOLDERS.get(name, "reports")
    for report in ("devices.html", "devices.md", "run.jsonl", "junit.xml"):
        assert (reports / report).stat().st_size > 0, report
    cases = {case.get("name"): case for case in ET.parse(reports / "junit.xml").iter("testcase")}
    assert set(cases) == {"test_passes", "test_fails"}
    for case in cases.values():
        assert case.get("classname") == f"{KEY}.test_it"
        assert (case.get("file") is not None) == (name == "gitlab-ci.yml")
        properties = {each.get("name"): each.get("value") for each in case.iter("property")}
        assert properties["rpc.key"] == KEY
    found = re.findall(r"\[\[ATTACHMENT\|(.+)\]\]", cases["test_fails"].findtext("system-out", ""))
    assert found
    assert all((folder / path).is_file() for path in found), found
    assert cases["test_passes"].find("system-out") is None


def test_github_summary(pytester: pytest.Pytester, deadline_s: float) -> None:
    """The step after it appends the Markdown to the page of the job, and does without it, too."""
    (line,) = re.findall(r"run: (.*GITHUB_STEP_SUMMARY.*)", text_of("github.yml"))
    folder = pytester.path
    page = folder / "summary.md"
    page.write_text("before\n", encoding="utf-8")
    environment = {**os.environ, "GITHUB_STEP_SUMMARY": str(page)}
    assert run(line, environment, folder, deadline_s).returncode == 0
    assert page.read_text(encoding="utf-8") == "before\n"
    (folder / "reports").mkdir()
    (folder / "reports" / "devices.md").write_text("# Devices\n", encoding="utf-8")
    assert run(line, environment, folder, deadline_s).returncode == 0
    assert page.read_text(encoding="utf-8") == "before\n# Devices\n"


@pytest.mark.parametrize("path", [*(FOLDER / name for name in PIPELINES), ROOT / "docs" / "ci.md"])
def test_flags(path: Path) -> None:
    """Every option of ours that is written there exists."""
    written = set(re.findall(r"--rpc-[a-z-]+", path.read_text(encoding="utf-8")))
    assert written
    assert written <= {setting.flag for setting in SETTINGS}


def test_same_command() -> None:
    """The systems run the same tests in the same way: they differ in where the reports are."""
    commands: List[List[str]] = []
    for name in PIPELINES:
        words = shlex.split(command_of(name).replace("\\\n", " "))
        words = [word.replace("reports/$RPC_KEY/", "reports/") for word in words]
        commands.append([word for word in words if word not in ("-o", "junit_family=xunit1")])
    assert commands[0] == commands[1] == commands[2]


def test_page() -> None:
    """The page of the documentation shows the same command."""
    page = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    assert shlex.split(shown.replace("\\\n", " ")) == shlex.split(
        command_of("github.yml").replace("\\\n", " ")
    )


def test_github() -> None:
    """Jobs, matrix and steps are where GitHub looks for them; failures keep their reports."""
    document = parsed("github.yml")
    assert set(document) == {"name", True, "permissions", "jobs"}  # YAML reads `on` as true
    # Anybody may open a pull request; its code shall not run beside the devices.
    assert set(document[True]) == {"push", "workflow_dispatch"}
    (job,) = document["jobs"].values()
    keywords = {"name", "runs-on", "timeout-minutes", "strategy", "env", "steps"}
    assert set(job) == keywords
    assert job["strategy"]["fail-fast"] is False
    assert list(job["strategy"]["matrix"]) == ["key"]
    for step in job["steps"]:
        assert ("uses" in step) != ("run" in step)
        assert set(step) <= {"name", "uses", "run", "with", "if"}
    names = [step.get("name", step.get("uses")) for step in job["steps"]]
    after = job["steps"][names.index("Test") + 1 :]
    assert [step["if"] for step in after] == ["always()"] * len(after)
    assert after[-1]["with"]["path"] == "reports/"
    # What somebody may choose, a branch's name, say, must not become a part of a script.
    assert not any("${{" in step.get("run", "") for step in job["steps"])
    contexts = set(re.findall(r"\$\{\{ *(\w+)\.", text_of("github.yml")))
    assert contexts == {"matrix", "github"}


def test_gitlab() -> None:
    """One job, its matrix, and its reports, also after failures, under keywords of GitLab."""
    document = parsed("gitlab-ci.yml")
    (job,) = document.values()
    assert set(job) == {
        *("stage", "image", "tags", "timeout", "parallel", "variables", "script", "artifacts")
    }
    ((axis,),) = [list(row) for row in job["parallel"]["matrix"]]
    assert axis == "RPC_KEY"
    artifacts = job["artifacts"]
    assert artifacts["when"] == "always"
    assert artifacts["reports"] == {"junit": "reports/junit.xml"}
    assert artifacts["paths"] == ["reports/"]
    assert re.fullmatch(r"[\w -]+", artifacts["expose_as"])  # it allows no other characters
    assert all(isinstance(line, str) for line in job["script"])


def test_jenkins() -> None:
    """Braces and quotes close, and the sections stand where a declarative pipeline has them."""
    text = re.sub(r"^\s*//.*|(?<=[^:])// .*", "", text_of("Jenkinsfile"), flags=re.MULTILINE)
    text = re.sub(r"'''.*?'''|'[^'\n]*'|\"[^\"\n]*\"", "''", text, flags=re.DOTALL)
    assert '"' not in text
    path: List[str] = []
    found = []
    for opened, closed in re.findall(r"(\w+)(?:\(''\))? *\{|(\})", text):
        if closed:
            path.pop()
        else:
            path.append(opened)
            found.append("/".join(path))
    assert not path
    matrix = "pipeline/stages/stage/matrix"
    assert found == [
        "pipeline",
        "pipeline/options",
        "pipeline/environment",
        "pipeline/stages",
        "pipeline/stages/stage",
        matrix,
        f"{matrix}/agent",
        f"{matrix}/axes",
        f"{matrix}/axes/axis",
        f"{matrix}/stages",
        f"{matrix}/stages/stage",
        f"{matrix}/stages/stage/steps",
        f"{matrix}/stages/stage/post",
        f"{matrix}/stages/stage/post/always",
    ]
    for step in ("junit testResults:", "publishHTML target:", "archiveArtifacts artifacts:"):
        assert text_of("Jenkinsfile").count(step) == 1
