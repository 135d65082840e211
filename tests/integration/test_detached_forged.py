"""What somebody else may leave among RQ's keys: no function but ours is called, and no pickle is loaded."""

import os
import pickle
from pathlib import Path

import pytest
from rq import Callback, Queue
from rq.serializers import DefaultSerializer, JSONSerializer

from producer.bulk.job_queue import FUNCTION, ReembedJob, queue_name
from tests.integration.harness.detached import call, detach_script, listed, run_burst, status_of
from tests.integration.harness.scripted_runs import attempts
from tests.integration.harness.site import Site

BETRAY = "tests.integration.harness.scripted_runs.betray"


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self._folder,)


@pytest.mark.parametrize("serializer", [DefaultSerializer, JSONSerializer])
@pytest.mark.parametrize("function", ["os.mkdir", FUNCTION])
def test_a_foreign_job_is_not_run(solo: Site, tmp_path: Path, serializer: type, function: str) -> None:
    made = tmp_path / "made"
    queue = Queue(queue_name(solo.namespace), solo.client, serializer=serializer)  # type: ignore[arg-type]
    callbacks = dict.fromkeys(("on_success", "on_failure", "on_stopped"), Callback(BETRAY))
    job = queue.enqueue(function, str(made), **callbacks)

    worker = run_burst(solo, tmp_path / "worker")

    assert not made.exists()
    assert solo.client.hget(job.key, "status") == b"failed"
    assert "Traceback" not in worker.stderr
    assert listed(solo) == []


def test_what_is_pickled_is_not_loaded(solo: Site, tmp_path: Path) -> None:
    source = tmp_path / "source.json"
    made = tmp_path / "made"
    job_id = detach_script(solo, source, "finish")
    trap = pickle.dumps(Trap(made))
    solo.client.hset(ReembedJob.key_for(job_id), mapping={"meta": trap, "result": trap})

    assert status_of(solo, job_id) == "queued"
    run_burst(solo, tmp_path / "worker")
    assert len(attempts(source)) == 1
    solo.client.hset(ReembedJob.key_for(job_id), mapping={"data": trap, "meta": trap, "result": trap})
    assert call(solo, "watch", job_id).exit_code == 1

    assert not made.exists()
    pickle.loads(trap)
    assert made.exists(), "the trap works"


def test_nothing_of_ours_reaches_the_serializer_that_pickles(
    solo: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("RQ's default serializer was used")

    monkeypatch.setattr(DefaultSerializer, "dumps", refuse)
    monkeypatch.setattr(DefaultSerializer, "loads", refuse)
    done = detach_script(solo, tmp_path / "done.json", "unavailable", "die", "finish")
    run_burst(solo, tmp_path / "worker")  # which refuses it, too
    waiting = detach_script(solo, tmp_path / "waiting.json", "finish")

    assert call(solo, "watch", done).exit_code == 0
    assert call(solo, "cancel", waiting).exit_code == 0
    assert {job["id"] for job in listed(solo)} == {done, waiting}
