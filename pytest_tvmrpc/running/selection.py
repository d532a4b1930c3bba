"""What a test wants: its keys, limits and reruns, from its marks and the options of the run.

Asks no tracker: whether there are such devices is found out when the test runs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Iterable, NamedTuple, Sequence

import pytest

from ..settings import read_keys

if TYPE_CHECKING:
    from _pytest.nodes import Node

    from ..options import Options

KEY_FIXTURES = ("_rpc_key", "_rpc_wide_key")
"""The fixtures that hold a test's key; the second one has the scope of `remote_session`."""

USERS = ("_rpc_leases", "remote_session")
"""A test that has one of these fixtures may ask for a device."""

MARKERS = (
    "rpc_device(*keys, count=1, priority=None, timeout=None, mode=None): device keys that the test "
    "is for, how many devices the fixture 'remotes' has, the place in the queue, seconds to wait "
    "there, and 'each' or 'any' of the keys",
    "rpc_timeout(queue=None, connect=None, call=None, session=None): limits of this test in "
    "seconds, instead of those of the options",
    "rpc_reruns(count): how often this test is run again if its device drops out",
)


class Wish(NamedTuple):
    """What a test asks of the farm.

    Fields: `keys`, of which any will do; `count`, how many devices at once; `priority` in the
    queue; the limits of the waits, in seconds; `reruns` after a device dropped out.
    """

    keys: tuple[str, ...]
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs here
    priority: float
    queue_s: float
    connect_s: float
    call_s: float
    session_s: float
    reruns: int


class _DeviceMark(NamedTuple):
    keys: tuple[str, ...] = ()
    count: int = 1  # type: ignore[assignment]
    priority: float | None = None
    timeout: float | None = None
    mode: str | None = None


_LIMITS = ("queue", "connect", "call", "session")


def wish_of(item: Node, options: Options, keys: Sequence[str]) -> Wish:
    """What a test asks for; its marks count more than the options.

    Args:
        keys: as `keys_of` has them, or the one that the test is parametrised with.
    """
    mark, limits = _device_mark(item), _limits(item)
    queue_s = options.queue_timeout_s if mark.timeout is None else mark.timeout
    return Wish(
        tuple(keys),
        mark.count,
        options.priority if mark.priority is None else mark.priority,
        limits.get("queue", queue_s),
        limits.get("connect", options.connect_timeout_s),
        limits.get("call", options.call_timeout_s),
        limits.get("session", options.session_timeout_s),
        reruns_of(item, options),
    )


def reruns_of(item: Node, options: Options) -> int:
    """How often a test may be run again."""
    mark = item.get_closest_marker("rpc_reruns")
    if mark is None:
        return options.reruns
    values = [*mark.args, *mark.kwargs.values()]
    is_count = len(values) == 1 and isinstance(values[0], int) and values[0] >= 0
    if not is_count or set(mark.kwargs) - {"count"}:
        raise _usage(item, "rpc_reruns", mark, "a whole number from 0", "rpc_reruns(2)")
    return int(values[0])


def keys_of(item: Node, options: Options) -> tuple[str, ...]:
    """The keys that a test runs on; empty if this run has none of those it is for.

    Keys that were asked for on the command line, in the environment or in the ini file choose
    among those of the mark. Without them, the mark decides where the tracker is somebody's farm.
    """
    marked = _device_mark(item).keys
    if not marked:
        return options.keys
    if "keys" not in options.given and options.tracker is not None:
        return marked
    return tuple(key for key in options.keys if key in marked)


def mode_of(item: Node, options: Options) -> str:
    """Whether a test runs on ``each`` of its keys, or on ``any``."""
    return _device_mark(item).mode or options.mode


def no_key(item: Node, options: Options) -> str:
    """Why a test for which `keys_of` is empty cannot run."""
    marked = _device_mark(item).keys
    if keys_of(item, options):
        return f"this test is for {' or '.join(marked)}, not for {parametrised_key(item)}"
    first = marked[0]
    instead = "" if options.tracker else f", for a local server, or name a tracker that has {first}"
    return (
        f"this test is for {' or '.join(marked)}, this run has {', '.join(options.keys)}; "
        f"run it with --rpc-key={first}{instead}"
    )


