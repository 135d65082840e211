"""What each user of docker/users.acl is refused: commands on one key of each kind."""

from producer.wire.keys import GROUP, Kind, Lane, QueueKeys, digest, pools_key
from producer.wire.messages import EntrySize
from producer.wire.models import resolve
from producer.wire.scripts import Argument

Command = tuple[Argument, ...]

QUEUE = QueueKeys.of(resolve("embed", "fake"))
RANKING = QueueKeys.of(resolve("rerank", "fake"))
DIGEST = digest(Kind.PASSAGE, "a text")
JOBS, BULK, DEAD = QUEUE.lane(Lane.INTERACTIVE), QUEUE.lane(Lane.BULK), QUEUE.dead
REPLY, SCORE, WAIT = QUEUE.reply(DIGEST), RANKING.reply(DIGEST), QUEUE.wait(DIGEST)
POOLS, LOAD, CARD, WORKERS, STATS = pools_key(), QUEUE.load, QUEUE.card, QUEUE.workers, QUEUE.stats
ENTRY = "1-1"
SIZE = EntrySize(id=ENTRY.encode(), rows=1, size_bytes=10)
DETACHED_QUEUE, REGISTRY, JOB = "rq:queue:headrace-reembed", "rq:failed:headrace-reembed", "rq:job:3fa9c1d20b7e"

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

FROM_ALL_BUT_WORKERS: list[Command] = [
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

DEAD_LETTERS: list[Command] = [
    ("XRANGE", DEAD, "-", "+"),
    ("XREVRANGE", DEAD, "+", "-"),
    ("XDEL", DEAD, ENTRY),
    ("XTRIM", DEAD, "MAXLEN", 0),
    ("XREADGROUP", "GROUP", GROUP, "me", "STREAMS", DEAD, ">"),
    ("XINFO", "STREAM", DEAD),
]

DETACHED: list[Command] = [
    ("HSET", JOB, "data", "forged"),
    ("HGETALL", JOB),
    ("RPUSH", DETACHED_QUEUE, "forged"),
    ("LRANGE", DETACHED_QUEUE, 0, -1),
    ("LREM", DETACHED_QUEUE, 1, "forged"),
    ("ZADD", REGISTRY, 1, "forged"),
    ("ZRANGE", REGISTRY, 0, -1),
    ("SADD", "rq:workers", "forged"),
    ("SMEMBERS", "rq:workers"),
    ("XREVRANGE", "rq:results:forged", "+", "-"),
    ("PUBLISH", "rq:pubsub:worker", "forged"),
    ("SUBSCRIBE", "rq:pubsub:worker"),
]
"""Whoever may do the first three runs code in the workers of detached re-embeddings."""

REFUSED: dict[str, list[Command]] = {
    "producer": [*FROM_EVERYBODY, *FROM_ALL_BUT_WORKERS, *DEAD_LETTERS, *DETACHED, ("INFO",), ("MULTI",)],
    "reembed": [
        *FROM_EVERYBODY,
        *FROM_ALL_BUT_WORKERS,
        *DEAD_LETTERS,
        ("EVAL", "return 1", 1, JOB),
        ("EVALSHA", "0" * 40, 1, JOB),
        ("RENAME", JOB, "rq:job:other"),
        ("KEYS", "rq:*"),
        ("PSUBSCRIBE", "rq:pubsub:*"),
    ],
    "operator": [
        *FROM_EVERYBODY,
        *FROM_ALL_BUT_WORKERS,
        ("INFO",),
        ("DEL", JOB),
        ("SET", JOB, "forged"),
        ("LMOVE", DETACHED_QUEUE, "rq:queue:other", "LEFT", "RIGHT"),
        ("XADD", "rq:results:forged", "*", "type", 1),
        ("SREM", "rq:workers", "forged"),
    ],
    "worker": [
        *FROM_EVERYBODY,
        *DETACHED,
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
