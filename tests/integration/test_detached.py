"""Detached re-embeddings as jobs of RQ's: run, watched, retried, cancelled, and abandoned ones taken up again."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from producer import RedisUnavailable
from producer.bulk.job_queue import QUEUE, ReembedJob, queue_name
from tests.integration.harness import commands
from tests.integration.harness.detached import (
    SCRIPTED_WORKER,
    abandon,
    call,
    detach_script,
    listed,
    run_burst,
    silence,
    start_rq,
    start_worker,
    status_of,
)
from tests.integration.harness.ports import free_port
from tests.integration.harness.processes import Program, is_alive
from tests.integration.harness.scripted import ScriptedSentinel, names
from tests.integration.harness.scripted_runs import LINE_OF_A_DEFECT, attempts
from tests.integration.harness.site import Site
from tests.integration.harness.waiting import wait_until


@pytest.fixture
def start(solo: Site, tmp_path: Path) -> Iterator[Callable[[], Program]]:
    """Starts a worker that waits for more, and ends it."""
    started: list[Program] = []

    def start() -> Program:
        started.append(start_worker(solo, tmp_path / "worker"))
        return started[-1]

    yield start
    for worker in started:
        worker.kill_all()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "source.json"


def test_a_detached_run_is_carried_out_with_the_settings_it_brought(solo: Site, source: Path, tmp_path: Path) -> None:
    job_id = detach_script(solo, source, "finish")
    assert status_of(solo, job_id) == "queued"

    worker = run_burst(solo, tmp_path / "worker", HEADRACE_EMBED_MODEL="another", HEADRACE_STATE_DIR="/state")

    assert job_id in worker.stderr
    assert "cleaning" not in worker.stderr
    (job,) = listed(solo)
    assert (job["status"], job["rows"], job["rejected"], job["attempt"]) == ("finished", 9, 1, 1)
    assert job["percent"] == 100
    (noted,) = attempts(source)
    assert noted["job"] == job_id
    assert (noted["model"], noted["namespace"], noted["state_dir"]) == (solo.model, solo.namespace, "/state")
    watched = commands.check_success(call(solo, "watch", job_id))
    assert watched == f"9 rows written to {job['sink']}, 1 failed (see /rejects), counts agree\n"
    assert str(source) in call(solo, "list").stdout


def test_failures_that_may_pass_are_tried_again(solo: Site, source: Path, tmp_path: Path) -> None:
    job_id = detach_script(solo, source, "unavailable", "unavailable", "finish")

    worker = run_burst(solo, tmp_path / "worker")

    assert len(attempts(source)) == 3
    assert status_of(solo, job_id) == "finished"
    assert "cannot be reached" in worker.stderr
    assert "Traceback" not in worker.stderr


@pytest.mark.parametrize(
    ("step", "reason"), [("configuration", "the sink exists: choose another name"), ("defect", "ValueError")]
)
def test_failures_that_stay_are_not(solo: Site, source: Path, tmp_path: Path, step: str, reason: str) -> None:
    job_id = detach_script(solo, source, step)

    worker = run_burst(solo, tmp_path / "worker")

    assert len(attempts(source)) == 1
    commands.check_one_line(call(solo, "watch", job_id), job_id, reason)
    kept = ReembedJob.fetch(job_id, solo.client).latest_result()
    assert kept is not None
    assert reason in str(kept.exc_string).splitlines()[-1]
    assert LINE_OF_A_DEFECT not in f"{worker.stderr}{worker.stdout}{kept.exc_string}"


def test_a_killed_process_goes_on_in_another(solo: Site, source: Path, tmp_path: Path) -> None:
    job_id = detach_script(solo, source, "die", "finish")

    run_burst(solo, tmp_path / "worker")

    assert len(attempts(source)) == 2
    (job,) = listed(solo)
    assert (job["id"], job["status"], job["attempt"]) == (job_id, "finished", 2)


def test_what_a_killed_process_has_told_is_kept(solo: Site, source: Path, tmp_path: Path) -> None:
    detach_script(solo, source, "die", "die", "configuration")

    run_burst(solo, tmp_path / "worker")

    (job,) = listed(solo)
    assert (job["status"], job["attempt"], job["rows"]) == ("failed", 3, 6)


def test_a_killed_worker_takes_its_run_along_and_another_takes_it_up(
    solo: Site, source: Path, start: Callable[[], Program], tmp_path: Path
) -> None:
    job_id = detach_script(solo, source, "hold", "finish")
    worker = start()
    (noted,) = wait_until(lambda: attempts(source), what="the run's start")

    worker.kill()

    wait_until(lambda: not is_alive(noted["pid"]), what="the end of the run without its worker")
    silence(solo)
    run_burst(solo, tmp_path / "another")
    assert len(attempts(source)) == 2
    assert status_of(solo, job_id) == "finished"


def test_sigterm_waits_for_the_run(solo: Site, source: Path, start: Callable[[], Program]) -> None:
    job_id = detach_script(solo, source, "hold")
    worker = start()
    wait_until(lambda: attempts(source), what="the run's start")
    assert call(solo, "worker", "--check").exit_code == 0

    worker.terminate()
    wait_until(lambda: "warm shut down" in worker.stderr, what="the worker's answer")
    source.with_suffix(".go").touch()

    assert worker.wait() == 0
    assert status_of(solo, job_id) == "finished"
    commands.check_one_line(call(solo, "worker", "--check"), "no worker")


def test_a_queued_run_is_cancelled(solo: Site, source: Path, tmp_path: Path) -> None:
    job_id = detach_script(solo, source, "finish")

    assert "--resume" in commands.check_success(call(solo, "cancel", job_id))

    run_burst(solo, tmp_path / "worker")
    assert attempts(source) == []
    assert status_of(solo, job_id) == "canceled"
    commands.check_one_line(call(solo, "watch", job_id), "it was canceled")
    commands.check_one_line(call(solo, "cancel", job_id), "is over")


def test_a_running_run_is_stopped_and_its_worker_is_not(solo: Site, source: Path, start: Callable[[], Program]) -> None:
    job_id = detach_script(solo, source, "hold")
    worker = start()
    (noted,) = wait_until(lambda: attempts(source), what="the run's start")

    assert "stopped after 5 rows" in commands.check_success(call(solo, "cancel", job_id))

    assert not is_alive(noted["pid"])
    assert status_of(solo, job_id) == "stopped"
    assert worker.running
    worker.terminate()
    assert worker.wait() == 0
    assert len(attempts(source)) == 1


def test_ctrl_c_ends_the_watching_alone(solo: Site, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    job_id = detach_script(solo, source, "finish")
    monkeypatch.setattr("console.reembed_jobs.time.sleep", interrupt)

    done = call(solo, "watch", job_id)

    assert done.exit_code == 130
    progress, last = done.stderr.splitlines()
    assert progress == "queued: 0 rows, 0 failed; no worker runs: headrace reembed worker"
    assert last == f"headrace: stopped watching; job {job_id} goes on"
    assert status_of(solo, job_id) == "queued"


def test_an_abandoned_run_is_cancelled(solo: Site, source: Path, tmp_path: Path) -> None:
    job_id = abandon(solo, tmp_path)
    assert status_of(solo, job_id) == "abandoned"

    commands.check_success(call(solo, "cancel", job_id))

    run_burst(solo, tmp_path / "another")
    assert status_of(solo, job_id) == "canceled"


@pytest.mark.parametrize("command", ["watch", "cancel"])
def test_an_unknown_job_is_one_line(solo: Site, command: str) -> None:
    commands.check_one_line(call(solo, command, "3fa9c1d20b7e"), "there is no detached job '3fa9c1d20b7e'")
    commands.check_one_line(call(solo, command, "../*"), "there is no detached job '../*'")


def test_a_folder_for_state_is_its_workers_to_choose(solo: Site, source: Path, tmp_path: Path) -> None:
    ends = (str(source), str(tmp_path / "sink.jsonl"))
    done = commands.call(solo, "reembed", *ends, "--detach", "--state-dir", str(tmp_path))
    commands.check_one_line(done, "pass --state-dir to that")


def test_another_namespace_is_not_seen(solo: Site, source: Path) -> None:
    job_id = detach_script(solo, source, "finish")
    other = replace(solo, namespace=f"{solo.namespace}-other")

    assert listed(other) == []
    commands.check_one_line(call(other, "cancel", job_id), "there is no detached job")


def test_a_redis_that_is_away_is_one_line(solo: Site, source: Path) -> None:
    away = replace(solo, url=f"redis://127.0.0.1:{free_port()}/0")

    with pytest.raises(RedisUnavailable):
        detach_script(away, source, "finish")
    for arguments in (["list"], ["watch", "3fa9c1d20b7e"], ["worker", "--burst"], ["worker", "--check"]):
        commands.check_one_line(call(away, *arguments), "Redis cannot be reached")


def test_sentinels_are_asked_where_the_queue_is(solo: Site, source: Path, tmp_path: Path) -> None:
    port = int(solo.url.rpartition(":")[2].partition("/")[0])
    with ScriptedSentinel([names(port)]) as sentinel:
        found = replace(solo, url=f"redis+sentinel://127.0.0.1:{sentinel.port}/headrace/0")
        job_id = detach_script(found, source, "finish")
        run_burst(found, tmp_path / "worker")
        assert status_of(found, job_id) == "finished"
    assert attempts(source)[0]["url"] == found.url


def test_a_plain_rq_worker_runs_the_queue_on_its_own_connection(own_site: Site, source: Path, tmp_path: Path) -> None:
    site = replace(own_site, namespace="")
    job_id = detach_script(site, source, "die", "unavailable", "finish")
    config = ["--config", SCRIPTED_WORKER, "--serializer", "rq.serializers.JSONSerializer"]

    rq = start_rq(tmp_path / "worker", "worker", QUEUE, "--url", site.url, "--burst", *config)

    assert rq.wait() == 0, rq.stderr
    assert [noted["url"] for noted in attempts(source)] == [site.url.replace("localhost", "127.0.0.1")] * 3
    assert status_of(site, job_id) == "finished"
    assert len(source.with_suffix(".log").read_text().splitlines()) == 3


def test_rq_info_shows_the_queue(solo: Site, source: Path, tmp_path: Path) -> None:
    detach_script(solo, source, "finish")

    info = start_rq(tmp_path / "info", "info", "--url", solo.url, "--raw", "--only-queues", queue_name(solo.namespace))

    assert info.wait() == 0, info.stderr
    assert f"queue {queue_name(solo.namespace)} 1, 0 executing, 0 finished, 0 failed" in info.stdout
