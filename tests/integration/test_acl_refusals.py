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
from producer.wire.keys import GROUP, Kind, Lane, QueueKeys, digest, pools_key
from producer.wire.messages import EntrySize
from producer.wire.models import resolve
from producer.wire.scripts import Argument
from tests.integration.harness.guarded import USERS, Guarded, guarded_redis

Command = tuple[Argument, ...]

QUEUE = QueueKeys.of(resolve("embed", "fake"))
RANKING = QueueKeys.of(resolve("rerank", "fake"))
DIGEST = digest(Kind.PASSAGE, "a text")
JOBS, BULK, DEAD = QUEUE.lane(Lane.INTERACTIVE), QUEUE.lane(Lane.BULK), QUEUE.dead
REPLY, SCORE, WAIT = QUEUE.reply(DIGEST), RANKING.reply(DIGEST), QUEUE.wait(DIGEST)
POOLS, LOAD, CARD, WORKERS, STATS = pools_key(), QUEUE.load, QUEUE.card, QUEUE.workers, QUEUE.stats
ENTRY = "1-1"
SIZE = EntrySize(id=ENTRY.encode(), rows=1, size_bytes=10)

FROM_EVERYBODY: list[Command] = [
    ("ACL", "LIST"),
    ("ACL", "SETUSER", "producer", "+@all"),
    ("ACL", "WHOAMI"),
    ("BGREWRITEAOF",),
    ("CLIENT", "KILL", "TYPE", "normal"),
    ("CLIENT", "LIST"),
    ("CLIENT", "PAUSE", 1),
    ("CLUSTER", "INFO"),
    ("COMMAND", "COUNT"),
    ("CONFIG", "GET", "*"),
    ("CONFIG", "SET", "dir", "/tmp"),
    ("COPY", REPLY, "emb:copy"),
    ("DBSIZE",),
    ("DEBUG", "SLEEP", 0),
    ("DEL", JOBS),
    ("DEL", REPLY),
    ("DEL", DEAD),
    ("DEL", CARD),
    ("DUMP", REPLY),
    ("EVAL", "return 1", 0),
    ("EVAL_RO", "return 1", 0),
    ("EXPIRE", JOBS, 1),
    ("FAILOVER",),
    ("FCALL", "function", 0),
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("FUNCTION", "LOAD", "#!lua name=mine\n"),
    ("GETDEL", REPLY),
    ("KEYS", "*"),
    ("LATENCY", "RESET"),
    ("MEMORY", "DOCTOR"),
    ("MIGRATE", "127.0.0.1", 1, REPLY, 0, 1),
    ("MODULE", "LIST"),
    ("MODULE", "LOAD", "/tmp/module.so"),
    ("MONITOR",),
    ("MOVE", REPLY, 1),
    ("OBJECT", "FREQ", REPLY),
    ("PERSIST", REPLY),
    ("PSUBSCRIBE", "*"),
    ("PSUBSCRIBE", "hint:*"),
    ("PUBLISH", "news", "text"),
    ("PUBSUB", "CHANNELS"),
    ("RANDOMKEY",),
    ("RENAME", JOBS, BULK),
    ("REPLICAOF", "NO", "ONE"),
    ("RESTORE", "emb:new", 0, "payload"),
    ("SAVE",),
    ("SCAN", 0),
    ("SCRIPT", "FLUSH"),
    ("SCRIPT", "KILL"),
    ("SELECT", 1),
    ("SHUTDOWN", "NOSAVE"),
    ("SLOWLOG", "GET"),
    ("SORT", WORKERS),
    ("SUBSCRIBE", "__keyspace@0__:*"),
    ("SUBSCRIBE", "news"),
    ("SWAPDB", 0, 1),
    ("SYNC",),
    ("TOUCH", REPLY),
    ("UNLINK", JOBS),
    ("UNLINK", WAIT),
    ("XREAD", "STREAMS", DEAD, 0),
    ("XREAD", "STREAMS", JOBS, 0),
    ("XSETID", JOBS, "9-9"),
    ("XTRIM", JOBS, "MAXLEN", 0),
    *(("GET", key) for key in ("another", "emb", "embed", f"{REPLY}".upper(), f"other:{REPLY}")),
    *(("XLEN", key) for key in ("another", f"other:{JOBS}", JOBS.replace("{embed:", "{other:"))),
]

