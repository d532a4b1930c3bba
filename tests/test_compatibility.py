"""docs/compatibility.md against the code: names, parameters, defaults, and the tests that it names.

The second half is what no other test shows.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import importlib.util
import inspect
import re
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, FrozenSet, List

import numpy as np
import pytest

from pytest_tvmrpc import rpc, runtime
from pytest_tvmrpc.errors import ConnectError, DeadlineError, RPCError, StartError
from pytest_tvmrpc.session.environment import Environment

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")


def _reader() -> ModuleType:
    """What reads the page: harness/ is not installed, and on no path of the suite."""
    path = ROOT / "harness" / "interop" / "compatibility.py"
    spec = importlib.util.spec_from_file_location("compatibility_page", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


READER = _reader()
PAGE = READER.tables(TEXT)
PARAMETERS: Dict[str, List[Any]] = READER.parameters(PAGE)
METHODS: Dict[str, List[Any]] = READER.methods(PAGE)
MEMBERS: Dict[str, List[Any]] = READER.members(PAGE)

DOCUMENTED = {
    "Server": "host port port_end is_proxy tracker_addr key load_library custom_addr silent "
    "no_fork server_init_callback reuse_addr timeout",
    "connect": "url port key session_timeout session_constructor_args enable_logging",
    "connect_tracker": "url port",
    "PopenSession": "binary",
    "with_minrpc": "compile_func server",
    "TrackerSession": "addr",
    "TrackerSession.request": "key priority session_timeout max_retry session_constructor_args",
    "TrackerSession.request_and_run": "key func priority session_timeout max_retry",
    "Tracker": "host port port_end silent reuse_addr timeout",
    "Proxy": "host port port_end web_port timeout_client timeout_server tracker_addr index_page "
    "resource_files",
}
"""TVM's parameters, in its order."""

DOCUMENTED_METHODS = {
    "Server": "terminate",
    "RPCSession": "system_lib get_function device upload download remove listdir load_module "
    "download_linked_module cpu cuda cl vulkan metal rocm ext_dev hexagon webgpu",
    "TrackerSession": "close summary text_summary",
    "Tracker": "terminate",
    "Proxy": "terminate",
}
"""TVM's methods; those that take many parameters are above."""

NOT_FOR_USERS = {
    *("abandon", "call", "call_server", "limited", "is_idle", "lease", "offered", "received"),
    *("release", "sent"),
}
"""Public for other parts of the package only."""


DOCUMENTED_RUNTIME = {
    "": "PackedFunc Object ObjectPath ObjectPathPair ObjectGeneric DataType DataTypeCode Device "
    "Module Report String ShapeTuple num_threads convert_to_object convert const device cpu cuda "
    "gpu opencl cl vulkan metal mtl vpi rocm ext_dev load_module enabled system_lib "
    "load_static_library save_param_dict load_param_dict",
    "Device": "exist max_threads_per_block warp_size max_shared_memory_per_block compute_version "
    "device_name max_clock_rate multi_processor_count max_thread_dimensions api_version "
    "driver_version texture_spatial_limit create_raw_stream free_raw_stream set_raw_stream sync",
    "Module": "entry_func type_key format imported_modules is_dso_exportable implements_function "
    "get_function import_module get_source save time_evaluator export_library",
    "ObjectGeneric": "asobject",
    "Report": "calls device_metrics csv table json from_json",
}
"""What the page of ``tvm.runtime`` in TVM 0.13 has: names, and members of classes."""

NOT_FOR_RUNTIME_USERS = {
    "Device": {"api"},
    "Module": {
        "describe",
        "find_function",
        "has_own",
        "host_device",
        "make_evaluator",
        "make_timed",
        "properties",
    },
    "PackedFunc": {"function"},
    "Tensor": {
        *("argument", "byte_offset", "data_type", "dltensor", "memory", "part", "record", "word"),
    },
}
"""Public for other parts of the package only."""


def table(section: str) -> Any:
    """The one table under a heading."""
    (found,) = [found for found in PAGE if found.section == section]
    return found


def resolve(name: str) -> Any:
    """What a name of `rpc` stands for."""
    return functools.reduce(getattr, name.split("."), rpc)


