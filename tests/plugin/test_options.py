"""Options: three sources, one value, and advice when it cannot be used."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, List, NamedTuple

import pytest

from pytest_tvmrpc import options as module
from pytest_tvmrpc.options import SETTINGS, Options, options_of

if TYPE_CHECKING:
    from pytest_tvmrpc.settings import Setting

Run = Callable[..., pytest.RunResult]
Parse = Callable[..., Options]


@pytest.fixture(name="parse")
def _parse(plain: pytest.Pytester, loading: List[str]) -> Parse:
    """The options for a command line, read before pytest_configure."""
    return lambda *arguments: options_of(plain.parseconfig(*loading, *arguments))


@pytest.fixture(name="expected")
def _expected(plain: pytest.Pytester) -> Parse:
    """The options that have these fields from some source, and defaults otherwise."""

    def expected(**given: Any) -> Options:
        folders = {"artifacts_dir": "rpc-artifacts", "bench_dir": ".rpc-benchmarks"}
        defaults = {name: str(plain.path / folder) for name, folder in folders.items()}
        return Options(**{**defaults, **given, "given": frozenset(given)})

    return expected


# --- every setting --------------------------------------------------------------------------------


class Case(NamedTuple):
    """What a setting is given as text, what it is then, and a text that it refuses."""

    text: str
    value: Any
    bad: str


PATH = object()
"""The value of a path is the text below the folder of the tests."""

CASES = {
    "tracker": Case("farm:9190", ("farm", 9190), "farm"),
    "keys": Case("b", ("b",), "'a b'"),
    "mode": Case("any", "any", "all"),
    "servers": Case("3", 3, "0"),
    "server_kind": Case("popen", "popen", "rust"),
    "priority": Case("-1.5", -1.5, "inf"),
    "session_scope": Case("package", "package", "function"),
    "queue_timeout_s": Case("2.5", 2.5, "0"),
    "connect_timeout_s": Case("3", 3.0, "soon"),
    "call_timeout_s": Case("4e2", 400.0, "-1"),
    "session_timeout_s": Case("1.5", 1.5, "-1"),
    "require": Case("yes", True, "maybe"),
    "reruns": Case("2", 2, "-1"),
    "infra": Case("skip", "skip", "ignore"),
    "artifacts": Case("retain-on-failure", "retain-on-failure", "failed"),
    "artifacts_dir": Case("out/rpc", PATH, ""),
    "summary": Case("none", "none", "long"),
    "durations": Case("10", 10, "1.5"),
    "progress": Case("on", True, "2"),
    "report": Case("run.jsonl", PATH, ""),
    "html": Case("out/farm.html", PATH, ""),
    "markdown": Case("farm.md", PATH, ""),
    "bench_save": Case("main", "main", "a/b"),
    "bench_compare": Case("v1.2", "v1.2", "a/b"),
    "bench_fail": Case("5%", 0.05, "0%"),
    "bench_dir": Case("benchmarks", PATH, ""),
}

each_setting = pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.field)


def value_of(plain: pytest.Pytester, setting: Setting) -> Any:
    case = CASES[setting.field]
    return str(plain.path / case.text) if case.value is PATH else case.value


def others(setting: Setting) -> "dict[str, Any]":
    """What a setting implies for other fields."""
    return {"bench_compare": ""} if setting.field == "bench_fail" else {}


def test_the_cases_are_complete() -> None:
    """There is one for each setting, and a field for each setting."""
    assert set(CASES) == {setting.field for setting in SETTINGS}
    fields = {field.name for field in dataclasses.fields(Options)}
    assert fields == {*CASES, "given"}


@each_setting
def test_on_the_command_line(
    plain: pytest.Pytester, parse: Parse, expected: Parse, setting: Setting
) -> None:
    """Each setting has an option, and is known as given then."""
    text = CASES[setting.field].text
    argument = setting.flag if setting.form == "switch" else f"{setting.flag}={text}"
    options = expected(**{setting.field: value_of(plain, setting)})
    assert parse(argument) == dataclasses.replace(options, **others(setting))


@each_setting
def test_in_the_ini_file(
    plain: pytest.Pytester, parse: Parse, expected: Parse, setting: Setting
) -> None:
    """Each setting has an ini value."""
    plain.makeini(f"[pytest]\n{setting.name} = {CASES[setting.field].text}\n")
    options = expected(**{setting.field: value_of(plain, setting)})
    assert parse() == dataclasses.replace(options, **others(setting))


@each_setting
def test_in_the_environment(
    plain: pytest.Pytester,
    parse: Parse,
    expected: Parse,
    setting: Setting,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each setting has a variable; one that is empty is as good as none."""
    text = CASES[setting.field].text
    monkeypatch.setenv(setting.environment, "farm" if setting.field == "tracker" else text)
    options = expected(**{setting.field: value_of(plain, setting)})
    assert parse() == dataclasses.replace(options, **others(setting))
    monkeypatch.setenv(setting.environment, "")
    assert parse() == expected()


