"""Detached runs under the users of docker/users.acl: operators order them, their workers carry them out."""

from pathlib import Path

import pytest

from producer import RedisUnavailable
from tests.integration.harness import commands, detached
from tests.integration.harness.guarded import guarded_redis
from tests.integration.harness.scripted_runs import attempts
from tests.integration.harness.waiting import wait_until


def test_a_detached_run_is_watched_and_cancelled(acl_server: Path, tmp_path: Path) -> None:
    """In a namespace, which RQ's keys know nothing of."""
    with guarded_redis(acl_server, tmp_path / "redis", namespace="acme") as guarded:
        operator, worker = guarded.site("operator"), guarded.site("reembed")
        finished = detached.detach_script(operator, tmp_path / "finished.json", "unavailable", "finish")
        detached.run_burst(worker, tmp_path / "burst")
        held = detached.detach_script(operator, tmp_path / "held.json", "hold")
        waiting = detached.start_worker(worker, tmp_path / "worker")
        try:
            wait_until(lambda: attempts(tmp_path / "held.json"), what="the run's start")
            commands.check_success(detached.call(worker, "worker", "--check"))
            commands.check_success(detached.call(operator, "cancel", held))
            commands.check_success(detached.call(operator, "watch", finished))
            assert {job["status"] for job in detached.listed(operator)} == {"finished", "stopped"}
            waiting.terminate()
            assert waiting.wait() == 0
        finally:
            waiting.kill_all()
        assert guarded.refusals() == []

        for user in ("producer", "worker"):
            commands.check_one_line(detached.call(guarded.site(user), "list"), "may not do this")
            commands.check_one_line(detached.call(guarded.site(user), "worker", "--check"), "may not do this")
            with pytest.raises(RedisUnavailable, match="may not do this"):
                detached.detach_script(guarded.site(user), tmp_path / "refused.json", "finish")