# The page


def test_every_table_is_read() -> None:
    """Rows have as many cells as their header, and no table is empty."""
    assert len(PAGE) > 15
    for found in PAGE:
        assert found.rows, found.header
        for row in found.rows:
            assert len(row.cells) == len(found.header), f"line {row.line}"


def test_no_row_is_there_twice() -> None:
    """Within a table each row is about something else."""
    twice = []
    for found in PAGE:
        names = [row.cells[0] for row in found.rows]
        twice += [row.line for row in found.rows if names.count(row.cells[0]) > 1]
    assert twice == []


def test_rows_stand_alone() -> None:
    """None refers to another one by its place: a row that is added comes between them."""
    lines = [
        row.line
        for found in PAGE
        for row in found.rows
        if re.search(r"\b(the (one|row|same) (before|above|below)|as above)\b", " ".join(row.cells))
    ]
    assert lines == []


def test_every_row_names_a_test() -> None:
    """Whatever is claimed has a test that shows it."""
    bare = [row.line for found in PAGE for row in found.rows if not READER.tests(row.cells[-1])]
    assert bare == []


@functools.lru_cache(maxsize=None)
def functions_of(path: str) -> FrozenSet[str]:
    """The functions of a file of tests."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("page", ["compatibility.md", "dialects.md"])
def test_every_test_is_there(page: str) -> None:
    """Each test that a page names exists."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    named = READER.tests(text)
    missing = [
        f"{path}::{name}"
        for path, name in sorted(set(named))
        if not (ROOT / path).is_file() or name not in functions_of(path)
    ]
    assert not missing, "\n".join(missing)
    assert text.count("::test_") == len(named), "some names are not in the form of the others"


def test_the_names() -> None:
    """Each is importable from `rpc`, or the page says that it is not here."""
    names, files = [found.rows for found in PAGE if found.section == "Names"]
    listed = {"RemoteError"}
    for row in files:
        for code in row.cells[0].split(", "):
            name = code.strip("`").rpartition(".")[2]
            if row.cells[1] == "not here":
                assert not hasattr(rpc, name)
            else:
                listed.add(name)
                assert row.cells[1] == ", ".join(f"`{one}`" for one in getattr(rpc, name).__all__)
    for row in names:
        here = row.cells[1]
        if here == "not here":
            assert not hasattr(rpc, row.name.rpartition(".")[2]), row.name
        else:
            name = READER.first_code(here).partition(".")[2]
            assert getattr(rpc, name).__name__ == name
            listed.add(name)
    assert listed == set(rpc.__all__)


def test_all_that_tvm_documents_is_listed() -> None:
    """No parameter and no method of TVM's is missing, and they stand in its order."""
    for name, expected in DOCUMENTED.items():
        assert [a.name for a in PARAMETERS[name] if not a.is_ours] == expected.split()
    assert set(PARAMETERS) == set(DOCUMENTED)
    for name, expected in DOCUMENTED_METHODS.items():
        rows = [row for row in METHODS[name] if not row.is_ours and "(" in row.name]
        assert [row.name.partition("(")[0] for row in rows] == expected.split()
    assert set(METHODS) == set(DOCUMENTED_METHODS)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_parameters(name: str) -> None:
    """Ours are those of the table, with its defaults; TVM's may be given by their position."""
    actual = dict(inspect.signature(resolve(name)).parameters)
    actual.pop("self", None)
    assert list(actual) == [argument.name for argument in PARAMETERS[name]]
    for argument in PARAMETERS[name]:
        found = actual[argument.name]
        assert found.default == argument.default, argument.name
        assert type(found.default) is type(argument.default), argument.name
        if not argument.is_ours:
            assert found.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD, argument.name


