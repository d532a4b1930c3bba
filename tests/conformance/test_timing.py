"""Measuring on the server: how often a function is called, what is refused, what comes back."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import pytest

from pytest_tvmrpc import rpc, runtime
from pytest_tvmrpc.errors import RemoteError

if TYPE_CHECKING:
    from .kinds import Kind


@pytest.mark.parametrize(("number", "repeat"), [(1, 1), (7, 1), (3, 4), (1000, 3)])
def test_counts(remote: rpc.RPCSession, module: Any, number: int, repeat: int) -> None:
    """One call before, then `number` calls for each of `repeat` results."""
    evaluate = module.time_evaluator("count", remote.cpu(0), number=number, repeat=repeat)
    result = evaluate()
    assert module["calls"]() == 1 + number * repeat
    assert len(result.results) == repeat
    assert all(0 <= seconds < 1 for seconds in result.results)
    evaluate()
    assert module["calls"]() == 2 * (1 + number * repeat)


def test_arguments(remote: rpc.RPCSession, module: Any) -> None:
    """They are handed to each call: tensors, numbers, texts."""
    tensor = runtime.empty((100,), "float32", remote.cpu(0))
    assert module.time_evaluator("fill", remote.cpu(0), number=3)(tensor, 2.5).mean >= 0
    assert set(tensor.numpy().tolist()) == {2.5}
    assert module.time_evaluator("text_length", remote.cpu(0), number=3)("text").mean >= 0


def test_a_duration(remote: rpc.RPCSession) -> None:
    """It is that of the calls."""
    sleep = remote.get_function("testing.sleep_in_ffi")
    sleep(0.0)
    evaluator = remote.get_function("runtime.RPCTimeEvaluator")
    packed = evaluator(None, "testing.sleep_in_ffi", 1, 0, 2, 2, 0, 1, 0, 1, 0, "")(0.01)
    results = struct.unpack("<2d", packed)
    assert all(0.01 <= seconds < 1.0 for seconds in results)


def test_a_shortest_duration(remote: rpc.RPCSession, module: Any) -> None:
    """`min_repeat_ms` makes the calls more until they take so long."""
    evaluate = module.time_evaluator("count", remote.cpu(0), number=1, min_repeat_ms=20)
    evaluate()
    assert module["calls"]() > 100


def test_calls_that_take_no_time(remote: rpc.RPCSession, module: Any) -> None:
    """They are given up at the limit, unless nothing is asked of the duration."""
    evaluate = module.time_evaluator(
        "count", remote.cpu(0), number=1, repeat=2, limit_zero_time_iterations=1, min_repeat_ms=1
    )
    assert len(evaluate().results) == 2


def test_what_is_called_before(remote: rpc.RPCSession, module: Any) -> None:
    """`f_preproc` is a global function; it gets the arguments, before each of the results."""
    check = "rpc.test.remote_tensor_func"  # fails unless it gets ones of shape (3, 4)
    evaluate = module.time_evaluator("count", remote.cpu(0), number=2, repeat=3, f_preproc=check)
    np = pytest.importorskip("numpy")
    ones = runtime.tensor(np.ones((3, 4), "float32"), remote.cpu(0))
    assert len(evaluate(ones).results) == 3
    ones.copyfrom(np.zeros((3, 4)))
    with pytest.raises(RemoteError):
        evaluate(ones)


def test_flushing_and_cooling(remote: rpc.RPCSession, module: Any) -> None:
    """They do not count as calls."""
    evaluate = module.time_evaluator(
        *("count", remote.cpu(0), 3, 2),
        cache_flush_bytes=1 << 20,
        cooldown_interval_ms=1,
        repeats_to_cooldown=1,
    )
    evaluate()
    assert module["calls"]() == 7


@pytest.mark.parametrize(
    "settings",
    [
        (0, 1, 0, 1, 0, 1, 0),
        (-1, 1, 0, 1, 0, 1, 0),
        (1, 0, 0, 1, 0, 1, 0),
        (1, -1, 0, 1, 0, 1, 0),
        (1, 1, -1, 1, 0, 1, 0),
        (1, 1, 0, 1, -1, 1, 0),
        (1, 1, 0, 1, 0, 0, 0),
        (1, 1, 0, 1, 0, 1, -1),
        (1.5, 1, 0, 1, 0, 1, 0),
        ("1", 1, 0, 1, 0, 1, 0),
    ],
    ids=str,
)
def test_settings_that_make_no_sense(remote: rpc.RPCSession, module: Any, settings: Any) -> None:
    """They are refused when the evaluator is made."""
    with pytest.raises(RemoteError):
        _evaluator(remote, module, "count", *settings, "")
    assert module["calls"]() == 0


def _evaluator(remote: rpc.RPCSession, module: Any, name: str, *settings: Any) -> Any:
    """What the server makes, past the checks of our client."""
    return remote.get_function("runtime.RPCTimeEvaluator")(module, name, 1, 0, *settings)


@pytest.mark.parametrize(
    "settings",
    [
        (3, 2, 0, ""),
        (3, 2, 0, 0, 1, ""),
        (3, 2, 0, 0, 0, 1, ""),
        (3, 2, 0, 0, 0, 1, 0, ""),
    ],
    ids=len,
)
def test_arguments_of_each_age(remote: rpc.RPCSession, module: Any, settings: Any) -> None:
    """Older clients give fewer of them."""
    packed = _evaluator(remote, module, "count", *settings)()
    assert len(packed) == 16
    assert module["calls"]() == 7


def test_what_cannot_be_measured(remote: rpc.RPCSession, module: Any) -> None:
    """No such function, device or number of arguments; an error of the function itself."""
    with pytest.raises(AttributeError, match="no_such_function"):
        module.time_evaluator("no_such_function", remote.cpu(0))()
    with pytest.raises(RemoteError):
        remote.get_function("runtime.RPCTimeEvaluator")(module, "count", 2, 0, 1, 1, 0, "")
    with pytest.raises(RemoteError):
        remote.get_function("runtime.RPCTimeEvaluator")(module, "count", 1, 0, 1, 1)
    with pytest.raises(RemoteError):
        module.time_evaluator("count", remote.cpu(0), f_preproc="no.such.function")()
    with pytest.raises(TypeError, match="want one int"):
        module.time_evaluator("addone", remote.cpu(0))("text")


def test_an_older_library(remote: rpc.RPCSession, old_library: Any) -> None:
    """Its functions are measured as others."""
    remote.upload(old_library)
    module = remote.load_module(old_library.name)
    module.time_evaluator("addone", remote.cpu(0), number=5, repeat=2)(1)
    assert module["count"]() == 11


def test_one_call_that_is_timed(kind: Kind, remote: rpc.RPCSession, module: Any) -> None:
    """`tvmrpc.server.timed` makes a function whose last call's seconds can be asked for."""
    make = remote.get_function("tvmrpc.server.timed")
    seconds_of = remote.get_function("tvmrpc.server.seconds")
    timed = make(module, "addone", 1, 0)
    assert timed(41) == 42
    assert 0 < seconds_of(timed) < 1
    with pytest.raises(TypeError):
        seconds_of(remote.get_function("rpc.test.addone"))
    with pytest.raises(TypeError, match="want one int"):
        timed("text")


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8", "int64", "bool"])
def test_random_contents(kind: Kind, remote: rpc.RPCSession, dtype: str) -> None:
    """What TVM's tuners fill their tensors with: elements from 1 to below 10.

    TVM draws them with more digits than a type may have, and rounds some of them to 10.
    """
    tensor = runtime.empty((1000,), dtype, remote.cpu(0))
    for name in ("tvm.contrib.random.random_fill", "tvm.contrib.random.random_fill_for_measure"):
        remote.get_function(name)(tensor)
        array = tensor.numpy()
        if dtype != "bool":
            assert 1 <= array.min() <= array.max() <= 10
            assert array.max() < 10 or not kind.is_ours
        assert len(set(array.tolist())) > 1


def test_flushed_caches(remote: rpc.RPCSession) -> None:
    """A function to name as `f_preproc`; it takes any arguments."""
    for name in ("cache_flush_cpu_non_first_arg",):
        tensor = runtime.empty((1000,), "float32", remote.cpu(0))
        assert remote.get_function(name)(tensor, tensor) is None