@each_setting
def test_a_bad_value_on_the_command_line(
    run: Run, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends before it starts, and the message says what to write."""
    bad = CASES[setting.field].bad.strip("'")
    if setting.form == "switch":  # it takes no value, which is argparse's matter
        assert run(f"{setting.flag}={bad}").ret == pytest.ExitCode.USAGE_ERROR
        return
    result = run(f"{setting.flag}={bad}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert result.errlines == [
        f"ERROR: {setting.flag}: {bad!r} cannot be used; expected {setting.expected}, "
        f"for example {setting.flag}={setting.example}",
        "",
    ]


@pytest.mark.parametrize(
    "setting",
    # An empty path in a file or a variable is none at all; the tracker's variables have a test.
    [each for each in SETTINGS if CASES[each.field].bad and each.field != "tracker"],
    ids=lambda setting: setting.field,
)
def test_a_bad_value_elsewhere(
    plain: pytest.Pytester, run: Run, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is blamed on the variable, or on the ini file, that has it."""
    bad = CASES[setting.field].bad
    plain.makeini(f"[pytest]\n{setting.name} = {bad}\n")
    result = run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = result.errlines[:-1]
    assert line.startswith(f"ERROR: ini {setting.name}: ")
    advice = f" cannot be used; expected {setting.expected}, for example {setting.flag}"
    assert advice in line
    monkeypatch.setenv(setting.environment, bad.strip("'"))  # which counts more
    result = run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    source = f"environment {setting.environment}: {bad.strip(chr(39))!r}"
    assert result.errlines[0].startswith(f"ERROR: {source}{advice}")


@each_setting
def test_the_example_in_the_advice_can_be_used(parse: Parse, setting: Setting) -> None:
    """Who copies it from the message gets no second message."""
    example = f"{setting.flag}={setting.example}" if setting.example else setting.flag
    assert setting.field in parse(example).given


# --- how the sources go together ------------------------------------------------------------------


def test_without_settings_there_is_one_local_server(parse: Parse, expected: Parse) -> None:
    """The defaults are those of the help text."""
    options = parse()
    assert options == expected()
    assert options == dataclasses.replace(
        Options(None, ("local",), 1, 0.0, 60.0, 10.0, 600.0, infra="error", mode="each"),
        artifacts_dir=options.artifacts_dir,
        bench_dir=options.bench_dir,
    )
    assert not options.given
    for setting in SETTINGS:
        found = re.search(r"\(default: ([\w.-]+)", setting.teaches)
        default = getattr(options, setting.field)
        if found is None:
            assert default in (None, "", False), setting.field
        elif isinstance(default, (int, float)):
            assert float(found[1]) == default, setting.field
        else:
            assert found[1] in (default, *default, Path(str(default)).name), setting.field


def test_keys_on_the_command_line(parse: Parse, expected: Parse) -> None:
    """They keep their order and lose repetitions."""
    assert parse("--rpc-key=b", "--rpc-key=a", "--rpc-key=b") == expected(keys=("b", "a"))


FILES = [
    (
        "pytest.ini",
        "[pytest]\nrpc_tracker = farm:9190\nrpc_key = b a\nrpc_servers = 3\n"
        "rpc_session_timeout = 1.5\nrpc_queue_timeout = 2\nrpc_require = true\n"
        "rpc_progress = false\nrpc_bench_fail = 5%\n",
    ),
    (
        "pyproject.toml",
        "[tool.pytest.ini_options]\nrpc_tracker = 'farm:9190'\nrpc_key = ['b', 'a']\n"
        "rpc_servers = '3'\nrpc_session_timeout = '1.5'\nrpc_queue_timeout = '2'\n"
        "rpc_require = true\nrpc_progress = 'no'\nrpc_bench_fail = '5%'\n",
    ),
    pytest.param(
        "pyproject.toml",
        "[tool.pytest]\nrpc_tracker = 'farm:9190'\nrpc_key = ['b', 'a']\n"
        "rpc_servers = 3\nrpc_session_timeout = 1.5\nrpc_queue_timeout = 2\n"
        "rpc_require = true\nrpc_progress = false\nrpc_bench_fail = '5%'\n",
        marks=pytest.mark.skipif(pytest.version_tuple < (9,), reason="native TOML: pytest 9"),
        id="native TOML",
    ),
]


@pytest.mark.parametrize(("file", "text"), FILES)
def test_kinds_of_ini_files(
    plain: pytest.Pytester, parse: Parse, expected: Parse, file: str, text: str
) -> None:
    """Values are read from each kind of ini file that pytest reads, with types if it has them."""
    (plain.path / file).write_text(text)
    options = expected(
        tracker=("farm", 9190),
        keys=("b", "a"),
        servers=3,
        session_timeout_s=1.5,
        queue_timeout_s=2.0,
        require=True,
        progress=False,
        bench_fail=0.05,
    )
    assert parse() == dataclasses.replace(options, bench_compare="")


@pytest.mark.skipif(pytest.version_tuple < (9,), reason="native TOML: pytest 9")
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("rpc_servers = '3'", "ini rpc_servers: *expected a whole number from 1*"),
        ("rpc_require = 1", "ini rpc_require: *expected a switch*"),
        ("rpc_key = 'a'", "ini rpc_key: *expected a key without blanks*"),
    ],
)
def test_a_wrong_type_in_native_toml(
    plain: pytest.Pytester, run: Run, line: str, message: str
) -> None:
    """It is a line of advice, not a traceback."""
    (plain.path / "pyproject.toml").write_text(f"[tool.pytest]\n{line}\n")
    result = run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {message}"])


