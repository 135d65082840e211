"""What the users of docker/users.acl are refused, command by command, and the same through a script."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError
from redis.retry import Retry

from producer.wire import scripts
from producer.wire.keys import GROUP, Lane
from tests.integration.harness.guarded import USERS, Guarded, guarded_redis
from tests.integration.harness.refused import (
    BULK,
    CARD,
    DEAD,
    DETACHED_QUEUE,
    DIGEST,
    ENTRY,
    JOB,
    JOBS,
    LOAD,
    POOLS,
    QUEUE,
    REFUSED,
    REGISTRY,
    REPLY,
    SCORE,
    SIZE,
    STATS,
    WAIT,
    WORKERS,
    Command,
)


@pytest.fixture
def guarded(acl_server: Path, tmp_path: Path) -> Iterator[Guarded]:
    """A server with the users, and one of each key; without users it would do all that is asked of it."""
    open_to_all = ("--enable-debug-command", "yes", "--enable-module-command", "yes")
    with guarded_redis(acl_server, tmp_path, options=open_to_all) as guarded:
        admin = guarded.admin
        for lane in (JOBS, BULK, DEAD):
            admin.xadd(lane, {"job": "a job"}, id=ENTRY)
            admin.xgroup_create(lane, GROUP, id="0")
            admin.xreadgroup(GROUP, "host/0", {lane: ">"})
        for key in (REPLY, SCORE, CARD):
            admin.set(key, "true")
        for key in (WAIT, LOAD, WORKERS, STATS, POOLS, JOB):
            admin.hset(key, "field", "1")
        admin.rpush(DETACHED_QUEUE, "a job")
        admin.zadd(REGISTRY, {"a job": 1})
        yield guarded


def everything(guarded: Guarded) -> dict[bytes, Any]:
    """What the server holds."""
    return {key: guarded.admin.dump(key) for key in guarded.admin.scan_iter()}


def refusal(client: redis.Redis, command: Command) -> str:
    """What the server answers to a command; empty if it did as it was told."""
    try:
        client.execute_command(*command)
    except NoPermissionError as error:
        return f"NOPERM {error}"
    except ResponseError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("user", USERS)
def test_what_a_user_need_not_do_is_refused(guarded: Guarded, user: str) -> None:
    before = everything(guarded)
    with guarded.client(user) as client:
        answers = {command: refusal(client, command) for command in REFUSED[user]}
    assert {command: answer for command, answer in answers.items() if not answer.startswith("NOPERM")} == {}
    assert everything(guarded) == before


@pytest.mark.parametrize("user", USERS)
def test_a_script_may_do_no_more_than_its_caller(guarded: Guarded, user: str) -> None:
    """Workers load what they like; commands that no script may call are refused for that reason."""
    before = everything(guarded)
    with guarded.client("worker") as worker:
        sha = worker.script_load("return redis.call(unpack(ARGV))")
    with guarded.client(user) as client:
        answers = {command: refusal(client, ("EVALSHA", sha, 0, *command)) for command in REFUSED[user]}
        declared = refusal(client, ("EVALSHA", sha, 1, REPLY, "TIME"))
    allowed = {command: answer for command, answer in answers.items() if not _is_refused(answer)}
    assert allowed == {}
    assert declared.startswith("NOPERM"), "nor may it name other keys"
    assert everything(guarded) == before


@pytest.mark.parametrize("user", ["producer", "reembed", "operator"])
def test_the_workers_scripts_end_nothing_for_others(guarded: Guarded, user: str) -> None:
    guarded.load_scripts()
    before = everything(guarded)
    calls = [
        scripts.complete(QUEUE, Lane.INTERACTIVE, [DIGEST], [SIZE]),
        scripts.complete(QUEUE, Lane.INTERACTIVE, [], [SIZE]),
        scripts.expire(QUEUE, Lane.INTERACTIVE, [DIGEST], SIZE),
        scripts.expire(QUEUE, Lane.INTERACTIVE, [], SIZE),
        scripts.claim(QUEUE, "host/0", b"", b"forged"),
    ]
    with guarded.client(user) as client:
        answers = [refusal(client, call.command) for call in calls]
    assert [answer for answer in answers if not _is_refused(answer)] == []
    assert everything(guarded) == before


def test_the_worker_cannot_enqueue(guarded: Guarded) -> None:
    with guarded.client("worker") as worker:
        sha = worker.script_load("return redis.call('XADD', KEYS[1], '*', 'job', 'forged')")
        assert _is_refused(refusal(worker, ("EVALSHA", sha, 1, JOBS)))


def test_nobody_else_gets_in(guarded: Guarded) -> None:
    others_password = guarded.passwords["producer"]
    for credentials in ("", ":guess@", "default:guess@", f":{others_password}@", f"worker:{others_password}@"):
        url = f"redis://{credentials}127.0.0.1:{guarded.port}/0?protocol=2"
        refused = pytest.raises(AuthenticationError, match=r"Authentication required|invalid username-password pair")
        with redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0)) as client, refused:
            client.ping()


def test_another_namespace_is_closed(acl_server: Path, tmp_path: Path) -> None:
    with guarded_redis(acl_server, tmp_path, namespace="acme") as guarded, guarded.client("producer") as producer:
        assert producer.xlen(f"acme:{JOBS}") == 0
        for key in (JOBS, f"other:{JOBS}", f"acme:other:{JOBS}"):
            assert refusal(producer, ("XLEN", key)).startswith("NOPERM")
        assert refusal(producer, ("SUBSCRIBE", "hint:me")).startswith("NOPERM")


def _is_refused(answer: str) -> bool:
    """Whether an answer is about rights; in scripts, servers word it differently and do not always say NOPERM."""
    reasons = ("NOPERM", "ACL failure in script", "user executing the script can't", "not allowed from script")
    return any(reason in answer for reason in reasons)
