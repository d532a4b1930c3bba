"""JUnit files as GitLab and Jenkins read them, and a check of their structure. No test in here."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Dict, List, Tuple

import pytest

if TYPE_CHECKING:
    from pathlib import Path

TESTCASE_ORDER = [  # that of Surefire's schema; Jenkins' takes any
    "properties",
    "failure",
    "rerunFailure",
    "flakyFailure",
    "skipped",
    "error",
    "system-out",
    "system-err",
]
WITH_TYPE = {"error", "failure", "skipped"}
LOST = {"flakyFailure", "rerunFailure"}
COUNTED = {"errors": "error", "failures": "failure", "skipped": "skipped"}


@dataclass
class Shown:
    """What somebody who looks at a test in a CI system can see of it."""

    status: str
    text: str = ""
    output: str = ""
    attachments: List[str] = field(default_factory=list)
    flaky: List[Tuple[str, str, str]] = field(default_factory=list)
    reruns: List[Tuple[str, str, str]] = field(default_factory=list)
    properties: Dict[str, str] = field(default_factory=dict)


def gitlab(path: Path) -> Dict[str, Shown]:
    """As lib/gitlab/ci/parsers/test/junit.rb reads: elements by name, of two a list."""
    tests: Dict[str, Shown] = {}
    for case in ET.parse(path).getroot().iter("testcase"):
        texts = {tag: case.findall(tag) for tag in (*COUNTED.values(), "system-out")}
        status = next((tag for tag in ("failure", "error", "skipped") if texts[tag]), "success")
        assert len(texts["system-out"]) < 2, "GitLab gives up a file with two in a test case"
        output = texts["system-out"][0].text or "" if texts["system-out"] else ""
        found = re.search(r"\[\[ATTACHMENT\|(?P<path>[^\[\]\|]+?)\]\]", output)
        name = f"{case.attrib['classname']}.{case.attrib['name']}"
        assert name not in tests, "a second test of that name"
        tests[name] = Shown(
            status,
            text="".join(element.text or "" for element in texts.get(status, ())),
            output=output,
            attachments=[found["path"]] if found and status in ("failure", "error") else [],
        )
    return tests


def jenkins(path: Path) -> Dict[str, Shown]:
    """As CaseResult.java and the plugin for attachments read: the first element of a name."""
    tests: Dict[str, Shown] = {}
    for case in ET.parse(path).getroot().iter("testcase"):
        verdict = next((found for tag in ("error", "failure") for found in case.iter(tag)), None)
        skipped = case.find("skipped") is not None
        output = case.findtext("system-out") or ""
        tests[f"{case.attrib['classname']}.{case.attrib['name']}"] = Shown(
            "skipped" if skipped else "failed" if verdict is not None else "passed",
            text=verdict.attrib["message"] if verdict is not None else "",
            output=output,
            attachments=re.findall(r"^\[\[ATTACHMENT\|(.+)\]\]$", output, re.MULTILINE),
            flaky=list(_lost(case, "flakyFailure")),
            reruns=list(_lost(case, "rerunFailure")),
            properties={p.attrib["name"]: p.attrib["value"] for p in case.iter("property")},
        )
    return tests


def _lost(case: ET.Element, tag: str) -> List[Tuple[str, str, str]]:
    return [
        (each.attrib["message"], each.attrib["type"], each.findtext("stackTrace") or "")
        for each in case.findall(tag)
    ]


def check(path: Path, family: str = "xunit2") -> None:
    """Fail unless the file is built as the schemas want it, and its numbers are right."""
    (suite,) = ET.parse(path).getroot()
    cases = suite.findall("testcase")
    assert [child.tag for child in suite] == ["testcase"] * len(cases)
    legacy = {"file", "line"} if family == "xunit1" else set()
    names = [(case.get("classname"), case.get("name")) for case in cases]
    assert len(set(names)) == len(names)
    for case in cases:
        assert {"classname", "name", "time"} <= set(case.attrib)
        assert set(case.attrib) <= {"classname", "name", "time"} | legacy
        assert re.fullmatch(r"\d+\.\d{3}", case.attrib["time"])
        places = [TESTCASE_ORDER.index(child.tag) for child in case]
        assert places == sorted(places), [child.tag for child in case]
        properties = [each.get("name") for each in case.iter("property")]
        assert len(properties) == len(set(properties)), properties
        for child in case:
            if child.tag in LOST:
                assert set(child.attrib) == {"message", "type"}
                inner = [each.tag for each in child]
                assert inner in (
                    ["stackTrace"],
                    ["stackTrace", "system-out"],
                    ["stackTrace", "system-out", "system-err"],
                )
            elif child.tag in WITH_TYPE:
                assert set(child.attrib) <= {"message", "type"}
                assert not len(child)
    for attribute, tag in COUNTED.items():
        assert suite.get(attribute) == str(len(suite.findall(f"testcase/{tag}"))), tag
    if pytest.version_tuple >= (9,):  # before, a teardown that failed counted as one more
        assert suite.get("tests") == str(len(cases))


def case_of(path: Path, name: str) -> ET.Element:
    (case,) = [c for c in ET.parse(path).getroot().iter("testcase") if c.get("name") == name]
    return case
