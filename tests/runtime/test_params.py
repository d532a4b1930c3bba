"""Tests of saved parameters: TVM's bytes, and bytes that are not."""

from __future__ import annotations

import contextlib
import random
import struct

import numpy as np
import pytest

from pytest_tvmrpc import runtime

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


def test_damage_is_loaded_or_refused():
    """Any byte may be any other: tensors or ValueError, nothing else."""
    dice = random.Random(0)
    for _ in range(3_000):
        damaged = bytearray(GOLDEN)
        for _ in range(dice.randint(1, 4)):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        with contextlib.suppress(ValueError):
            runtime.load_param_dict(damaged)
