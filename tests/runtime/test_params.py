"""Tests of saved parameters: TVM's bytes, and bytes that are not."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import Any, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pytest_tvmrpc import rpc, runtime

from ..devices.separate import SeparateAPI

GOLDEN = bytes.fromhex(  # runtime.save_param_dict of TVM 0.27 for the parameters below
    "b79c04054f8de5f7 0000000000000000 0400000000000000"
    "0100000000000000 77 0100000000000000 62 0100000000000000 73 0100000000000000 7a"
    "0400000000000000"
    "3fa1b496f0405edd 0000000000000000 01000000 00000000 02000000 02200100"
    "0200000000000000 0300000000000000 1800000000000000"
    "000000000000803f00000040000040400000804000 00a040"
    "3fa1b496f0405edd 0000000000000000 01000000 00000000 01000000 06080100"
    "0200000000000000 0200000000000000 0100"
    "3fa1b496f0405edd 0000000000000000 01000000 00000000 00000000 00400100"
    "0800000000000000 0300000000000000"
    "3fa1b496f0405edd 0000000000000000 01000000 00000000 02000000 01080100"
    "0000000000000000 0400000000000000 0000000000000000".replace(" ", "")
)


def parameters() -> dict[str, np.ndarray]:
    return {
        "w": np.arange(6, dtype="float32").reshape(2, 3),
        "b": np.array([True, False]),
        "s": np.array(3, dtype="int64"),
        "z": np.zeros((0, 4), "uint8"),
    }


def test_saved_bytes_are_tvms():
    """Byte by byte, of arrays and of tensors, in the order of the mapping."""
    saved = runtime.save_param_dict(parameters())
    assert isinstance(saved, bytearray)
    assert saved == GOLDEN
    tensors = {name: runtime.tensor(array) for name, array in parameters().items()}
    assert runtime.save_param_dict(tensors) == GOLDEN


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_tvms_bytes_are_loaded(kind):
    """From whatever holds bytes, into CPU tensors of their own."""
    loaded = runtime.load_param_dict(kind(GOLDEN))
    assert list(loaded) == ["w", "b", "s", "z"]
    for name, array in parameters().items():
        assert loaded[name].device == runtime.cpu(0)
        assert loaded[name].numpy().dtype == array.dtype
        np.testing.assert_array_equal(loaded[name].numpy(), array)


def test_files(tmp_path):
    """The same bytes in a file; a refused dictionary leaves none."""
    path = tmp_path / "model.params"
    runtime.save_param_dict_to_file(parameters(), path)
    assert path.read_bytes() == GOLDEN
    assert list(runtime.load_param_dict_from_file(str(path))) == ["w", "b", "s", "z"]
    refused = tmp_path / "refused.params"
    with pytest.raises(ValueError, match="int8x4"):
        runtime.save_param_dict_to_file({"v": runtime.empty((2,), "int8x4")}, refused)
    assert not refused.exists()


def test_no_parameters_at_all():
    """An empty dictionary is one."""
    assert runtime.load_param_dict(runtime.save_param_dict({})) == {}


@pytest.mark.parametrize("dtype", ["int4", "float32x4", "float4_e2m1fn"])
def test_types_that_the_format_loses_are_refused(dtype):
    """TVM itself writes something for these that cannot be read back."""
    with pytest.raises(ValueError, match=f"cannot hold 'v': its type is {dtype}"):
        runtime.save_param_dict({"v": runtime.empty((3,), dtype)})


def test_every_cut_is_refused():
    """Whatever the place where the bytes end."""
    for end in range(len(GOLDEN)):
        with pytest.raises(ValueError):
            runtime.load_param_dict(GOLDEN[:end])
    with pytest.raises(ValueError, match="3 bytes are left"):
        runtime.load_param_dict(GOLDEN + b"abc")


def one_tensor(
    shape: tuple[int, ...] = (2,), nbytes: int = 2, device: int = 1, dtype: int = 0x010801
) -> bytes:
    """A dictionary of one tensor that says of itself whatever it likes."""
    return b"".join(
        (
            GOLDEN[:16],
            struct.pack("<QQ1sQ", 1, 1, b"x", 1),
            struct.pack("<QQiiiI", 0xDD5E40F096B4A13F, 0, device, 0, len(shape), dtype),
            struct.pack(f"<{len(shape)}qq", *shape, nbytes),
            b"ab",
        )
    )


def test_the_honest_one_is_loaded():
    """What the next test distorts is well formed."""
    assert runtime.load_param_dict(one_tensor())["x"].numpy().tolist() == [97, 98]


@pytest.mark.parametrize(
    "hostile",
    [
        one_tensor(nbytes=-1),
        one_tensor(nbytes=2**62),
        one_tensor(shape=(2**62,), nbytes=2**62),
        one_tensor(shape=(2**62, 2**62), nbytes=2),
        one_tensor(shape=(-1, -2)),
        one_tensor(shape=(-2,), nbytes=-2),
        one_tensor(device=2),
        one_tensor(dtype=0x000000),
        one_tensor(dtype=0x000801),
        one_tensor(dtype=0x020801),
        GOLDEN[:16] + b"\xff" * 8,
        GOLDEN[:16] + struct.pack("<QQ2sQ", 1, 2, b"\xff\xfe", 0),
        GOLDEN[:16] + struct.pack("<QQ1sQ", 1, 1, b"x", 0),
        GOLDEN[:16] + struct.pack("<QQ1sQ", 1, 1, b"x", 2**63),
        GOLDEN[:16]
        + struct.pack("<QQ1sQQQiiiI", 1, 1, b"x", 1, 0xDD5E40F096B4A13F, 0, 1, 0, -1, 0),
        b"\x7fELF" + bytes(60),
        b"",
    ],
)
def test_lies_are_refused(hostile):
    """Lengths that are not there, names that are no text, tensors of no form."""
    with pytest.raises(ValueError):
        runtime.load_param_dict(hostile)


DTYPES = ["float32", "float16", "float64", "int8", "int64", "uint8", "uint64", "bool", "complex64"]

PARAMETERS = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
    st.sampled_from(DTYPES).flatmap(
        lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, min_side=0, max_side=3))
    ),
    max_size=4,
)


@given(PARAMETERS)
def test_what_is_saved_is_loaded(params):
    """Names in their order, types, shapes and each bit; saved again, these are the same bytes."""
    saved = runtime.save_param_dict(params)
    loaded = runtime.load_param_dict(saved)
    assert list(loaded) == list(params)
    for name, array in params.items():
        found = loaded[name].numpy()
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert found.tobytes() == array.tobytes()
    assert runtime.save_param_dict(loaded) == saved


@given(PARAMETERS, st.data())
def test_any_parameters_that_are_cut_are_refused(params, data):
    """At whatever byte they end."""
    saved = bytes(runtime.save_param_dict(params))
    end = data.draw(st.integers(0, len(saved) - 1))
    with pytest.raises(ValueError, match=r"end too early|no parameters of TVM"):
        runtime.load_param_dict(saved[:end])


BITS = (20, 31, 32, 40, 61, 62, 63)
NUMBERS = st.sampled_from(
    [number + more for number in (1, 64, *(1 << bits for bits in BITS)) for more in (-1, 0, 1)]
)

DAMAGE = st.lists(
    st.tuples(
        st.integers(0, len(GOLDEN) - 1),
        st.one_of(
            st.binary(min_size=1, max_size=8),
            NUMBERS.map(lambda number: struct.pack("<Q", number)),
            NUMBERS.map(lambda number: struct.pack("<I", number & 0xFFFFFFFF)),
        ),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=300)
@given(DAMAGE)
def test_damage_is_loaded_or_refused(damage):
    """Any bytes may be any others: tensors or ValueError, and no memory for mere claims."""
    damaged = bytearray(GOLDEN)
    for start, others in damage:
        damaged[start : start + len(others)] = others
    peaks = []
    for _ in range(2):  # a table of the interpreter's own may grow in one of them
        tracemalloc.start()
        try:
            with contextlib.suppress(ValueError):
                runtime.load_param_dict(damaged)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert min(peaks) < 16 * len(damaged) + 20_000


HUGE = [1 << 30, 1 << 34, 1 << 40, 1 << 58]

CLAIMS = [
    *(one_tensor(shape=(count,), nbytes=count) for count in HUGE),
    *(one_tensor(shape=(1 << 20, count >> 20), nbytes=count) for count in HUGE),
    *(GOLDEN[:16] + struct.pack("<Q", count) + bytes(64) for count in HUGE),
    *(GOLDEN[:16] + struct.pack("<QQ", 1, count) + bytes(64) for count in HUGE),
    *(GOLDEN[:16] + struct.pack("<QQ1sQ", 1, 1, b"x", count) + bytes(64) for count in HUGE),
    GOLDEN[:16]
    + struct.pack("<QQ1sQ", 1, 1, b"x", 1)
    + struct.pack("<QQiiiI", 0xDD5E40F096B4A13F, 0, 1, 0, (1 << 31) - 1, 0x010801)
    + bytes(64),
]

LIMITED = """
import resource, sys
from pytest_tvmrpc import runtime
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))
for path in sys.argv[1:]:
    try:
        runtime.load_param_dict_from_file(path)
    except ValueError:
        print("refused")
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="memory is counted by Linux")
def test_claims_take_no_memory(tmp_path):
    """A process that may have 64 MiB more refuses files that claim gigabytes, each as malformed."""
    paths = [tmp_path / str(number) for number in range(len(CLAIMS))]
    for path, claim in zip(paths, CLAIMS):
        path.write_bytes(claim)
    command = [sys.executable, "-c", LIMITED, *map(str, paths)]
    root = Path(runtime.__file__).parents[2]
    said = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert said.stdout.split() == ["refused"] * len(CLAIMS), said.stderr