@pytest.mark.parametrize("name", DOCUMENTED_METHODS)
def test_methods(name: str) -> None:
    """Each is there with the parameters of the table, and no public one is left out."""
    owner = resolve(name)
    listed = {parameters.rpartition(".")[2] for parameters in PARAMETERS if "." in parameters}
    listed &= set(vars(owner))
    for row in METHODS[name]:
        form = row.name
        member = form.partition("(")[0]
        listed.add(member)
        if "(" not in form:
            assert isinstance(inspect.getattr_static(owner, member), property), form
            continue
        actual = dict(inspect.signature(getattr(owner, member)).parameters)
        del actual["self"]
        assert {key: value.default for key, value in actual.items()} == READER.signature(form)
        assert list(actual) == list(READER.signature(form))
    public = {member for member in dir(owner) if not member.startswith("_")}
    assert public - NOT_FOR_USERS == listed


def test_the_numbers() -> None:
    """Those of tvm.rpc.base, under the names of the table."""
    for row in table("tvm.rpc.base").rows:
        value, here = row.cells[1], row.cells[2]
        if here.startswith("not here"):
            assert not hasattr(rpc.base, row.name), row.name
        elif value.startswith("`"):
            assert getattr(rpc.base, READER.first_code(here)) == int(value.strip("`"), 0), row.name
        else:
            first, last = (int(number) for number in value.split(" to "))
            assert list(rpc.base.TrackerCode) == list(range(first, last + 1))


def test_the_programs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has TVM's options."""
    monkeypatch.setenv("COLUMNS", "200")
    assert [row.name for row in table("Programs").rows] == [
        *("rpc_tracker", "rpc_server", "rpc_proxy", "query_rpc_tracker")
    ]
    for row in table("Programs").rows:
        program = importlib.import_module(f"pytest_tvmrpc.exec.{row.name}")
        with pytest.raises(SystemExit) as ended:
            program.main(["--help"])
        assert ended.value.code == 0
        words = capsys.readouterr().out.split()
        for option in row.cells[1].split(", "):
            assert option.strip("`") in words, (row.name, option)


def test_the_functions_of_a_server(tmp_path: Path) -> None:
    """A session has each of them, and none that the table does not name."""
    environment = Environment(str(tmp_path))
    named = {row.name for row in table("What every server has").rows}
    assert all(environment.find(name) for name in named)
    ours = set(re.findall(r"`(tvmrpc\.server\.\w+)\(", TEXT))
    others = set(environment.functions) - named - ours
    assert all(name.startswith("testing.") for name in others), others


# The page, about tvm.runtime

NAMES = [*table("Runtime functions").rows, *table("Runtime classes").rows]


def test_the_names_of_runtime() -> None:
    """Each is importable from `runtime`, with the parameters of its row; none is left out."""
    listed = {"nd", "profiling"}
    for row in NAMES:
        here = READER.first_code(row.cells[1])
        name = here.partition("(")[0]
        listed.add(name)
        found = getattr(runtime, name)
        assert READER.form_of(name, found) == READER.normal(here) or here == name, here
    assert listed == set(runtime.__all__)


@pytest.mark.parametrize("name", MEMBERS)
def test_the_members_of_a_class(name: str) -> None:
    """Each is there with the parameters of its row; no public one is left out."""
    owner = getattr(runtime, name)
    listed = set()
    for row in MEMBERS[name]:
        member = row.name.partition("(")[0]
        listed.add(member)
        assert READER.form_of(member, getattr(owner, member)) == READER.normal(row.name)
    assert set(READER.public_members(owner)) - NOT_FOR_RUNTIME_USERS.get(name, set()) == listed


