"""The suite that every kind of server passes, against TVM's, but for its known deviations."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIMIT_S = 300.0
"""Of the suite, which takes half a minute."""


@pytest.mark.limit_s(LIMIT_S + 30)
def test_conformance(tmp_path: Path) -> None:
    """What is tested of our servers is what TVM's does; `deviations.py` says where it is not."""
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "tests/conformance", "--conformance=tvm"),
            *("-p", "no:cacheprovider", f"--basetemp={tmp_path / 'own'}"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    passed = re.search(r"(\d+) passed", run.stdout)
    said = run.stdout[-8000:] + run.stderr[-2000:]
    assert run.returncode == 0, said
    assert passed is not None, said
    assert int(passed[1]) > 140, said