@pytest.mark.parametrize("length", [0, 1, 1 << 62])
def test_axes_without_number_are_refused_at_once(length):
    """A file may be long; the product of all its lengths would have millions of bits."""
    hostile = one_tensor(shape=(length,) * 20_000, nbytes=0)
    with pytest.raises(ValueError, match="20000 dimensions; 0 to 64 can be"):
        runtime.load_param_dict(hostile)


@pytest.mark.parametrize("code", [18, 99, 128])
def test_types_of_no_known_number_are_refused(code):
    """What nobody has a name for cannot be used, copied or looked at."""
    with pytest.raises(ValueError, match=rf"tensor at byte 41 cannot be: 'custom\[{code}\]8'"):
        runtime.load_param_dict(one_tensor(dtype=0x010800 | code))


def test_bool_of_older_versions_is_loaded():
    """TVM up to 0.22 calls it uint1, and writes a byte for each."""
    old = one_tensor(dtype=0x010101)
    loaded = runtime.load_param_dict(old)
    assert loaded["x"].dtype.is_bool
    assert runtime.save_param_dict(loaded) == old


def test_two_parameters_of_one_name_are_refused():
    """One of them would be lost."""
    saved = runtime.save_param_dict({"a": np.int8(1), "b": np.int8(2)})
    with pytest.raises(ValueError, match="two of the parameters have the name 'a'"):
        runtime.load_param_dict(saved.replace(b"b", b"a"))