def _text_of(path: str, name: str) -> str:
    """A test with its decorators, and the tables of its file that it names."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    text = ast.unparse(functions[name])
    tables = [
        ast.unparse(node)
        for node in tree.body
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name) and re.search(rf"\b{target.id}\b", text)
    ]
    return "\n".join([text, *tables])


@pytest.mark.parametrize("owner", ["", *MEMBERS])
def test_the_tests_call_what_they_are_about(owner: str) -> None:
    """The test of a row uses the name of the row: one that is only there does not count."""
    unused = []
    for row in MEMBERS[owner] if owner else NAMES:
        name = row.name.rpartition(".")[2].partition("(")[0]
        texts = [_text_of(path, test) for path, test in READER.tests(row.cells[-1])]
        if not any(re.search(rf"\b{name}\b", text) for text in texts):
            unused.append(f"line {row.line}: {row.cells[-1]} does not use {name}")
    assert not unused, "\n".join(unused)


def test_all_that_the_page_of_runtime_documents() -> None:
    """Each name has a row, and so has each member of a class."""
    listed = {row.name.rpartition(".")[2] for row in NAMES}
    for owner, rows in MEMBERS.items():
        listed |= {f"{owner}.{row.name.partition('(')[0]}" for row in rows}
    for owner, names in DOCUMENTED_RUNTIME.items():
        prefix = f"{owner}." if owner else ""
        assert {prefix + name for name in names.split()} <= listed


def test_steps() -> None:
    """Each step of each dialect says what was run."""
    steps = [row.cells[0] for row in table("Versions").rows]
    assert steps == ["L1", "L2", "L3", "L4", "N1", "N2", "N3", "N4"]
    dialects = (ROOT / "docs" / "dialects.md").read_text(encoding="utf-8")
    assert all(f"| {step} | " in dialects for step in steps)


# What no other test shows


@pytest.mark.parametrize("name", ["websocket_proxy_server"])
def test_what_is_not_here(name: str) -> None:
    """Asking for it is an AttributeError that says the name."""
    with pytest.raises(AttributeError, match=name):
        getattr(rpc, name)


KINDS = {
    "cpu": 1,
    "cuda": 2,
    "cl": 4,
    "vulkan": 7,
    "metal": 8,
    "rocm": 10,
    "ext_dev": 12,
    "hexagon": 16,
    "webgpu": 15,
}


@pytest.mark.parametrize("name", KINDS)
def test_numbers_of_devices(name: str) -> None:
    """Each kind of device has its method, and TVM's number; the first one is the default."""
    with rpc.LocalSession() as session:
        device = getattr(session, name)()
        assert (device.dlpack_device_type(), device.index) == (KINDS[name], 0)
        assert getattr(session, name)(dev_id=2) == session.device(dev_type=KINDS[name], dev_id=2)


def test_forty_sessions_at_once() -> None:
    """There is no table of 32 for them, and each has its own directory and memory."""
    sessions = [rpc.LocalSession() for _ in range(40)]
    try:
        for number, session in enumerate(sessions):
            session.upload(bytearray(str(number).encode()), "name")
        tensors = [
            runtime.tensor(np.full(3, number), session.cpu(0))
            for number, session in enumerate(sessions)
        ]
        for number, session in enumerate(sessions):
            assert session.download("name") == str(number).encode()
            assert tensors[number].numpy().tolist() == [number] * 3
    finally:
        for session in sessions:
            session.close()


def test_connect_timeout() -> None:
    """Who does not even accept is given up at the limit, which the error names."""
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):  # the kernel ignores who comes when the queue is full
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        with pytest.raises(DeadlineError, match=r"longer than 0\.2 s; set connect_timeout"):
            rpc.connect(*full.getsockname(), connect_timeout=0.2)


@pytest.mark.parametrize("host", ["127.0.0.2", "::1"])
def test_a_tracker_at_another_address_ends(host: str) -> None:
    """``terminate`` ends it wherever it listens, and its port is free."""
    try:
        tracker = rpc.Tracker(host=host, port=0, silent=True)
    except StartError as error:
        pytest.skip(f"this machine has no {host}: {error}")
    with rpc.connect_tracker(host, tracker.port) as farm:
        assert farm.summary()["server_info"] == []
    tracker.terminate()
    assert not tracker.proc.alive
    with pytest.raises(ConnectError):
        rpc.connect_tracker(host, tracker.port)


@pytest.fixture(name="tracker", scope="module")
def _tracker() -> Any:
    """A tracker for the module."""
    with rpc.Tracker(port=0, silent=True) as tracker:
        yield tracker


