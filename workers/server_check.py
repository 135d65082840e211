"""Whether a Redis server will keep what it is given: its version, its eviction policy and its persistence. No I/O."""

from collections.abc import Mapping
from typing import Any

from producer.errors import ConfigurationError

_LEAST_VERSION = (6, 2)


def check_server(info: Mapping[str, Any]) -> list[str]:
    """Read the fields of INFO (CONFIG is not for workers to run); return what an operator should know, one line each.

    Raises:
        ConfigurationError: the server is too old, or may evict queues to make room.
    """
    version = str(info.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < _LEAST_VERSION:
        raise ConfigurationError(f"Redis {version} is too old: Headrace needs 6.2 or newer")
    policy = str(info.get("maxmemory_policy", ""))
    if policy.startswith("allkeys-"):
        raise ConfigurationError(
            f"Redis may evict queues (maxmemory-policy {policy}): set maxmemory-policy to volatile-lfu, "
            "which evicts cached results only"
        )
    return [*_memory_warnings(policy, int(info.get("maxmemory", 0))), *_other_warnings(info)]


def _memory_warnings(policy: str, maxmemory: int) -> list[str]:
    if not maxmemory:
        return ["Redis has no maxmemory: the cache may grow until the machine's memory is full"]
    if policy == "noeviction":
        return [
            "Redis evicts nothing (maxmemory-policy noeviction): once the cache fills its memory, no job and no result "
            "is taken; volatile-lfu evicts cached results instead"
        ]
    return []


def _other_warnings(info: Mapping[str, Any]) -> list[str]:
    warnings = []
    if not int(info.get("aof_enabled", 0)):
        warnings.append(
            "Redis keeps no append-only file: what is queued is lost if it crashes, and only callers that still wait "
            "bring it back"
        )
    if int(info.get("cluster_enabled", 0)):
        warnings.append("Redis runs as a cluster, which Headrace's clients do not speak yet")
    return warnings