@pytest.mark.parametrize("given", [None, 3, "text", [1, 2], {}, memoryview(b"abcd")[::2]])
def test_only_bytes_are_loaded(given):
    """The error says what was given, and what is expected."""
    with pytest.raises(TypeError, match=f"from {type(given).__name__}: .*expected bytes"):
        runtime.load_param_dict(given)


@pytest.mark.parametrize("given", [None, 3, "text", [("a", 1)], np.zeros(2)])
def test_only_dictionaries_are_saved(given, tmp_path):
    """The error says what was given; there is no file then."""
    path = tmp_path / "refused"
    with pytest.raises(TypeError, match=f"of type {type(given).__name__}; expected a dict"):
        runtime.save_param_dict_to_file(given, path)
    assert not path.exists()


@pytest.mark.parametrize("name", [1, b"a", None, True, ("a",)])
def test_names_are_text(name):
    """Anything else is refused by its value."""
    with pytest.raises(TypeError, match=r"the name of a parameter is .*; expected a str"):
        runtime.save_param_dict({name: np.zeros(1)})


def test_names_that_are_no_unicode_are_refused():
    """When they are saved, and when they are loaded."""
    with pytest.raises(ValueError, match=r"'\\ud800' cannot be the name of a parameter"):
        runtime.save_param_dict({"\ud800": np.zeros(1)})
    saved = runtime.save_param_dict({"name": np.zeros(1)}).replace(b"name", b"n\xff\xffe")
    with pytest.raises(ValueError, match="the name at byte 24 is no UTF-8: invalid start byte"):
        runtime.load_param_dict(saved)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (None, TypeError),
        ("text", TypeError),
        (object(), TypeError),
        ({"a": 1}, TypeError),
        ([[1], [2, 3]], TypeError),
        (np.array(["2020"], "datetime64[Y]"), ValueError),
        (np.ma.array([1, 2], mask=[True, False]), ValueError),
    ],
    ids=["none", "text", "object", "dict", "ragged", "date", "masked"],
)
def test_values_are_tensors_or_arrays(value, error):
    """The error names the parameter."""
    with pytest.raises(error, match="the parameter 'second' cannot be saved: "):
        runtime.save_param_dict({"first": np.zeros(1), "second": value})


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        ([1, 2], "int64"),
        (2.5, "float64"),
        (True, "bool"),
        (np.float32(3), "float32"),
        (np.arange(12.0).reshape(3, 4)[::-1, ::2], "float64"),
        (np.asfortranarray(np.arange(6).reshape(2, 3)), "int64"),
        (np.array([1, 2], ">i4"), "int32"),
    ],
)
def test_what_can_be_an_array_is_saved(value, dtype):
    """Lists, numbers, and arrays in any order of axes, elements or bytes."""
    loaded = runtime.load_param_dict(runtime.save_param_dict({"x": value}))["x"]
    assert loaded.dtype == dtype
    np.testing.assert_array_equal(loaded.numpy(), np.asarray(value))


