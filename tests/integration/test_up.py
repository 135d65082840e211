"""`headrace up` and `headrace demo`: everything on one machine, and nothing left behind."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from console.redis_server import RedisServer
from tests.integration.harness.commands import await_up
from tests.integration.harness.processes import Program, descendants, is_alive
from tests.integration.harness.waiting import wait_until

Start = Callable[..., Program]


@pytest.fixture
def start(tmp_path: Path, model_cache: Path, server_program: Path) -> Iterator[Start]:
    """Starts `python cli.py …` with nothing set but the cache of models and the server to embed."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "REDIS_"))}
    environ = {**inherited, "HEADRACE_CACHE_DIR": str(model_cache), "HEADRACE_REDIS_SERVER": str(server_program)}
    programs: list[Program] = []

    def start(*arguments: str, **more: str) -> Program:
        command = [sys.executable, "cli.py", *arguments]
        programs.append(Program(command, {**environ, **more}, tmp_path / f"program-{len(programs)}"))
        return programs[-1]

    yield start
    for program in programs:
        program.stop()


def test_up_serves_and_ends_all_it_started(start: Start) -> None:
    up = start("up", "--offline", "--port", "0")
    exports = await_up(up)
    started = descendants(up.pid)
    assert len(started) >= 5, "a server, two pools and their workers"

    asking = start("enqueue", "embed", "--json", "where can I swim?", **exports)
    assert asking.wait() == 0, asking.stderr
    assert json.loads(asking.stdout)["dimension"] == 384
    health = start("health", "rerank", **exports)
    assert health.wait() == 0, health.stderr

    up.terminate()
    assert up.wait() == 0, up.stderr
    assert not any(is_alive(pid) for pid in started)
    assert "Traceback" not in up.stderr


def test_up_keeps_its_data_and_takes_all_down_when_it_is_killed(start: Start, tmp_path: Path) -> None:
    for run in range(2):
        up = start("up", "--offline", "--port", "0", "--data", str(tmp_path / "data"))
        exports = await_up(up)
        started = descendants(up.pid)
        asking = start("enqueue", "embed", "--json", "a text to keep", **exports)
        assert asking.wait() == 0, asking.stderr
        assert json.loads(asking.stdout)["cached"] == bool(run)
        if run == 0:
            up.terminate()
            assert up.wait() == 0, up.stderr
        else:
            up.kill()
        wait_until(lambda pids=started: not any(map(is_alive, pids)), what="the end of all")  # type: ignore[misc]


def test_up_on_a_port_in_use(start: Start, own_server: RedisServer) -> None:
    up = start("up", "--offline", "--port", str(own_server.port))
    assert up.wait() != 0
    assert len(up.stderr.splitlines()) == 1, up.stderr
    assert f"port {own_server.port}" in up.stderr


def test_up_with_a_model_that_is_none(start: Start) -> None:
    up = start("up", "--port", "0", HEADRACE_EMBED_MODEL="no-such-model", HEADRACE_RERANK_MODEL="offline")
    started = _watch(up)
    assert up.wait() != 0
    assert "no model is named 'no-such-model'" in up.stderr
    assert "Traceback" not in up.stderr
    assert not any(is_alive(pid) for pid in started)


def test_the_demo_runs_and_leaves_nothing_behind(start: Start) -> None:
    demo = start("demo")
    started = _watch(demo)
    assert demo.wait() == 0, demo.stderr
    assert len(started) >= 5, "a server, two pools and their workers"
    assert not any(is_alive(pid) for pid in started)
    assert "100 records embedded" in demo.stdout
    assert demo.stderr == ""


def _watch(program: Program) -> set[int]:
    """Wait for the end of a program; return every process that it was seen to start."""
    seen: set[int] = set()

    def ended() -> bool:
        seen.update(descendants(program.pid))
        return not program.running

    wait_until(ended, 180, what="the end of the program", poll_s=0.2)
    return seen
