"""Train the network of test_digits.py and write its weights and its test set.

Not needed to run the examples: both files are here already. It wants scikit-learn, for the data:
1797 handwritten digits of 8 x 8 pixels (E. Alpaydin and C. Kaynak, Optical Recognition of
Handwritten Digits, UCI Machine Learning Repository, CC BY 4.0).

    python examples/train_digits.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
HIDDEN = 32
EPOCHS = 200
BATCH = 64
RATE = 0.1


def main() -> None:
    """Train, say how good it is, write digits_weights.npz and digits_test.npz."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    random = np.random.default_rng(0)
    order = random.permutation(len(labels))
    test, training = order[:360], order[360:]
    weights = train(images[training].astype("float32") / 16, labels[training], random)
    accuracy = np.mean(predict(images[test].astype("float32") / 16, weights) == labels[test])
    print(f"accuracy on {len(test)} digits never seen: {accuracy:.3f}")
    np.savez_compressed(HERE / "digits_weights.npz", **weights)
    np.savez_compressed(
        HERE / "digits_test.npz",
        images=images[test].astype("uint8"),
        labels=labels[test].astype("uint8"),
    )


def train(
    images: np.ndarray, labels: np.ndarray, random: np.random.Generator
) -> dict[str, np.ndarray]:
    """Two layers, by stochastic gradient descent on the cross entropy."""
    w1 = random.normal(0, (2 / 64) ** 0.5, (64, HIDDEN)).astype("float32")
    w2 = random.normal(0, (2 / HIDDEN) ** 0.5, (HIDDEN, 10)).astype("float32")
    b1, b2 = np.zeros(HIDDEN, "float32"), np.zeros(10, "float32")
    for _ in range(EPOCHS):
        order = random.permutation(len(labels))
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            x = images[batch]
            hidden = np.maximum(x @ w1 + b1, 0)
            error = softmax(hidden @ w2 + b2) - np.eye(10, dtype="float32")[labels[batch]]
            error /= len(batch)
            back = (error @ w2.T) * (hidden > 0)
            w2 -= RATE * hidden.T @ error
            b2 -= RATE * error.sum(0)
            w1 -= RATE * x.T @ back
            b1 -= RATE * back.sum(0)
    return {"w1": w1, "b1": b1, "w2": w2, "b2": b2}


def predict(images: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """The digit that the network sees in each image."""
    hidden = np.maximum(images @ weights["w1"] + weights["b1"], 0)
    return (hidden @ weights["w2"] + weights["b2"]).argmax(axis=1)


def softmax(x: np.ndarray) -> np.ndarray:
    """Each row as probabilities."""
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


if __name__ == "__main__":
    main()
