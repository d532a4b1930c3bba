"""Functions, modules and files on the server."""

from __future__ import annotations

import gc
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from .clients import Client
    from .servers import Program


def test_an_unknown_function(remote: Any) -> None:
    """Asking for a function that the server lacks raises AttributeError with its name."""
    with pytest.raises(AttributeError, match=r"no\.such\.function"):
        remote.get_function("no.such.function")


def test_an_exception(client: Client, remote: Any) -> None:
    """What a function raises reaches the client with its message; the session stays usable."""
    throw = remote.get_function("rpc.test.except")
    for text in ("boom", "x" * 10_000, "ö"):
        with pytest.raises(client.remote_error) as raised:
            throw(text)
        assert text in str(raised.value)
    assert remote.get_function("rpc.test.addone")(1) == 2


def test_wrong_arguments(client: Client, remote: Any) -> None:
    """A wrong type or number of arguments is the function's error, not the session's."""
    addone = remote.get_function("rpc.test.addone")
    with pytest.raises(client.remote_error):
        addone("text")
    with pytest.raises(client.remote_error):
        addone()
    with pytest.raises(client.remote_error):
        addone(1, 2)
    assert addone(1) == 2


def test_a_function_that_returns_a_function(remote: Any) -> None:
    """A returned function lives on the server and remembers what it was made with."""
    make = remote.get_function("rpc.test.add_to_lhs")
    ten, hundred = make(10), make(100)
    assert ten(5) == 15
    assert hundred(5) == 105
    del ten
    gc.collect()
    assert hundred(6) == 106


def test_many_functions(remote: Any) -> None:
    """Functions can be returned and freed often."""
    make = remote.get_function("rpc.test.add_to_lhs")
    functions = [make(number) for number in range(200)]
    assert [function(1) for function in functions] == list(range(1, 201))
    del functions
    gc.collect()
    assert make(1)(1) == 2


def test_freeing_does_not_stall(remote: Any) -> None:
    """Dropping a function before each call costs no delayed acknowledgement (40 ms each).

    TVM's server leaves Nagle's algorithm on: if two requests are on their way, its second answer
    waits until the client's kernel has acknowledged the first.
    """
    make = remote.get_function("rpc.test.add_to_lhs")
    start = time.perf_counter()
    for number in range(100):
        assert make(number)(1) == number + 1
    assert time.perf_counter() - start < 2.0


def test_the_same_function_twice(remote: Any) -> None:
    """A function looked up twice outlives the first of the two."""
    first = remote.get_function("rpc.test.addone")
    second = remote.get_function("rpc.test.addone")
    del first
    gc.collect()
    assert second(1) == 2


def test_upload_and_download(remote: Any) -> None:
    """A file comes back as it was sent; a second upload replaces it."""
    for content in (b"hello", b"", bytes(range(256)) * 5000):
        remote.upload(bytearray(content), "file.bin")
        assert bytes(remote.download("file.bin")) == content


def test_upload_a_file(remote: Any, tmp_path: Path) -> None:
    """A local file is sent under its own name, or under another."""
    path = tmp_path / "weights.bin"
    path.write_bytes(b"\0\1\2")
    remote.upload(str(path))
    remote.upload(str(path), "other.bin")
    assert bytes(remote.download("weights.bin")) == b"\0\1\2"
    assert bytes(remote.download("other.bin")) == b"\0\1\2"


def test_remove(client: Client, remote: Any) -> None:
    """A removed file is gone; removing it again does no harm."""
    remote.upload(bytearray(b"hello"), "file.bin")
    remote.remove("file.bin")
    with pytest.raises(client.remote_error, match=r"file\.bin"):
        remote.download("file.bin")
    remote.remove("file.bin")
    assert remote.get_function("rpc.test.addone")(1) == 2


def test_listdir(pair: Any, remote: Any) -> None:
    """The files of a session are listed."""
    if pair.server == "tvm":
        pytest.skip("TVM's Python server has no listdir")
    remote.upload(bytearray(b"hello"), "file.bin")
    remote.upload(bytearray(b"hello"), "other.bin")
    names = {Path(entry).name for entry in remote.listdir(".").split(",") if entry}
    assert names == {"file.bin", "other.bin"}


def test_files_end_with_the_session(client: Client, server: Program) -> None:
    """The next session begins with an empty folder."""
    with client.connect(server) as session:
        session.upload(bytearray(b"hello"), "file.bin")
    with client.connect(server) as session, pytest.raises(client.remote_error, match=r"file\.bin"):
        session.download("file.bin")


def test_load_module(module: Any) -> None:
    """The functions of a C library are called by their names."""
    assert module["addone"](41) == 42
    assert module.get_function("addone")(-1) == 0
    assert module["has_context"]() is True
    assert module["workspace"]() == 0


def test_the_main_function(module: Any) -> None:
    """Calling a module calls its function ``main``."""
    assert module() == 4711


