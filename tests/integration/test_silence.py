"""What never gets into a log or an error: texts, passwords and keys; not even at the level debug."""

import logging
from typing import Any

import pytest

from console.redis_server import RedisServer
from producer import HeadraceError, RowFailed
from producer.wire.keys import Lane
from tests.conftest import StartPool
from tests.integration.harness.commands import run
from tests.integration.harness.poison import KILL, NAN, POISON_POOL, RAISE
from tests.integration.harness.site import Site
from tests.integration.harness.waiting import wait_until

MARK = "xyzzy-confidential"
PASSWORD = "correct-horse-battery"
KEY = "a-signing-key-that-nobody-may-see"


def test_texts_stay_out_of_the_logs_whatever_becomes_of_them(
    solo: Site, start_pool: StartPool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    pool = start_pool(solo, POISON_POOL, HEADRACE_LOG_LEVEL="debug", HEADRACE_MAX_TEXT_BYTES="1000")
    pool.await_healthy()
    stream: Any = solo.queue().lane(Lane.INTERACTIVE)
    for fields in ({MARK: MARK}, {"job": MARK, "0": MARK}, {"job": b"\x81\xa1v" + MARK.encode()}):
        solo.client.xadd(stream, dict[Any, Any](fields))
    with solo.producer() as producer:
        producer.embed(f"{MARK} that is fine")
        for text in (f"{RAISE} {MARK}", f"{NAN} {MARK}", f"{KILL} {MARK}", f"{MARK} {'x' * 2000}"):
            with pytest.raises(RowFailed) as failure:
                producer.embed(text)
            assert MARK not in str(failure.value)
        solo.await_empty()
        wait_until(lambda: producer.queue_state("embed").dead == 7, what="the dead letters")
    pool.terminate()
    pool.wait()

    assert "a row of" in pool.stderr, "the log is there"
    assert MARK not in pool.stderr
    assert MARK not in caplog.text


def test_passwords_and_keys_stay_out_of_the_logs(
    own_server: RedisServer, own_site: Site, start_pool: StartPool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    own_site.client.config_set("requirepass", PASSWORD)
    wrong = own_site.url.replace("redis://", f"redis://:not-{PASSWORD}@")
    right = own_site.url.replace("redis://", f"redis://:{PASSWORD}@")
    secrets = {"HEADRACE_CACHE_KEY": KEY, "HEADRACE_LOG_LEVEL": "debug"}
    refused = start_pool(own_site, REDIS_URL=wrong, **secrets)
    serving = start_pool(own_site, REDIS_URL=right, **secrets)

    with own_site.producer(url=wrong, cache_key=KEY) as producer, pytest.raises(HeadraceError) as failure:
        producer.embed("text")
    with own_site.producer(url=right, cache_key=KEY) as producer:
        producer.embed("text")
        shown = [repr(producer), repr(producer.settings), str(failure.value)]
    refused.wait()
    own_server.kill()
    wait_until(lambda: "Redis does not serve" in serving.stderr, what="trouble in the log")
    serving.terminate()
    serving.wait()
    done = run(own_site, "status", options=("--debug",), REDIS_URL=right, **secrets)

    logs = [refused.stderr, serving.stderr, caplog.text, done.stdout, done.stderr, *shown]
    assert done.returncode != 0
    assert "Traceback" in done.stderr
    assert not [log for log in logs if PASSWORD in log or KEY in log]
