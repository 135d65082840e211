"""The check of a Redis server's settings: what is refused, and what is only said."""

from typing import Any

import pytest

from producer.errors import ConfigurationError
from workers.server_check import check_server

GOOD: dict[str, Any] = {
    "redis_version": "7.0.15",
    "maxmemory": 2_000_000_000,
    "maxmemory_policy": "volatile-lfu",
    "aof_enabled": 1,
    "cluster_enabled": 0,
}


@pytest.mark.parametrize("version", ["6.2.14", "7.0.15", "8.2.3", "10.0.0"])
@pytest.mark.parametrize("policy", ["volatile-lfu", "volatile-ttl", "volatile-lru", "volatile-random"])
def test_a_good_server_is_not_talked_about(version: str, policy: str) -> None:
    assert check_server({**GOOD, "redis_version": version, "maxmemory_policy": policy}) == []


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random"])
def test_a_policy_that_can_evict_queues_is_refused(policy: str) -> None:
    with pytest.raises(ConfigurationError, match=f"may evict queues .*{policy}.*volatile-lfu"):
        check_server({**GOOD, "maxmemory_policy": policy})


@pytest.mark.parametrize("version", ["5.0.14", "6.0.16"])
def test_an_old_server_is_refused(version: str) -> None:
    with pytest.raises(ConfigurationError, match=f"Redis {version} is too old: .*6.2"):
        check_server({**GOOD, "redis_version": version})


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"maxmemory_policy": "noeviction"}, "evicts nothing"),
        ({"maxmemory": 0, "maxmemory_policy": "noeviction"}, "no maxmemory"),
        ({"aof_enabled": 0}, "no append-only file"),
        ({"cluster_enabled": 1}, "cluster"),
    ],
)
def test_what_an_operator_should_know_is_said_in_one_line(changes: dict[str, Any], warning: str) -> None:
    (line,) = check_server({**GOOD, **changes})

    assert warning in line
    assert "\n" not in line