def test_environment_counts_more_than_ini_and_less_than_the_command_line(
    plain: pytest.Pytester, parse: Parse, expected: Parse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ini, then environment, then command line: the later one counts."""
    plain.makeini("[pytest]\nrpc_key = ini\nrpc_servers = 2\nrpc_tracker = ini:1\n")
    assert parse() == expected(tracker=("ini", 1), keys=("ini",), servers=2)
    monkeypatch.setenv("TVM_TRACKER_HOST", "env")
    monkeypatch.setenv("TVM_TRACKER_PORT", "2")
    monkeypatch.setenv("TVM_TRACKER_KEY", "env")
    monkeypatch.setenv("PYTEST_TVMRPC_SERVERS", "3")
    assert parse() == expected(tracker=("env", 2), keys=("env",), servers=3)
    given = ("--rpc-tracker=line:3", "--rpc-key=line", "--rpc-servers=4")
    assert parse(*given) == expected(tracker=("line", 3), keys=("line",), servers=4)


def test_a_switch_can_be_turned_off_again(
    plain: pytest.Pytester, parse: Parse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the ini file turns on, the environment turns off, and the command line on again."""
    plain.makeini("[pytest]\nrpc_require = true\n")
    assert parse().require
    monkeypatch.setenv("PYTEST_TVMRPC_REQUIRE", "0")
    assert not parse().require
    assert parse("--rpc-require").require


def test_environment_of_tvm(parse: Parse, monkeypatch: pytest.MonkeyPatch) -> None:
    """The port has TVM's default, the host may be an IPv6 address, several keys have commas."""
    monkeypatch.setenv("TVM_TRACKER_HOST", "::1")
    monkeypatch.setenv("TVM_TRACKER_KEY", "a, b")
    options = parse()
    assert options.tracker == ("::1", 9190)
    assert options.keys == ("a", "b")


def test_an_empty_tracker_on_the_command_line_means_one_for_the_run(
    plain: pytest.Pytester, parse: Parse
) -> None:
    """What the ini file says about a tracker can be turned off."""
    plain.makeini("[pytest]\nrpc_tracker = farm:9190\n")
    assert parse("--rpc-tracker=").tracker is None


def test_benchmarks_that_may_fail_are_compared(parse: Parse) -> None:
    """--rpc-bench-fail compares with the newest results, unless it is said with which."""
    assert parse().bench_compare is None
    assert parse("--rpc-bench-fail=5%").bench_compare == ""
    assert "bench_compare" not in parse("--rpc-bench-fail=5%").given
    assert parse("--rpc-bench-fail=0.2", "--rpc-bench-compare=main").bench_compare == "main"
    options = parse("--rpc-bench-compare")
    assert (options.bench_compare, options.bench_fail) == ("", None)
    assert "bench_compare" in options.given


def test_paths_are_absolute(
    plain: pytest.Pytester, parse: Parse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From where they are written: in the ini file, or where pytest is called."""
    plain.makeini("[pytest]\nrpc_bench_dir = benchmarks\nrpc_html = out/farm.html\n")
    below = plain.mkdir("below")
    monkeypatch.chdir(below)
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("PYTEST_TVMRPC_MARKDOWN", "~/farm.md")
    options = parse("--rpc-report=run.jsonl")
    assert options.report == str(below / "run.jsonl")
    assert options.markdown == str(Path("/home/ada/farm.md"))
    assert options.html == str(plain.path / "out" / "farm.html")
    assert options.bench_dir == str(plain.path / "benchmarks")
    assert options.artifacts_dir == str(plain.path / "rpc-artifacts")
    absolute = str(plain.path / "elsewhere")
    assert parse(f"--rpc-artifacts-dir={absolute}").artifacts_dir == absolute


# --- advice ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "advice"),
    [
        ("--rpc-tracker=farm:http", "HOST:PORT"),
        ("--rpc-key=", "without blanks, for example --rpc-key=jetson"),
        ("--rpc-key=a\tb", "a key without blanks"),
        ("--rpc-servers=none", "a whole number from 1, for example --rpc-servers=2"),
        ("--rpc-call-timeout=inf", "a number of seconds above 0"),
        ("--rpc-call-timeout=nan", "a number of seconds above 0"),
        ("--rpc-session-timeout=soon", "or 0 for no limit"),
        ("--rpc-priority=nan", "a number, for example --rpc-priority=5"),
        ("--rpc-bench-fail=5 percent", "a part above 0, such as 5% or 0.05"),
        ("--rpc-bench-fail=%", "a part above 0, such as 5% or 0.05"),
        ("--rpc-bench-save= ", "a name without slashes"),
    ],
)
def test_bad_option(run: Run, argument: str, advice: str) -> None:
    """A bad value ends the run before it starts, and the message says what to write."""
    result = run(argument)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {argument.split('=')[0]}:*{advice}*"])


@pytest.mark.parametrize("option", ["--rpc-html", "--rpc-markdown", "--rpc-report"])
def test_a_report_that_cannot_be_written(plain: pytest.Pytester, run: Run, option: str) -> None:
    """That is found out before the first test."""
    plain.makepyfile("def test_local(): raise AssertionError('it ran')")
    (plain.path / "file").write_text("no folder")
    result = run(f"{option}=file/report")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *file/report*"])
    result.stdout.no_fnmatch_line("*it ran*")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("PYTEST_TVMRPC_SERVERS", "x", "*environment PYTEST_TVMRPC_SERVERS: 'x'*whole number*"),
        ("TVM_TRACKER_HOST", "a:b:c", "*environment TVM_TRACKER_HOST*"),
        ("TVM_TRACKER_PORT", "9190", "*TVM_TRACKER_HOST is not set; set both*"),
    ],
)
def test_bad_environment(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    """A bad value from the environment is blamed on its variable."""
    monkeypatch.setenv(name, value)
    if name == "TVM_TRACKER_HOST":
        monkeypatch.setenv("TVM_TRACKER_PORT", "no-port")
    result = run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])


# --- the way to a worker --------------------------------------------------------------------------

FULL = Options(
    tracker=("farm", 9190),
    keys=("b", "a"),
    require=True,
    bench_compare="",
    bench_fail=0.05,
    report="/run.jsonl",
    given=frozenset({"keys", "require"}),
)


@pytest.mark.parametrize("options", [FULL, Options()], ids=["full", "defaults"])
def test_options_travel_to_workers_as_plain_values(options: Options) -> None:
    """What a controller sends is what a worker reads, whatever carries it."""
    assert Options.from_json(options.to_json()) == options
    assert Options.from_json(json.loads(json.dumps(options.to_json()))) == options
    execnet = pytest.importorskip("execnet")
    assert Options.from_json(execnet.loads(execnet.dumps(options.to_json()))) == options


@each_setting
def test_options_that_differ_in_a_field_are_not_equal(setting: Setting) -> None:
    """Each field counts, and so does whether it was given."""
    options = Options()
    value = CASES[setting.field].value
    changed = dataclasses.replace(options, **{setting.field: "/x" if value is PATH else value})
    assert changed != options
    assert dataclasses.replace(options, given=frozenset({setting.field})) != options
    assert hash(dataclasses.replace(changed)) == hash(changed)


def test_options_do_not_change() -> None:
    """They are read once, and the same for all."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        FULL.servers = 2  # type: ignore[misc]


# --- what pytest tells ----------------------------------------------------------------------------


def squeezed(text: str) -> str:
    """Without blanks, line ends and hyphens: where lines are broken depends on the terminal."""
    return re.sub(r"[\s-]+", "", text)


def test_help_teaches_each_setting(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """--help names the option, its ini name and its variable, even if a setting is wrong."""
    monkeypatch.setenv("PYTEST_TVMRPC_SERVERS", "x")
    result = run("--help")
    assert result.ret == 0
    text = squeezed(result.stdout.str())
    assert squeezed("remote devices over TVM RPC (tvmrpc)") in text
    for setting in SETTINGS:
        metavar = f"[{setting.metavar}]" if setting.form == "optional" else setting.metavar
        assert squeezed(f"{setting.flag}={metavar}" if metavar else setting.flag) in text
        words = f"{setting.teaches}; also: ini {setting.name}, environment {setting.environment}"
        assert squeezed(words) in text


def test_a_percent_sign_in_the_help(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """argparse would read it as the beginning of a format."""
    first, *rest = SETTINGS
    odd = first._replace(teaches="leaves 5 % (%s, %(default)s) as they are")
    monkeypatch.setattr(module, "SETTINGS", (odd, *rest))
    result = run("--help")
    assert result.ret == 0
    assert squeezed("leaves 5 % (%s, %(default)s) as they are; also: ini") in squeezed(
        result.stdout.str()
    )


def test_fixtures_have_a_first_line(run: Run) -> None:
    """pytest --fixtures says what each public fixture is, and hides the others."""
    result = run("--fixtures")
    text = result.stdout.str()
    part = text.partition("fixtures defined from pytest_tvmrpc.fixtures")[2]
    shown = dict(re.findall(r"^(\w+)(?: \[.*?\])? -- .*\n +(.*)$", "\n" + part, re.MULTILINE))
    for name, start in {
        "remote": "A session on a remote device that is this test's alone",
        "remotes": "Sessions on several devices of a key at once",
        "remote_device": "A function that leases devices by key",
        "remote_session": "A session that the tests of a module share",
        "rpc_artifacts": "A folder for files of this test",
        "remote_benchmark": "Measures a function on its device",
        "rpc_device_model": "A function that says what kind of device one is",
    }.items():
        assert shown[name].startswith(start), name
    result.stdout.no_fnmatch_line("_rpc*")


def test_markers_are_listed(run: Run) -> None:
    """pytest --markers has ours, so that --strict-markers takes them."""
    result = run("--markers")
    result.stdout.fnmatch_lines(
        [
            "@pytest.mark.rpc_device([*]keys, count=1, priority=None, timeout=None, mode=None): *",
            "@pytest.mark.rpc_timeout(queue=None, connect=None, call=None, session=None): *",
            "@pytest.mark.rpc_reruns(count): *",
        ]
    )
