"""A detached run with a real source, sink and queue, whose worker is killed in the middle."""

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from console.reembed_jobs import detach
from producer.bulk.detached import find_job
from producer.bulk.order import Order
from producer.bulk.runs import run_order
from producer.settings import StoreSettings
from tests.integration.harness import detached
from tests.integration.harness.engine import Engine
from tests.integration.harness.fake_model import FakeModel
from tests.integration.harness.site import Site
from tests.integration.harness.waiting import wait_until

ROWS = 400
HELD = "text 250"


def test_a_run_whose_worker_is_killed_ends_like_an_undisturbed_one(solo: Site, tmp_path: Path) -> None:
    reached, released = threading.Event(), threading.Event()

    def hold(batch: Sequence[Any]) -> None:
        if HELD in batch:
            reached.set()
            released.wait(60)

    source = tmp_path / "rows.jsonl"
    source.write_text("".join(f"{json.dumps({'id': n, 'text': f'text {n}'})}\n" for n in range(ROWS)))
    order = Order(source=str(source), sink=str(tmp_path / "detached.jsonl"), window=40)
    state = {"HEADRACE_STATE_DIR": str(tmp_path / "state")}
    with Engine(solo, FakeModel(hold), batch_tokens=32):
        job_id = detach(order, detached.settings_of(solo))
        worker = detached.start_worker(solo, tmp_path / "worker", scripted=False, **state)
        try:
            wait_until(reached.is_set, what="the row in the middle")
        finally:
            worker.kill_all()
            released.set()
        detached.silence(solo)
        detached.run_burst(solo, tmp_path / "another", scripted=False, **state)
        undisturbed = Order(source=str(source), sink=str(tmp_path / "undisturbed.jsonl"), window=40)
        run_order(undisturbed, detached.settings_of(solo), StoreSettings(state_dir=str(tmp_path / "other-state")))

    job = find_job(solo.client, solo.namespace, job_id)
    assert (job.status, job.rows, job.rejected, job.attempt) == ("finished", ROWS, 0, 2)
    assert job.result is not None
    assert job.result["resumed_rows"] > 0
    assert Path(order.sink).read_bytes() == Path(undisturbed.sink).read_bytes()