@pytest.mark.parametrize("path", [3, True, None, 1.5])
def test_paths_are_no_numbers(path):
    """A number would be an open file of somebody else's, which would be closed."""
    with pytest.raises(TypeError, match=r"expected str, bytes or os\.PathLike object"):
        runtime.load_param_dict_from_file(path)
    with pytest.raises(TypeError, match=r"expected str, bytes or os\.PathLike object"):
        runtime.save_param_dict_to_file({}, path)


def test_refused_files_are_named(tmp_path):
    """An empty one, a cut one, a longer one, one of another kind, a folder, and none."""
    path = tmp_path / "model.params"
    contents = [b"", GOLDEN[:-1], GOLDEN + b"x", b"\x7fELF" + bytes(90)]
    says = ["first bytes are missing", "end too early", "1 bytes are left", "7f 45 4c 46"]
    for content, text in zip(contents, says):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"cannot load '.*model\.params': .*{text}"):
            runtime.load_param_dict_from_file(path)
    with pytest.raises(IsADirectoryError):
        runtime.load_param_dict_from_file(tmp_path)
    with pytest.raises(FileNotFoundError):
        runtime.load_param_dict_from_file(tmp_path / "none")


def test_refusals_leave_the_file_as_it_was(tmp_path):
    """Also when a value is refused after others were not."""
    path = tmp_path / "model.params"
    runtime.save_param_dict_to_file(parameters(), path)
    with pytest.raises(TypeError, match="'other'"):
        runtime.save_param_dict_to_file({"w": np.zeros(3), "other": "text"}, path)
    assert path.read_bytes() == GOLDEN


