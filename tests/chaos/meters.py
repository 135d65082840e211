"""What a soak may not make grow: keys and memory of Redis; memory, threads and open files of processes."""

import gc
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from producer.wire.keys import GROUP, Lane
from producer.wire.models import TASKS, TaskName
from tests.integration.harness.site import Site

_KIB = 1024


@dataclass(frozen=True, kw_only=True)
class ProcessReading:
    """One process, from proc(5)."""

    rss_bytes: int
    threads: int
    descriptors: int


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Everything at one moment. `keys` counts by kind, such as "emb", "wait" or "bulk"; processes go by their role."""

    keys: Mapping[str, int]
    redis_bytes: int
    clients: int
    channels: int
    consumers: int
    """Of the lanes' groups."""

    processes: Mapping[str, ProcessReading]


def read(site: Site, pids: Mapping[str, int]) -> Reading:
    """Read a server that serves this site alone, and processes by their role."""
    gc.collect()  # this process is one of those that are read
    memory: Any = site.client.info("memory")
    clients: Any = site.client.info("clients")
    return Reading(
        keys=count_keys(site),
        redis_bytes=int(memory["used_memory"]),
        clients=int(clients["connected_clients"]),
        channels=len(site.client.pubsub_channels()),
        consumers=sum(len(_consumers(site, task, lane)) for task in TASKS for lane in Lane),
        processes={role: _read_process(pid) for role, pid in pids.items()},
    )


def count_keys(site: Site) -> dict[str, int]:
    """Keys by kind; one that lives on past its end is a key like any other."""
    names = (key.decode() for key in site.client.scan_iter(count=1000))
    return dict(Counter(_kind(name.removeprefix(f"{site.namespace}:")) for name in names))


def load_left(site: Site, task: TaskName = "embed") -> dict[bytes, bytes]:
    """What admission believes to be on the lanes; nothing, when they are empty and it has not lost count."""
    load: Any = site.client.hgetall(site.queue(task).load)
    return {name: count for name, count in load.items() if int(count)}


def _consumers(site: Site, task: TaskName, lane: Lane) -> list[Any]:
    consumers: Any = site.client.xinfo_consumers(site.queue(task).lane(lane), GROUP)
    return list(consumers)


def _kind(name: str) -> str:
    """The kind of a key: what stands behind its hash tag, or before its first colon."""
    _, tagged, rest = name.rpartition("}:")
    return (rest if tagged else name).partition(":")[0]


def _read_process(pid: int) -> ProcessReading:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return ProcessReading(
        rss_bytes=int(status["VmRSS"].split()[0]) * _KIB,
        threads=int(status["Threads"]),
        descriptors=len(list(Path(f"/proc/{pid}/fd").iterdir())),
    )
