"""`tvmrpc doctor` with servers of TVM 0.8 to 0.20: they are well, or it says what is not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Callable, Dict, Tuple

import pytest

from pytest_tvmrpc.exec import doctor

from .functions import FUNCTIONS

if TYPE_CHECKING:
    from .server import LegacyServer

FILES = ("upload", "download", "remove")


@pytest.fixture(name="examined")
def _examined(
    capsys: pytest.CaptureFixture[str],
) -> Callable[[LegacyServer], Tuple[int, Dict[str, Any]]]:
    """``examined(server)``: the exit status, and the steps by name."""

    def run(server: LegacyServer) -> Tuple[int, Dict[str, Any]]:
        status = doctor.main([f"127.0.0.1:{server.port}", "--json", f"--key={server.key}"])
        steps = json.loads(capsys.readouterr().out)["steps"]
        return status, {step["name"]: step for step in steps}

    return run


def test_an_old_server_is_well(old: LegacyServer, examined: Any, deadline_s: float) -> None:
    """Every step goes well, the dialect is named, and the session ends as TVM's clients end it."""
    status, steps = examined(old)
    assert status == 0, steps
    assert {step["outcome"] for step in steps.values()} == {"ok"}
    assert steps["session"]["values"] == {"dialect": "legacy"}
    assert old.session.done.wait(deadline_s)
    assert old.session.ended == "Shutdown"


def test_a_server_that_cannot_add(legacy_server: Any, examined: Any, deadline_s: float) -> None:
    """The step that fails says what came; the session is closed all the same."""
    server = legacy_server(functions={"rpc.test.addone": FUNCTIONS["rpc.test.strcat"]})
    status, steps = examined(server)
    assert status == 1
    assert steps["call"]["outcome"] == "FAILED"
    assert steps["bandwidth"]["outcome"] == "skipped"
    assert steps["clean-up"]["outcome"] == "ok"
    assert server.session.done.wait(deadline_s)
    assert server.session.ended == "Shutdown"


def test_a_server_with_few_functions(legacy_server: Any, examined: Any) -> None:
    """What it lacks is skipped; the round trip is measured with what every server can do."""
    few = {f"tvm.rpc.server.{name}": None for name in FILES}
    tried = ("rpc.test.addone", "testing.echo", "tvm.rpc.server.workpath")
    server = legacy_server(functions={**few, **dict.fromkeys(tried)})
    status, steps = examined(server)
    assert status == 0, steps
    skipped = {name for name, step in steps.items() if step["outcome"] == "skipped"}
    assert skipped == {"files", "call"}
    assert "has no function tvm.rpc.server.upload" in steps["files"]["facts"]
    assert "rpc.test.addone" in steps["call"]["facts"]
    assert steps["round trip"]["values"]["calls"] > 1