def test_an_error_of_a_library(client: Client, module: Any) -> None:
    """A compiled function that fails raises with its message, and can be called again."""
    addone = module["addone"]
    with pytest.raises(client.remote_error, match="want one int"):
        addone("text")
    assert addone(1) == 2


def test_a_function_that_a_library_lacks(module: Any) -> None:
    """A missing function raises AttributeError with its name."""
    with pytest.raises(AttributeError, match="no_such_kernel"):
        module["no_such_kernel"]
    assert module["addone"](1) == 2


def test_a_library_that_is_not_there(client: Client, remote: Any) -> None:
    """Loading a file that was not uploaded raises with its name."""
    with pytest.raises(client.remote_error, match=r"absent\.so"):
        remote.load_module("absent.so")
    assert remote.get_function("rpc.test.addone")(1) == 2


def test_a_library_that_is_none(client: Client, remote: Any) -> None:
    """Loading a file that is no library raises, and the session goes on."""
    remote.upload(bytearray(b"this is no ELF file" * 100), "broken.so")
    with pytest.raises(client.remote_error, match=r"broken\.so"):
        remote.load_module("broken.so")
    assert remote.get_function("rpc.test.addone")(1) == 2


def test_import_module(remote: Any, module: Any, kernels: Path) -> None:
    """The functions of an imported module are found through the importing one."""
    remote.upload(str(kernels))
    module.import_module(remote.load_module(kernels.name))
    assert module["elementwise"] is not None
    assert module["addone"](1) == 2


def test_a_module_lives_as_long_as_its_functions(remote: Any, probe: Path) -> None:
    """A function keeps its library loaded when the module is dropped."""
    remote.upload(str(probe))
    addone = remote.load_module(probe.name)["addone"]
    gc.collect()
    assert addone(1) == 2


def test_time_evaluator_calls(remote: Any, module: Any) -> None:
    """The function is called once to warm up, then number times for each repeat."""
    result = module.time_evaluator("count", remote.cpu(0), number=3, repeat=2)()
    assert module["calls"]() == 1 + 3 * 2
    assert len(result.results) == 2
    assert all(seconds >= 0 for seconds in result.results)
    assert result.min <= result.median <= result.max
    assert result.mean == pytest.approx(sum(result.results) / 2)


def test_time_evaluator_twice(remote: Any, module: Any) -> None:
    """An evaluator may be used again; its defaults are ten calls, once."""
    evaluate = module.time_evaluator("count", remote.cpu(0))
    assert len(evaluate().results) == 1
    evaluate()
    assert module["calls"]() == 2 * 11


def test_time_evaluator_seconds(remote: Any, module: Any) -> None:
    """Times are in seconds for one call."""
    result = module.time_evaluator("wait", remote.cpu(0), number=1)(1)
    assert 1.0 <= result.mean < 2.0


def test_time_evaluator_with_tensors(client: Client, remote: Any, module: Any) -> None:
    """The measured function gets the evaluator's arguments, and its effects stay."""
    tensor = client.runtime.tensor(np.zeros(8, "float32"), remote.cpu(0))
    result = module.time_evaluator("fill", remote.cpu(0), number=5, repeat=4)(tensor, 3.0)
    assert len(result.results) == 4
    np.testing.assert_array_equal(tensor.numpy(), np.full(8, 3.0))


def test_time_evaluator_minimum(remote: Any, module: Any) -> None:
    """``min_repeat_ms`` makes the number of calls grow until a repeat lasts that long."""
    result = module.time_evaluator("count", remote.cpu(0), number=1, min_repeat_ms=20)()
    assert module["calls"]() > 2
    assert result.mean * module["calls"]() >= 0.02


def test_time_evaluator_options(remote: Any, module: Any) -> None:
    """Cooling down, flushing the cache and a function to prepare each repeat are accepted."""
    evaluate = module.time_evaluator(
        "count",
        remote.cpu(0),
        number=2,
        repeat=3,
        cooldown_interval_ms=1,
        repeats_to_cooldown=2,
        cache_flush_bytes=1 << 16,
        f_preproc="testing.echo",
    )
    assert len(evaluate(1).results) == 3
    assert module["calls"]() == 1 + 2 * 3


def test_time_evaluator_of_a_function_that_fails(client: Client, remote: Any, module: Any) -> None:
    """What the measured function raises, the evaluator raises."""
    with pytest.raises(client.remote_error, match="want one int"):
        module.time_evaluator("addone", remote.cpu(0))("text")
    assert module["addone"](1) == 2


def test_time_evaluator_of_an_unknown_function(client: Client, remote: Any, module: Any) -> None:
    """Measuring a function that is not there raises with its name."""
    with pytest.raises((client.remote_error, AttributeError), match="no_such_kernel"):
        module.time_evaluator("no_such_kernel", remote.cpu(0))()
    assert module["addone"](1) == 2
