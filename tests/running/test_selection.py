"""What a test wants, from its marks and the options of the run; without a pytest run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Callable, Mapping, Optional, Sequence, Tuple

import pytest

from pytest_tvmrpc.options import Options
from pytest_tvmrpc.running.selection import (
    chosen_keys,
    keys_of,
    mode_of,
    needs,
    no_key,
    reruns_of,
    uses_devices,
    wish_of,
)

Keys = Tuple[str, ...]


def marker(name: str) -> Callable[..., pytest.Mark]:
    """As ``pytest.mark.NAME``, which --strict-markers refuses where the plugin is not loaded."""
    return lambda *args, **kwargs: pytest.Mark(name, args, kwargs, _ispytest=True)


device, timeout, reruns = marker("rpc_device"), marker("rpc_timeout"), marker("rpc_reruns")
FARM = ("10.0.0.1", 9190)


class Node:
    """A test with marks, as far as a selection looks at it."""

    def __init__(self, *marks: pytest.Mark, **attributes: Any) -> None:
        self.nodeid = "test_conv.py::test_conv"
        self._marks = {one.name: one for one in marks}
        self.__dict__.update(attributes)

    def get_closest_marker(self, name: str) -> Optional[pytest.Mark]:
        return self._marks.get(name)


def item(*marks: pytest.Mark, **attributes: Any) -> Any:
    return Node(*marks, **attributes)


def run(*keys: str, tracker: bool = False, **fields: Any) -> Options:
    """The options of a run that was asked for these keys, or was not told of any."""
    given = frozenset({"keys"} if keys else ())
    chosen = {"keys": keys} if keys else {}
    return Options(**chosen, tracker=FARM if tracker else None, given=given, **fields)


@pytest.mark.parametrize(
    ("marked", "options", "expected"),
    [
        # without a mark: what the run has
        ((), run(), ("local",)),
        ((), run("b", "a"), ("b", "a")),
        ((), run(tracker=True), ("local",)),
        ((), run("b", "a", tracker=True), ("b", "a")),
        # with one: what both have, in the order of the run
        (("a",), run("a", "b"), ("a",)),
        (("a", "b"), run("b", "a"), ("b", "a")),
        (("c", "b", "a"), run("a", "b"), ("a", "b")),
        (("c",), run("a", "b"), ()),
        (("c",), run("a", tracker=True), ()),
        (("c", "a"), run("a", "b", tracker=True), ("a",)),
        # no key was asked for: on somebody's farm the mark decides, in its order
        (("c", "a"), run(tracker=True), ("c", "a")),
        (("c",), run(), ()),
        (("c", "local"), run(), ("local",)),
        # a repetition is none
        (("c", "c"), run(tracker=True), ("c",)),
    ],
)
def test_the_keys_of_a_test(marked: Keys, options: Options, expected: Keys) -> None:
    """Mark, run and farm, in all combinations."""
    node = item(device(*marked)) if marked else item()
    assert keys_of(node, options) == expected
    assert keys_of(item(device(*marked, count=2)), options) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (run("a", "b"), "this test is for c or d, this run has a, b; run it with --rpc-key=c, *"),
        (run(), "*this run has local; * for a local server, or name a tracker that has c"),
        (run("a", tracker=True), "*this run has a; run it with --rpc-key=c"),
    ],
)
def test_why_a_test_has_no_key(options: Options, expected: str) -> None:
    """The reason has both sides, and what to do."""
    reason = no_key(item(device("c", "d")), options)
    pytest.LineMatcher([reason]).fnmatch_lines([expected])


@pytest.mark.parametrize(
    ("marks", "mode", "expected"),
    [
        ((), "each", "each"),
        ((), "any", "any"),
        ((device("a"),), "any", "any"),
        ((device("a", mode="any"),), "each", "any"),
        ((device(mode="each"),), "any", "each"),
    ],
)
def test_mode(marks: Sequence[pytest.Mark], mode: str, expected: str) -> None:
    """The mark's, else that of the run."""
    assert mode_of(item(*marks), Options(mode=mode)) == expected


@pytest.mark.parametrize(
    ("node", "options", "expected"),
    [
        (item(), run("a", "b"), ("a",)),
        (item(), run("a", "b", mode="any"), ("a", "b")),
        (item(device(mode="any")), run("a", "b"), ("a", "b")),
        (item(device("b", "a", mode="each")), run("a", "b", mode="any"), ("a",)),
        (item(device("c")), run("a", "b"), ()),
        (item(callspec=SimpleNamespace(params={"_rpc_key": "b"})), run("a", "b"), ("b",)),
        (item(callspec=SimpleNamespace(params={"_rpc_wide_key": "b"})), run("a", "b"), ("b",)),
        (item(callspec=SimpleNamespace(params={"x": 1})), run("a", "b"), ("a",)),
    ],
)
def test_the_keys_of_which_any_will_do(node: Any, options: Options, expected: Keys) -> None:
    """The one that the test is parametrised with, all in mode 'any', else the first."""
    assert chosen_keys(node, options) == expected