FROM_PRODUCERS_AND_OPERATORS: list[Command] = [
    ("MULTI",),
    *(
        command
        for key in (REPLY, SCORE)
        for command in (
            ("SET", key, "forged"),
            ("SET", key, "forged", "NX"),
            ("SETEX", key, 60, "forged"),
            ("GETEX", key, "PERSIST"),
            ("APPEND", key, "forged"),
            ("SETRANGE", key, 0, "forged"),
            ("MSET", key, "forged"),
            ("HSET", key, "field", "forged"),
            ("PEXPIRE", key, 1),
            ("XADD", key, "*", "field", "forged"),
        )
    ),
    ("COPY", CARD, REPLY),
    ("DEL", WAIT),
    ("HDEL", WAIT, "entry"),
    ("HGETALL", WAIT),
    ("HDEL", WORKERS, "host/0"),
    ("HSET", WORKERS, "host/0", "forged"),
    ("HSET", POOLS, "embed:other", "forged"),
    ("HSET", STATS, "rows", 0),
    ("HINCRBY", LOAD, "bulk:rows", -5),
    ("DEL", LOAD),
    ("INFO",),
    ("SCRIPT", "LOAD", "return 1"),
    ("SCRIPT", "EXISTS", "0" * 40),
    ("SET", CARD, "forged"),
    ("SET", LOAD, "forged"),
    ("SET", WAIT, "forged"),
    ("XACK", JOBS, GROUP, ENTRY),
    ("XADD", DEAD, "*", "dead:code", "forged"),
    ("XAUTOCLAIM", JOBS, GROUP, "me", 0, "0"),
    ("XCLAIM", JOBS, GROUP, "me", 0, ENTRY),
    ("XDEL", JOBS, ENTRY),
    ("XDEL", BULK, ENTRY),
    ("XGROUP", "CREATE", JOBS, "mine", "0"),
    ("XGROUP", "DELCONSUMER", JOBS, GROUP, "host/0"),
    ("XGROUP", "DESTROY", JOBS, GROUP),
    ("XGROUP", "SETID", JOBS, GROUP, "$"),
    ("XINFO", "CONSUMERS", JOBS, GROUP),
    ("XREADGROUP", "GROUP", GROUP, "me", "STREAMS", JOBS, ">"),
]

REFUSED: dict[str, list[Command]] = {
    "producer": [
        *FROM_EVERYBODY,
        *FROM_PRODUCERS_AND_OPERATORS,
        ("XRANGE", DEAD, "-", "+"),
        ("XREVRANGE", DEAD, "+", "-"),
        ("XDEL", DEAD, ENTRY),
        ("XTRIM", DEAD, "MAXLEN", 0),
        ("XREADGROUP", "GROUP", GROUP, "me", "STREAMS", DEAD, ">"),
        ("XINFO", "STREAM", DEAD),
    ],
    "operator": [*FROM_EVERYBODY, *FROM_PRODUCERS_AND_OPERATORS],
    "worker": [
        *FROM_EVERYBODY,
        *(
            command
            for key in (REPLY, SCORE)
            for command in (
                ("GET", key),
                ("APPEND", key, "forged"),
                ("HSET", key, "field", "forged"),
                ("PEXPIRE", key, 1),
                ("XADD", key, "*", "field", "forged"),
            )
        ),
        ("HGETALL", POOLS),
        ("HDEL", POOLS, "embed:fake"),
        ("HSET", WAIT, "entry", "forged"),
        ("HSET", STATS, "rows", 0),
        ("SET", JOBS, "forged"),
        ("SUBSCRIBE", "hint:anybody"),
        ("XADD", JOBS, "*", "job", "forged"),
        ("XADD", BULK, "*", "job", "forged"),
        ("XDEL", DEAD, ENTRY),
        ("XGROUP", "CREATE", DEAD, "mine", "0"),
        ("XGROUP", "DESTROY", JOBS, GROUP),
        ("XGROUP", "SETID", JOBS, GROUP, "$"),
        ("XRANGE", DEAD, "-", "+"),
        ("XREVRANGE", DEAD, "+", "-"),
        ("XREADGROUP", "GROUP", GROUP, "me", "STREAMS", DEAD, ">"),
        ("XAUTOCLAIM", DEAD, GROUP, "me", 0, "0"),
    ],
}


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
        for key in (WAIT, LOAD, WORKERS, STATS, POOLS):
            admin.hset(key, "field", "1")
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


@pytest.mark.parametrize("user", ["producer", "operator"])
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
