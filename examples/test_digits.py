"""A small network on real data: handwritten digits, recognised on the device.

The weights were trained by train_digits.py, which also chose the digits that are asked for here:
none of them was used in the training.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from kernels import build_library

from pytest_tvmrpc.runtime import empty, tensor

HERE = Path(__file__).parent


@pytest.fixture(name="digits")
def _digits():
    """Images as rows of 64 numbers between 0 and 1, and the digit that each one shows."""
    with np.load(HERE / "digits_test.npz") as file:
        return file["images"].astype("float32") / 16, file["labels"]


@pytest.fixture(name="weights")
def _weights():
    """w1, b1, w2, b2 of a network of two layers."""
    with np.load(HERE / "digits_weights.npz") as file:
        return dict(file)


def test_digits(remote, tmp_path, digits, weights):
    """The device recognises as many digits as NumPy, and that is more than 93 in a hundred."""
    images, labels = digits
    hidden_here = np.maximum(images @ weights["w1"] + weights["b1"], 0)
    scores_here = hidden_here @ weights["w2"] + weights["b2"]

    for name in ("dense", "softmax"):
        remote.upload(build_library(f"{name}.c", tmp_path / f"{name}.so"))
    dense = remote.load_module("dense.so")["dense"]
    softmax = remote.load_module("softmax.so")["softmax"]
    device = remote.cpu(0)
    w1, b1, w2, b2 = (tensor(weights[name], device) for name in ("w1", "b1", "w2", "b2"))

    hidden = empty(hidden_here.shape, "float32", device)
    scores = empty(scores_here.shape, "float32", device)
    chances = empty(scores_here.shape, "float32", device)
    dense(tensor(images, device), w1, b1, hidden, True)
    dense(hidden, w2, b2, scores, False)
    softmax(scores, chances)

    np.testing.assert_allclose(scores.numpy(), scores_here, rtol=1e-3, atol=1e-4)
    accuracy = np.mean(chances.numpy().argmax(axis=1) == labels)
    print(f"{len(labels)} digits, accuracy {accuracy:.3f} on the device")
    assert accuracy == np.mean(scores_here.argmax(axis=1) == labels)
    assert accuracy > 0.93
