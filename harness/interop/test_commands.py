"""The commands of ours that ask others, with trackers and servers of either kind."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from .clients import HOST
from .servers import KEY, wait_for_queue

if TYPE_CHECKING:
    from .clients import Client
    from .conftest import Cast
    from .servers import Farm, Launcher, Program

LIMIT_S = 40


def run(*words: str) -> tuple[int, str]:
    """The exit status of ``tvmrpc`` with these words, and what it printed to stdout."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest_tvmrpc", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    return done.returncode, done.stdout


def examined(*words: str) -> dict[str, Any]:
    """The steps of the doctor, by name; all of them well."""
    status, output = run("doctor", "--json", *words)
    steps = {step["name"]: step for step in json.loads(output)["steps"]}
    assert status == 0, output
    assert {step["outcome"] for step in steps.values()} == {"ok"}
    return steps


def test_doctor_of_a_farm(cast: Cast, tracker: Any, farm: Farm) -> None:
    """Each hop is well, and known for what it is; the device is free afterwards, time and again."""
    for _ in range(3):
        steps = examined(f"--tracker={HOST}:{farm.tracker.port}")
        assert steps["tracker"]["values"]["kind"] == {"tvm": "tvm", "ours": "tvmrpc"}[cast.tracker]
        expected = "tvm" if cast.server == "tvm" else "tvmrpc"
        assert steps["handshake"]["values"]["server"] == expected
        wait_for_queue(tracker, KEY, free=1)


@pytest.mark.parametrize("kind", ["tvm", "ours"])
def test_doctor_of_a_server(kind: str, launcher: Launcher) -> None:
    """Without tracker; it serves on after a client with a wrong key, and after each try."""
    server = launcher.server(kind)
    try:
        status, output = run("doctor", f"{HOST}:{server.port}", "--key=wrong", "--json")
        assert status == 1
        assert "refuses the key 'wrong'" in output
        for _ in range(3):
            assert examined(f"{HOST}:{server.port}", f"--key={KEY}")
    finally:
        launcher.stop(server)


@pytest.mark.parametrize("kind", ["tvm", "ours"])
def test_doctor_of_the_wrong_kind(kind: str, launcher: Launcher) -> None:
    """A tracker taken for a server, and the other way round: it says so, and both go on."""
    programs: list[Program] = [launcher.tracker(kind), launcher.server(kind)]
    tracker, server = programs
    try:
        for _ in range(2):
            status, output = run("doctor", f"{HOST}:{tracker.port}", "--json")
            assert status == 1
            assert "is a tracker, not a server" in output
            status, output = run("doctor", f"--tracker={HOST}:{server.port}", "--json")
            assert status == 1
            assert "is a server or proxy, not a tracker" in output
        examined(f"{HOST}:{server.port}", f"--key={KEY}")
    finally:
        for program in programs:
            launcher.stop(program)


def test_query(tracker: Any, farm: Farm) -> None:
    """The table is the one that TVM's client makes of the same tracker."""
    status, output = run("query", f"--host={HOST}", f"--port={farm.tracker.port}")
    assert status == 0
    assert output == f"Tracker address {HOST}:{farm.tracker.port}\n\n{tracker.text_summary()}\n"


def test_who(cast: Cast, farm_client: Client, tracker: Any, farm: Farm) -> None:
    """Ours knows that somebody has the device, TVM's only that it is not free."""
    session = tracker.request(KEY)
    wait_for_queue(tracker, KEY, free=0)
    status, output = run("who", f"--port={farm.tracker.port}", "--json")
    told = json.loads(output)
    if cast.tracker == "tvm":
        assert status == 3
        assert told["summary"]["queue_info"][KEY] == {"free": 0, "pending": 0}
    else:
        assert status == 0
        (server,) = told["servers"]
        assert (server["key"], server["state"]) == (KEY, "busy")
        assert server["holder"]["peer"].startswith(HOST)
    farm_client.end(session)


def test_kick(cast: Cast, farm_client: Client, tracker: Any, farm: Farm) -> None:
    """Where tracker and server are ours, the device is free again; else it is said why not."""
    session = tracker.request(KEY)
    wait_for_queue(tracker, KEY, free=0)
    status, _ = run("kick", f"--port={farm.tracker.port}", KEY)
    if cast.tracker == "ours" and cast.server != "tvm":
        assert status == 0
        wait_for_queue(tracker, KEY, free=1)
    else:
        assert status == 1
        assert session.get_function("rpc.test.addone")(1) == 2
    farm_client.end(session)