def test_long_files_of_another_kind_are_not_read(tmp_path):
    """One of a TiB, most of which is a hole; the first bytes are enough."""
    path = tmp_path / "long"
    with open(path, "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ValueError, match="the first bytes are 00 00 00 00 00 00 00 00"):
        runtime.load_param_dict_from_file(path)


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="there is no file without end")
def test_files_without_end_are_refused():
    """By their first bytes, too."""
    with pytest.raises(ValueError, match="cannot load '/dev/zero': no parameters of TVM"):
        runtime.load_param_dict_from_file("/dev/zero")


def test_pipes_are_loaded(tmp_path, deadline_s):
    """They have no length that is known before their end."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.write_bytes(GOLDEN), daemon=True)
    writer.start()
    assert list(runtime.load_param_dict_from_file(path)) == ["w", "b", "s", "z"]
    writer.join(deadline_s)
    assert not writer.is_alive()


@pytest.mark.parametrize("left", [20, 50, 60_000])
def test_files_that_shrink_while_they_are_read_are_refused(tmp_path, monkeypatch, left):
    """As when somebody begins to write them anew; nothing is loaded in part."""
    path = tmp_path / "model.params"
    runtime.save_param_dict_to_file({"w": np.ones(100_000, "uint8")}, path)
    status = os.stat(path)
    fstat = os.fstat

    def shrink(number: int) -> os.stat_result:
        """The system's answer, which is out of date as soon as it is there."""
        answer = fstat(number)
        if os.path.samestat(answer, status):
            os.truncate(path, left)
        return answer

    monkeypatch.setattr(os, "fstat", shrink)
    with pytest.raises(ValueError, match=r"model\.params': .*shorter than \d+ bytes while"):
        runtime.load_param_dict_from_file(path)


@pytest.fixture(name="remote", scope="module")
def _remote() -> Iterator[rpc.RPCSession]:
    """A session with a real server."""
    with rpc.Server(port=0, silent=True) as server, rpc.connect(server.host, server.port) as remote:
        yield remote


def test_tensors_of_a_session_are_saved(remote, tmp_path):
    """The bytes are fetched, beside those that are here."""
    params: dict[str, Any] = parameters()
    for name in ("w", "s", "z"):
        params[name] = runtime.tensor(params[name], remote.cpu(0))
    assert runtime.save_param_dict(params) == GOLDEN
    path = tmp_path / "model.params"
    runtime.save_param_dict_to_file(params, path)
    assert path.read_bytes() == GOLDEN


def test_a_lost_session_leaves_the_file_as_it_was(tmp_path):
    """All elements are here before the file is opened."""
    path = tmp_path / "model.params"
    path.write_bytes(GOLDEN)
    with rpc.Server(port=0, silent=True) as server:
        remote = rpc.connect(server.host, server.port)
        params = {"here": np.zeros(3), "there": runtime.tensor(np.zeros(3), remote.cpu(0))}
        remote.close()
        with pytest.raises(RuntimeError, match="closed"):
            runtime.save_param_dict_to_file(params, path)
    assert path.read_bytes() == GOLDEN


def test_tensors_of_another_device_are_saved():
    """Of one whose memory only its driver reads, after what waits in a stream."""
    runtime.register_device_api("ext_dev", SeparateAPI())
    try:
        device = runtime.ext_dev(0)
        params = {name: runtime.tensor(array, device) for name, array in parameters().items()}
        params["w"].copyto(later := runtime.empty((2, 3), "float32", device))
        params["w"] = later
        assert runtime.save_param_dict(params) == GOLDEN
    finally:
        runtime.unregister_device_api("ext_dev")


def test_views_of_a_tensor_are_saved():
    """Only their own bytes."""
    whole = runtime.tensor(np.arange(10, dtype="uint8"))
    part = whole._create_view((3,), "uint8", 4)
    loaded = runtime.load_param_dict(runtime.save_param_dict({"x": part}))
    assert loaded["x"].numpy().tolist() == [4, 5, 6]
