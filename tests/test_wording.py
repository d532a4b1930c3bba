"""Foreign values as they go into files and to other processes; numbers are with the terminal."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any

import pytest

from pytest_tvmrpc.wording import fault, first_line, plain


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": [1, None, 2.5, True, "\u00e9"]}, {"a": [1, None, 2.5, True, "\u00e9"]}),
        ({"a": (1, 2), 3: "b"}, {"a": [1, 2], "3": "b"}),
        ({"a": PurePosixPath("/b")}, {"a": "PurePosixPath('/b')"}),
        ({"a\udc80": "b\ud800c"}, {"a?": "b?c"}),
    ],
)
def test_plain_values(value: Any, expected: Any) -> None:
    """JSON values stay; others are shown; text can be encoded."""
    assert plain(value) == expected
    json.dumps(plain(value), ensure_ascii=False).encode()


def test_values_that_have_no_end() -> None:
    """There is nothing plain about them, and the caller is told."""
    circle: Any = []
    circle.append(circle)
    with pytest.raises(ValueError, match="Circular"):
        plain(circle)


def test_first_line() -> None:
    """What a device printed last stands below it."""
    assert first_line("one\ntwo") == "one"
    assert first_line("it ended; it printed last:\nthis") == "it ended"


def test_fault() -> None:
    """The hook, the error, and the line where it was raised, as far inside as it was."""

    def inner() -> None:
        raise ValueError("no\nsuch thing")

    with pytest.raises(ValueError) as raised:
        inner()
    line = inner.__code__.co_firstlineno + 1
    expected = f"the hook a_hook raised ValueError: no ({__file__}:{line})"
    assert fault("a_hook", raised.value) == expected
