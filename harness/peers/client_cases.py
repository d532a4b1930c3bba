"""What a peer's own client does at a server, one case after the other.

Run by the peer's interpreter, from Python 3.6 on, with nothing of this repository on its path::

    client_cases.py compile FOLDER
    client_cases.py direct HOST PORT KEY FOLDER
    client_cases.py tracker HOST PORT KEY FOLDER

``compile`` makes the libraries of the other two. These print a line of JSON for each case: its name
and what went wrong, or null.
"""  # noqa: I002  (Python 3.6 has no annotations of the future)

import contextlib
import inspect
import json
import os
import sys
import traceback

import numpy as np
import tvm
from tvm import rpc, te

LENGTH = 1000
DTYPES = (
    *("float16", "float32", "float64", "bool"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)


def tensor_of(array, device):
    """A tensor of the device with the contents of an array; its name changed with 0.22."""
    if hasattr(tvm, "nd"):
        return tvm.nd.array(array, device)
    return tvm.runtime.tensor(array, device)


def compile_libraries(folder):
    """``plus.so``, linked, and ``plus.tar``, not linked yet: ``plus(x, y)`` is y = x + 1."""
    x = te.placeholder((LENGTH,), name="x")
    y = te.compute((LENGTH,), lambda i: x[i] + 1.0, name="y")
    # The hhb builds compile for another processor by default.
    target = tvm.target.Target({"kind": "llvm", "mtriple": "x86_64-linux-gnu"})
    if hasattr(te, "create_schedule"):
        schedule = te.create_schedule(y.op)
        outer, inner = schedule[y].split(y.op.axis[0], nparts=4)
        schedule[y].parallel(outer)
        schedule[y].vectorize(schedule[y].split(inner, 10)[1])
        built = tvm.build(schedule, [x, y], target, name="plus")
    else:
        kernel = te.create_prim_func([x, y]).with_attr("global_symbol", "plus")
        built = tvm.compile(tvm.IRModule({"plus": kernel}), target=target)
    for suffix in ("so", "tar"):
        built.export_library(os.path.join(folder, "plus." + suffix))


def _error_of(act, *arguments):
    """The text of the error that it raises."""
    try:
        act(*arguments)
    except Exception as error:
        return str(error)
    raise AssertionError("no error came")


def case_values(remote, folder):
    echo = remote.get_function("testing.echo")
    for value in (0, -5, 2**40, 1.5, "", "text", "\xe4\xdf", "x" * 100000):
        assert echo(value) == value, value
    assert echo(None) is None
    for content in (b"", b"\0\1\2", b"1234567", b"12345678", bytes(100000)):
        assert bytes(echo(bytearray(content))) == content, len(content)


def case_functions(remote, folder):
    assert remote.get_function("rpc.test.addone")(10) == 11
    assert remote.get_function("rpc.test.strcat")("abc", 11) == "abc:11"
    assert remote.get_function("rpc.test.add_to_lhs")(10)(5) == 15


def case_errors(remote, folder):
    fail = remote.get_function("rpc.test.except")
    for _ in range(3):
        assert "the text of the error" in _error_of(fail, "the text of the error")
    assert remote.get_function("rpc.test.addone")(1) == 2


def case_a_function_that_is_not_there(remote, folder):
    try:
        remote.get_function("peers.is_not_there")
    except AttributeError:
        return
    raise AssertionError("no error came")


def case_tensors(remote, folder):
    for dtype in DTYPES:
        for shape in ((), (1,), (3, 4), (2, 3, 5, 7)):
            array = np.ones(shape, dtype)
            found = tensor_of(array, remote.cpu(0)).numpy()
            assert found.dtype == array.dtype, (found.dtype, dtype)
            assert found.shape == shape, found.shape
            assert (found == array).all()


def case_a_large_tensor(remote, folder):
    array = np.random.rand(3, 500000).astype("float32")
    np.testing.assert_array_equal(tensor_of(array, remote.cpu(0)).numpy(), array)


def case_tensors_as_arguments_and_results(remote, folder):
    check = "remote_tensor_func" if hasattr(tvm.runtime, "tensor") else "remote_array_func"
    remote.get_function("rpc.test." + check)(tensor_of(np.ones((3, 4)), remote.cpu(0)))
    made = remote.get_function("rpc.test.remote_return_nd")("get_arr")()
    np.testing.assert_array_equal(made.numpy(), np.zeros(10, "float32"))


def case_files(remote, folder):
    for content in (b"", b"short", b"0123456789" * 100000):
        remote.upload(bytearray(content), "data.bin")
        assert bytes(remote.download("data.bin")) == content
    path = os.path.join(folder, "plus.so")
    remote.upload(path)
    with open(path, "rb") as file:
        assert bytes(remote.download("plus.so")) == file.read()
    assert remote.get_function("tvm.rpc.server.workpath")("plus.so").endswith("plus.so")


def case_removals(remote, folder):
    remote.upload(bytearray(b"content"), "data.bin")
    for name in ("data.bin", "data.bin", "none.so", "/none/such/file.tar", "."):
        remote.remove(name)
    assert "data.bin" in _error_of(remote.download, "data.bin")


def _loaded(remote, name):
    """The library, by the client's own method where that works with the peer's own server."""
    if "cc" in inspect.signature(remote.load_module).parameters:  # hhb's 0.16: two values too many
        return remote.get_function("tvm.rpc.server.load_module")(name)
    return remote.load_module(name)


def _check_module(remote, module):
    x = tensor_of(np.arange(LENGTH, dtype="float32"), remote.cpu(0))
    y = tensor_of(np.zeros(LENGTH, "float32"), remote.cpu(0))
    module["plus"](x, y)
    np.testing.assert_array_equal(y.numpy(), np.arange(LENGTH) + 1)
    measured = module.time_evaluator("plus", remote.cpu(0), number=3, repeat=2)(x, y)
    assert len(measured.results) == 2
    assert all(seconds > 0 for seconds in measured.results)


def case_a_library(remote, folder):
    remote.upload(os.path.join(folder, "plus.so"))
    _check_module(remote, _loaded(remote, "plus.so"))


def case_a_library_that_the_server_links(remote, folder):
    remote.upload(os.path.join(folder, "plus.tar"))
    _check_module(remote, _loaded(remote, "plus.tar"))


def case_random_contents(remote, folder):
    for name in ("random_fill", "random_fill_for_measure"):
        tensor = tensor_of(np.zeros((100, 100), "float32"), remote.cpu(0))
        remote.get_function("tvm.contrib.random." + name)(tensor)
        assert (tensor.numpy() > 0).all()
        assert len(set(tensor.numpy().ravel())) > 1000


def case_devices(remote, folder):
    device = remote.device("cpu", 0)
    device.sync()
    assert device.exist
    assert not remote.device("cuda", 0).exist


def run(name, act, *arguments):
    """One case, and the line about it."""
    try:
        act(*arguments)
        problem = None
    except Exception:
        problem = traceback.format_exc(limit=-4)
    print(json.dumps({"case": name, "problem": problem}), flush=True)


@contextlib.contextmanager
def session(remote):
    """A session, ended with the block as far as the client's API goes."""
    try:
        yield remote
    finally:
        with contextlib.suppress(Exception):
            remote._sess.get_function("CloseRPCConnection")()


def cases_at(host, port, key, folder):
    """Each case in a session of its own."""
    for name, act in sorted(globals().items()):
        if name.startswith("case_"):

            def in_a_session(act=act):
                with session(rpc.connect(host, port, key, session_timeout=120)) as remote:
                    act(remote, folder)

            run(name[5:], in_a_session)


def _request(tracker, key, folder):
    with session(tracker.request(key, session_timeout=60)) as remote:
        case_functions(remote, folder)


def _request_and_run(tracker, key, folder):
    def addone(remote):
        return remote.get_function("rpc.test.addone")(1)

    assert tracker.request_and_run(key, addone, session_timeout=60) == 2


def _summary(tracker, key, folder):
    assert key in tracker.text_summary()
    assert any(key in server["key"] for server in tracker.summary()["server_info"])


def tracker_cases(host, port, key, folder):
    """What a client does with a tracker."""
    for act in (_summary, _request, _request_and_run):

        def at_the_tracker(act=act):
            act(rpc.connect_tracker(host, port), key, folder)

        run("tracker" + act.__name__, at_the_tracker)


def main(verb, *arguments):
    """Runs what is asked for."""
    if verb == "compile":
        compile_libraries(*arguments)
        return
    host, port, key, folder = arguments
    {"direct": cases_at, "tracker": tracker_cases}[verb](host, int(port), key, folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