def test_custom_addr(tracker: rpc.Tracker) -> None:
    """What clients are told of a server is the address that it was given for them."""
    with rpc.Server(
        port=0,
        tracker_addr=(tracker.host, tracker.port),
        key="custom",
        custom_addr="localhost",
        silent=True,
    ) as server, rpc.connect_tracker(tracker.host, tracker.port) as farm:
        (entry,) = [e for e in farm.summary()["server_info"] if e["key"] == "server:custom"]
        assert entry["addr"] == ["localhost", server.port]
        with farm.request("custom") as remote:
            assert remote.peer == ("localhost", server.port)
            assert remote.get_function("rpc.test.addone")(1) == 2


def test_silent(tmp_path: Path) -> None:
    """With it a server and a tracker print nothing of a session; without it they do."""
    printed = {}
    for silent in (False, True):
        path = tmp_path / str(silent)
        with path.open("w") as log, rpc.Tracker(port=0, silent=silent, log=log) as tracker:
            address = (tracker.host, tracker.port)
            with rpc.Server(
                port=0, tracker_addr=address, key="k", silent=silent, log=log
            ), rpc.connect_tracker(*address) as farm, farm.request("k") as remote:
                assert remote.get_function("rpc.test.addone")(1) == 2
        printed[silent] = path.read_text()
    assert printed[True] == ""
    assert printed[False].count("bind to 127.0.0.1:") == 2


@pytest.fixture(name="board", scope="module")
def _board(tracker: rpc.Tracker) -> Any:
    """The address of the tracker, which has one server with the key ``board``."""
    address = (tracker.host, tracker.port)
    with rpc.Server(port=0, tracker_addr=address, key="board", silent=True):
        yield address


def test_priority(board: Any, wait_until: Callable[..., None], deadline_s: float) -> None:
    """Of those who wait, the one with the highest number has the next turn."""
    turns: List[float] = []

    def ask(priority: float) -> None:
        with rpc.connect_tracker(*board) as farm, farm.request("board", priority=priority):
            turns.append(priority)

    with rpc.connect_tracker(*board) as farm:
        threads = []
        with farm.request("board"):
            for waiting, priority in enumerate((1, 5, 3), 1):
                threads.append(threading.Thread(target=ask, args=(priority,)))
                threads[-1].start()
                wait_until(
                    lambda n=waiting: farm.summary()["queue_info"]["board"]["pending"] == n,
                    "a request that waits",
                )
        for thread in threads:
            thread.join(deadline_s)
    assert turns == [5, 3, 1]


def test_a_constructor_on_a_requested_server(board: Any) -> None:
    """``session_constructor_args`` reaches the server that was granted."""
    with rpc.connect_tracker(*board) as farm:
        with farm.request("board", session_constructor_args=["rpc.LocalSession"]) as remote:
            assert remote.get_function("rpc.test.addone")(1) == 2
        with pytest.raises(RPCError, match=r"rpc\.Nope"):
            farm.request("board", session_constructor_args=["rpc.Nope"])


def test_what_request_and_run_passes_on(board: Any) -> None:
    """Time limit and constructor are those of the request."""

    def overstay(remote: rpc.RPCSession) -> None:
        remote.get_function("testing.sleep")(60)

    with rpc.connect_tracker(*board) as farm:
        with pytest.raises(rpc.RPCSessionTimeoutError, match="session_timeout"):
            farm.request_and_run("board", overstay, session_timeout=0.3)
        with pytest.raises(RPCError, match=r"rpc\.Nope"):
            farm.request_and_run("board", overstay, session_constructor_args=["rpc.Nope"])
        assert farm.request_and_run("board", lambda remote: remote.closed, 2, 0.0, 1) is False


def test_the_priority_of_request_and_run(
    board: Any, wait_until: Callable[..., None], deadline_s: float
) -> None:
    """It is that of the request that waits."""
    results: List[int] = []

    def run() -> None:
        with rpc.connect_tracker(*board) as own:
            function = "rpc.test.addone"
            results.append(
                own.request_and_run("board", lambda remote: remote.get_function(function)(1), 7)
            )

    thread = threading.Thread(target=run)
    with rpc.connect_tracker(*board) as farm:
        with farm.request("board"):
            thread.start()
            wait_until(lambda: farm.who().waiting, "a request that waits")
            assert [waiting.priority for waiting in farm.who().waiting] == [7]
        thread.join(deadline_s)
    assert results == [2]
