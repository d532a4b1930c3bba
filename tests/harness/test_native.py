"""What judges the C code: suppressions with reasons, findings, and the inputs of the fuzzers."""

from __future__ import annotations

import pytest

from harness.native import corpus, fuzz, lint, sessions
from harness.native.__main__ import main, parse
from harness.native.lint import Finding, Suppression

CPPCHECK = f"{lint.SOURCES}/wire.c:12:3: style: It could be better. [someCheck]\n"
TIDY = (
    f"{lint.SOURCES}/server/main.c:7:1: warning: It is wrong. [bugprone-one,cert-two]\n"
    "  int wrong;\n"
    f"{lint.SOURCES}/ffi.h:9:9: note: It began here [bugprone-one]\n"
)


def test_findings_are_read():
    """Of both tools: where, what, and which check; each once, and no notes."""
    assert lint.findings("cppcheck", CPPCHECK * 2) == [
        Finding("cppcheck", "someCheck", "wire.c", 12, "style: It could be better.")
    ]
    found = lint.findings("clang-tidy", TIDY)
    assert [(one.check, one.path, one.line) for one in found] == [
        ("bugprone-one", "server/main.c", 7),
        ("cert-two", "server/main.c", 7),
    ]


def test_every_suppression_has_a_reason():
    """A line without one is an error, as the file says."""
    rules = lint.suppressions(lint.SUPPRESSIONS.read_text("utf-8"))
    assert all(len(rule.reason.split()) > 3 for rule in rules)
    with pytest.raises(lint.LintError, match="expected TOOL CHECK FILE REASON: cppcheck x"):
        lint.suppressions("cppcheck x wire.c\n")


def test_what_is_suppressed_is_no_finding_and_what_is_not_found_is_no_suppression():
    """Only for its tool, check and file; a rule that covers nothing has to go."""
    found = lint.findings("cppcheck", CPPCHECK)
    assert lint.judge(found, [Suppression("cppcheck", "someCheck", "*", "why")]) == []
    for rule in (
        Suppression("clang-tidy", "someCheck", "*", "why"),
        Suppression("cppcheck", "otherCheck", "*", "why"),
        Suppression("cppcheck", "someCheck", "main.c", "why"),
    ):
        first, second = lint.judge(found, [rule])
        assert first == "wire.c:12: style: It could be better. [cppcheck: someCheck]"
        assert second.startswith("suppressions.txt: nothing is found any more by ")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["lint"], "cppcheck is not in PATH; install it: apt-get install cppcheck"),
        (["fuzz"], "clang is not in PATH; install it: apt-get install clang"),
    ],
)
def test_what_is_not_here_is_said(monkeypatch, capsys, arguments, text):
    """With what to install."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CLANG", raising=False)
    assert main(arguments) == 1
    assert capsys.readouterr().err.startswith(text)


def test_how_long_is_the_users_choice():
    """Ten minutes of each, unless told."""
    assert parse(["fuzz"]).seconds == 600
    assert parse(["fuzz", "--seconds", "20", "--only", "wire"]).seconds == 20


@pytest.mark.parametrize("name", fuzz.FUZZERS)
def test_what_fuzzers_begin_with(name):
    """Seeds of each, inputs that were kept, and files that are there."""
    assert len(set(fuzz.FUZZERS[name].seeds())) > 100
    kept = corpus.kept(name)
    assert len(kept) > 50
    assert kept == sorted(set(kept), key=lambda content: (len(content), content))
    assert all(path.exists() for path in fuzz.FUZZERS[name].paths())


def test_every_function_is_in_a_session():
    """The functions that a server has by name, from its sources."""
    names = sessions.names()
    assert {"rpc.test.addone", "tvm.rpc.server.upload", "runtime.RPCTimeEvaluator"} <= set(names)
    content = b"".join(sessions.seeds())
    assert all(name.encode() in content for name in names)