def test_what_the_scheduler_is_told() -> None:
    """The keys of each test that has a fixture of ours; local tests are not there."""
    several = item(device("b"), fixturenames=["tmp_path", "_rpc_leases"])
    wide = item(device(mode="any"), fixturenames=["remote_session"])
    wide.nodeid = "test_conv.py::test_wide"
    local = item(fixturenames=["tmp_path"])
    local.nodeid = "test_conv.py::test_local"
    doctest = item()  # has no fixtures at all
    assert [uses_devices(one) for one in (several, wide, local, doctest)] == [True, True, 0, 0]
    assert needs([several, wide, local, doctest], run("a", "b")) == {
        "test_conv.py::test_conv": ["b"],
        "test_conv.py::test_wide": ["a", "b"],
    }


OPTIONS = Options(
    priority=2, queue_timeout_s=60, connect_timeout_s=10, call_timeout_s=600, reruns=1
)


@pytest.mark.parametrize(
    ("marks", "changed"),
    [
        ((), {}),
        ((device(count=3),), {"count": 3}),
        ((device(priority=-1.5),), {"priority": -1.5}),
        ((device(priority=0),), {"priority": 0}),
        ((device(timeout=5),), {"queue_s": 5}),
        ((device(timeout=5), timeout(queue=7)), {"queue_s": 7}),
        (
            (timeout(connect=1, call=2.5, session=3),),
            {"connect_s": 1, "call_s": 2.5, "session_s": 3},
        ),
        ((timeout(),), {}),
        ((reruns(0),), {"reruns": 0}),
        ((reruns(3),), {"reruns": 3}),
        ((reruns(count=3),), {"reruns": 3}),
    ],
)
def test_a_wish(marks: Sequence[pytest.Mark], changed: Mapping[str, Any]) -> None:
    """The marks of a test count more than the options of the run, each for itself."""
    wish = wish_of(item(), OPTIONS, ["a"])
    assert wish == (("a",), 1, 2, 60, 10, 600, 0, 1)
    assert wish_of(item(*marks), OPTIONS, ["a"]) == wish._replace(**changed)


@pytest.mark.parametrize(
    ("mark", "given"),
    [
        (device("a b"), "rpc_device('a b')"),
        (device(""), "rpc_device('')"),
        (device(5), "rpc_device(5)"),
        (device(["a", "b"]), "rpc_device(['a', 'b'])"),
        (device("a", where="x"), "rpc_device('a', where='x')"),
        (device(keys="a"), "rpc_device(keys='a')"),
        (device(count=0), "rpc_device(count=0)"),
        (device(count="2"), "rpc_device(count='2')"),
        (device(count=1.5), "rpc_device(count=1.5)"),
        (device(priority="high"), "rpc_device(priority='high')"),
        (device(priority=float("nan")), "rpc_device(priority=nan)"),
        (device(timeout=0), "rpc_device(timeout=0)"),
        (device(timeout=-1), "rpc_device(timeout=-1)"),
        (device(timeout=float("inf")), "rpc_device(timeout=inf)"),
        (device(mode="all"), "rpc_device(mode='all')"),
        (timeout(5), "rpc_timeout(5)"),
        (timeout(call=0), "rpc_timeout(call=0)"),
        (timeout(call="5"), "rpc_timeout(call='5')"),
        (timeout(call=None), "rpc_timeout(call=None)"),
        (timeout(calls=1), "rpc_timeout(calls=1)"),
        (reruns(), "rpc_reruns()"),
        (reruns(-1), "rpc_reruns(-1)"),
        (reruns(1.5), "rpc_reruns(1.5)"),
        (reruns("2"), "rpc_reruns('2')"),
        (reruns(times=2), "rpc_reruns(times=2)"),
        (reruns(1, 2), "rpc_reruns(1, 2)"),
        (reruns(1, count=2), "rpc_reruns(1, count=2)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mark_that_cannot_be_used(mark: pytest.Mark, given: str) -> None:
    """The message names the test and the mark as it stands there, and has an example that works."""
    with pytest.raises(pytest.UsageError) as caught:
        wish_of(item(mark), OPTIONS, keys_of(item(mark), OPTIONS))
    message = str(caught.value)
    assert message.startswith(
        f"test_conv.py::test_conv: the mark {given} cannot be used; expected "
    )
    example = message.partition("for example @")[2]
    names = SimpleNamespace(rpc_device=device, rpc_timeout=timeout, rpc_reruns=reruns)
    better = eval(example, {"pytest": SimpleNamespace(mark=names)})
    assert better.name == mark.name
    wish_of(item(better), OPTIONS, keys_of(item(better), OPTIONS))


def test_reruns_of_the_run() -> None:
    """Without a mark it is the option."""
    assert reruns_of(item(), Options(reruns=4)) == 4
