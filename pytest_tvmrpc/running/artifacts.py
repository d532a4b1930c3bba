"""The folder of each attempt, and what is kept in it. Decides nothing about the test."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from typing import TYPE_CHECKING, Mapping

import pytest

if TYPE_CHECKING:
    from ..options import Options
    from ..records import Attempt

_OURS = re.compile(r"-[0-9a-f]{8}$")
"""How the name of a test's folder ends."""

_LONGEST = 100
"""Characters of a folder's name that come from the node id."""


ATTEMPTS = 10
"""How often a folder is made while others remove those above it."""


def folder_of(nodeid: str, number: int) -> str:
    """The folder of an attempt, relative to that of all artifacts."""
    # No brackets: GitLab takes no attachment with one in its path.
    name = re.sub(r"[^\w.=-]+", "-", nodeid, flags=re.ASCII).strip("-.")[:_LONGEST]
    # Two tests may differ in nothing but what a file system would not take.
    digest = hashlib.blake2s(nodeid.encode("utf-8", "replace"), digest_size=4).hexdigest()
    return os.path.join(f"{name}-{digest}", f"attempt-{number}")


def clear(options: Options) -> None:
    """Remove the folders of earlier runs: what is there tells of one run."""
    import shutil

    try:
        entries = [entry for entry in os.scandir(options.artifacts_dir) if entry.is_dir()]
    except FileNotFoundError:
        return
    for entry in entries:
        if _OURS.search(entry.name):  # whatever else is in there is somebody's own
            shutil.rmtree(entry.path, ignore_errors=True)


def check(options: Options) -> None:
    """Find out before the first test whether files can be kept; the folder is there afterwards.

    Raises:
        pytest.UsageError: they cannot.
    """
    import tempfile

    try:
        os.makedirs(options.artifacts_dir, exist_ok=True)
        tempfile.TemporaryFile(dir=options.artifacts_dir).close()
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise pytest.UsageError(
            f"--rpc-artifacts-dir={options.artifacts_dir} takes no files: {error}; expected a "
            "folder that you may write to"
        ) from None


def tidy(options: Options) -> None:
    """Remove the folder of all artifacts if there are none; only when no test runs any more."""
    with contextlib.suppress(OSError):
        os.rmdir(options.artifacts_dir)


def make_folder(options: Options, folder: str) -> str:
    """Make the folder of an attempt, empty; its absolute path."""
    import shutil

    path = os.path.join(options.artifacts_dir, folder)
    shutil.rmtree(path, ignore_errors=True)  # that of an earlier run
    _make(path)
    return path


def _make(path: str) -> None:
    """Make a folder and those above it, which another worker may be removing: ``--dist each``."""
    for _ in range(ATTEMPTS - 1):
        with contextlib.suppress(FileNotFoundError):
            os.makedirs(path, exist_ok=True)
            return
    os.makedirs(path, exist_ok=True)


def is_kept(options: Options, verdict: str) -> bool:
    """Whether the folder of an attempt with this verdict stays."""
    if options.artifacts == "retain-on-failure":
        return verdict not in ("passed", "skipped")
    return options.artifacts == "on"


def store(options: Options, folder: str, attempt: Attempt) -> None:
    """Write down what is known of an attempt: ``attempt.json``, ``error.txt``, ``output.txt``."""
    path = os.path.join(options.artifacts_dir, folder)
    _make(path)
    texts: Mapping[str, str] = {
        "attempt.json": json.dumps(attempt.to_json(), indent=2) + "\n",
        "error.txt": attempt.details,
        "output.txt": attempt.output,
    }
    for name, text in texts.items():
        if text:
            with open(os.path.join(path, name), "w", encoding="utf-8", errors="replace") as file:
                file.write(text)


def discard(options: Options, folder: str) -> None:
    """Remove the folder of an attempt, and that of its test if nothing is left in there."""
    import shutil

    path = os.path.join(options.artifacts_dir, folder)
    shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):  # other attempts of it
        os.rmdir(os.path.dirname(path))
