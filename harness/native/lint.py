"""cppcheck and clang-tidy over the C code; findings are judged by suppressions.txt.

Each line of that file is a tool, the id of a check, the file (or ``*``) and the reason why what the
check finds there is right as it is. A line that nothing needs any more is a finding, too.
"""

from __future__ import annotations

import concurrent.futures
import fnmatch
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from .corpus import SOURCES

SUPPRESSIONS = Path(__file__).parent / "suppressions.txt"
TIDY_CHECKS = "-*,bugprone-*,clang-analyzer-*"
DEFINITIONS = ("-D_GNU_SOURCE",)

_FINDING = re.compile(r"(?P<path>[^\s:]+):(?P<line>\d+):\d+: (?P<text>.*) \[(?P<check>[^]]+)\]$")


class LintError(Exception):
    """A tool is not here, or fails; or there are findings."""


class Finding(NamedTuple):
    """What a tool says of a line."""

    tool: str
    check: str
    path: str
    line: int
    text: str


class Suppression(NamedTuple):
    """What is right as it is."""

    tool: str
    check: str
    path: str
    reason: str

    def covers(self, finding: Finding) -> bool:
        """Whether it is about this finding."""
        return (self.tool, self.check) == (finding.tool, finding.check) and fnmatch.fnmatchcase(
            finding.path, self.path
        )


def suppressions(text: str) -> list[Suppression]:
    """Those of a file.

    Raises:
        LintError: a line has no reason.
    """
    found = []
    for line in text.splitlines():
        if line and not line.startswith("#"):
            fields = line.split(None, 3)
            if len(fields) < 4:
                raise LintError(f"{SUPPRESSIONS.name}: expected TOOL CHECK FILE REASON: {line}")
            found.append(Suppression(*fields))
    return found


def findings(tool: str, output: str) -> list[Finding]:
    """What a tool has printed, each once: a header is read with every file that includes it."""
    found = []
    for line in output.splitlines():
        match = _FINDING.match(line)
        if match is not None and ": note: " not in line:
            path = os.path.relpath(match["path"], SOURCES)
            for check in match["check"].split(","):
                found.append(Finding(tool, check, path, int(match["line"]), match["text"]))
    return list(dict.fromkeys(found))


def judge(found: list[Finding], rules: list[Suppression]) -> list[str]:
    """What is to be mended: findings that no rule covers, and rules that cover none."""
    bad = [
        f"{one.path}:{one.line}: {one.text} [{one.tool}: {one.check}]"
        for one in found
        if not any(rule.covers(one) for rule in rules)
    ]
    bad += [
        f"{SUPPRESSIONS.name}: nothing is found any more by {rule.tool} {rule.check} {rule.path}"
        for rule in rules
        if not any(rule.covers(one) for one in found)
    ]
    return bad


def sources() -> list[Path]:
    """The C files, of the core and of the programs."""
    return sorted(SOURCES.rglob("*.c"))


def lint() -> None:
    """Runs both tools, prints what is to be mended.

    Raises:
        LintError: anything is; or a tool is not here.
    """
    found = [*findings("cppcheck", _cppcheck()), *findings("clang-tidy", _clang_tidy())]
    rules = suppressions(SUPPRESSIONS.read_text("utf-8"))
    bad = judge(found, rules)
    print(*bad, sep="\n")
    count = f"{len(sources())} files, {len(found) - len(bad)} findings with a reason"
    if bad:
        raise LintError(f"{len(bad)} things to mend in {count}; or see {SUPPRESSIONS.name}")
    print(f"nothing to mend in {count}")


def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise LintError(f"{name} is not in PATH; install it: apt-get install {name}")
    return path


def _cppcheck() -> str:
    command = [
        *(_tool("cppcheck"), "--quiet", "--std=c99", "--inconclusive", "--error-exitcode=0"),
        *("--enable=warning,style,performance,portability", "-D__GNUC__", *DEFINITIONS),
        *("--template={file}:{line}:{column}: {severity}: {message} [{id}]", f"-I{SOURCES}"),
    ]
    return _output([*command, *map(str, sources())])


def _clang_tidy() -> str:
    """File by file: in one run, the analyzer of clang 14 mixes them up."""
    program = _tool("clang-tidy")
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return "".join(pool.map(lambda path: _tidy(program, path), sources()))


def _tidy(program: str, path: Path) -> str:
    command = [program, "--quiet", f"--checks={TIDY_CHECKS}", f"--header-filter={SOURCES}/.*"]
    return _output([*command, str(path), "--", "-std=c99", *DEFINITIONS, f"-I{SOURCES}"])


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    said = f"{done.stdout}\n{done.stderr}\n"
    if done.returncode not in (0, 1):
        raise LintError(f"{command[0]} fails:\n{said}")
    return said
