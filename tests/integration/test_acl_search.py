"""Searches under the users of docker/users.acl: all of their work is let through, and no more of their keys."""

from pathlib import Path

import pytest
from qdrant_client import QdrantClient

from producer import QdrantStore, SemanticSearch
from producer.wire.keys import SearchKeys
from tests.integration.harness.engine import Engine
from tests.integration.harness.guarded import Guarded, guarded_redis
from tests.integration.harness.refused import Command
from tests.integration.harness.searching import make_contacts
from tests.integration.test_acl_refusals import refusal

KEYS = SearchKeys(user_id=7)
ENTRY = KEYS.entry("0" * 32)

FROM_ALL: list[Command] = [
    ("APPEND", ENTRY, "forged"),
    ("COPY", ENTRY, KEYS.entry("1" * 32)),
    ("DUMP", ENTRY),
    ("GETDEL", ENTRY),
    ("MGET", ENTRY),
    ("PERSIST", ENTRY),
    ("RENAME", ENTRY, KEYS.entry("1" * 32)),
    ("ZREM", KEYS.entries, "member"),
    ("EXPIRE", ENTRY, 3600),
    ("ZADD", KEYS.generation, 1, "forged"),
    ("GET", "searching"),
    ("GET", "other:search:7:generation"),
    ("SCAN", 0, "MATCH", "search:*"),
]
FROM_WORKERS: list[Command] = [
    ("GET", ENTRY),
    ("SET", ENTRY, "forged"),
    ("UNLINK", KEYS.generation),
    ("ZRANGE", KEYS.entries, 0, -1),
    ("ZADD", KEYS.entries, 1, "forged"),
]
REFUSED = {
    "producer": FROM_ALL,
    "operator": FROM_ALL,
    "worker": FROM_ALL + FROM_WORKERS,
    "reembed": FROM_ALL + FROM_WORKERS,
}


@pytest.mark.parametrize("user", ["producer", "operator"])
def test_a_search_is_cached_and_forgotten_and_nothing_is_refused(acl_server: Path, tmp_path: Path, user: str) -> None:
    client = QdrantClient(":memory:")
    make_contacts(client, "contacts")
    with guarded_redis(acl_server, tmp_path, namespace="acme") as guarded:
        guarded.load_scripts()
        worker, site = guarded.site("worker"), guarded.site(user)
        with Engine(worker), Engine(worker, task="rerank"), site.producer() as producer:
            search = SemanticSearch(producer, QdrantStore.of(client, "contacts"))
            assert [search.search(7, "swim").cached for _ in range(2)] == [False, True]
            search.forget(7)
            assert list(guarded.admin.scan_iter("acme:search:*")) == []
            assert not search.search(7, "swim").cached
        assert guarded.refusals() == []
    client.close()


def test_what_a_search_need_not_do_is_refused(acl_server: Path, tmp_path: Path) -> None:
    with guarded_redis(acl_server, tmp_path) as guarded:
        guarded.admin.mset({ENTRY: "value", KEYS.generation: "token"})
        guarded.admin.zadd(KEYS.entries, {"member": 1})
        allowed = {user: _allowed(guarded, user, commands) for user, commands in REFUSED.items()}
        assert allowed == {user: {} for user in REFUSED}
        assert guarded.admin.mget(ENTRY, KEYS.generation) == [b"value", b"token"]


def _allowed(guarded: Guarded, user: str, commands: list[Command]) -> dict[Command, str]:
    """The commands that were not refused for want of rights, with their answers."""
    with guarded.client(user) as client:
        answers = {command: refusal(client, command) for command in commands}
    return {command: answer for command, answer in answers.items() if not answer.startswith("NOPERM")}