def parametrise(metafunc: pytest.Metafunc, options: Options) -> None:
    """Make a test for each of its keys, with the same names in every process.

    Raises:
        pytest.Collector.CollectError: a mark of the test is wrong; the message says what to write.
    """
    item = metafunc.definition
    try:
        keys = keys_of(item, options)
        wish_of(item, options, keys)  # marks are checked where the test is collected
    except pytest.UsageError as error:
        raise pytest.Collector.CollectError(str(error)) from None  # is shown without a traceback
    if mode_of(item, options) == "any" or len(keys) < 2:
        return
    names = [name for name in KEY_FIXTURES if name in metafunc.fixturenames]
    if not names:  # it asks for its devices by key
        return
    # Together, if the test has both: it runs once for each key, and all its devices are of that.
    scope: Any = options.session_scope if "_rpc_wide_key" in names else "function"
    values = [(key,) * len(names) for key in keys]
    metafunc.parametrize(names, values, indirect=True, ids=keys, scope=scope)


def refuse_wrong(items: list[pytest.Item], options: Options) -> None:
    """Make errors of the collection of tests with wrong marks that `parametrise` did not see.

    They stand at a ``pytest.param``, or were added by a hook.

    Args:
        items: the tests that were collected; the wrong ones are taken out.
    """
    wrong: dict[pytest.Item, str] = {}
    for item in filter(uses_devices, items):
        try:
            wish_of(item, options, ())
        except pytest.UsageError as error:
            wrong[item] = str(error)
    items[:] = [item for item in items if item not in wrong]
    for item, message in wrong.items():
        report = pytest.CollectReport(item.nodeid, "failed", message, [])
        item.ihook.pytest_collectreport(report=report)


def needs(items: Iterable[pytest.Item], options: Options) -> dict[str, list[str]]:
    """The keys of each test that may ask for a device, for the scheduler; by node id."""
    found = {}
    for item in items:
        if uses_devices(item):
            found[item.nodeid] = list(chosen_keys(item, options))
    return found


def uses_devices(item: pytest.Item) -> bool:
    """Whether a test has a fixture of ours."""
    names: Sequence[str] = getattr(item, "fixturenames", ())
    leases, session = USERS
    return leases in names or session in names  # each local test pays for this


def parametrised_key(item: Node) -> str:
    """The key that a test is parametrised with; empty if it is not."""
    callspec = getattr(item, "callspec", None)
    params = callspec.params if callspec is not None else {}
    return next((str(params[name]) for name in KEY_FIXTURES if name in params), "")


def chosen_keys(item: pytest.Item, options: Options) -> tuple[str, ...]:
    """The key that a test is parametrised with, or the keys of which any will do.

    Empty if it is for none of these: a mark at a ``pytest.param`` is seen here for the first time.
    """
    keys = keys_of(item, options)
    chosen = parametrised_key(item)
    if chosen:
        return (chosen,) if chosen in keys else ()
    return keys if mode_of(item, options) == "any" else keys[:1]


def _device_mark(item: Node) -> _DeviceMark:
    mark = item.get_closest_marker("rpc_device")
    if mark is None:
        return _DeviceMark()
    example = 'rpc_device("jetson", count=1, priority=1, timeout=60, mode="each")'
    try:
        keys = read_keys(mark.args)
        rest = _DeviceMark(keys, **mark.kwargs)
    except (TypeError, ValueError):
        raise _usage(item, "rpc_device", mark, "keys, and options by name", example) from None
    numbers = (rest.priority, rest.timeout)
    is_right = (
        isinstance(rest.count, int)
        and rest.count >= 1
        and all(number is None or _is_finite(number) for number in numbers)
        and (rest.timeout is None or rest.timeout > 0)
        and rest.mode in (None, "each", "any")
    )
    if not is_right:
        expected = "count from 1, priority and timeout as numbers, mode 'each' or 'any'"
        raise _usage(item, "rpc_device", mark, expected, example)
    return rest


def _limits(item: Node) -> dict[str, float]:
    mark = item.get_closest_marker("rpc_timeout")
    if mark is None:
        return {}
    is_right = (
        not mark.args
        and set(mark.kwargs) <= set(_LIMITS)
        and all(_is_finite(limit) and limit > 0 for limit in mark.kwargs.values())
    )
    if not is_right:
        expected = f"seconds above 0 for {', '.join(_LIMITS)}"
        raise _usage(item, "rpc_timeout", mark, expected, "rpc_timeout(call=5)")
    return {name: float(limit) for name, limit in mark.kwargs.items()}


def _is_finite(number: object) -> bool:
    return isinstance(number, (int, float)) and math.isfinite(number)


def _usage(item: Node, name: str, mark: pytest.Mark, expected: str, example: str) -> Exception:
    given = ", ".join([*map(repr, mark.args), *(f"{k}={v!r}" for k, v in mark.kwargs.items())])
    return pytest.UsageError(
        f"{item.nodeid}: the mark {name}({given}) cannot be used; expected {expected}, "
        f"for example @pytest.mark.{example}"
    )
